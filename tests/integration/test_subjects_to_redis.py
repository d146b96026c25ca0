"""subjects -> Redis profiles, on a real broker and Valkey."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from runtime.embedded import EmbeddedStack, Wanted
from runtime.log_ends import log_ends
from runtime.settings import Settings
from runtime.topics_admin import ensure_topics
from schemas.codec import CURSOR, SUBJECT
from schemas.errors import StoreRefused
from schemas.subjects import CURSOR_KEY, SEEN_PREFIX, Cursor, Subject
from sinks.profile_store import ProfileStore, ProfileWrite
from sinks.subjects_to_redis import run_subjects_to_redis
from tests.sink_log import PARTITIONS, Lane, running, settings_of
from tests.waiting import eventually


@pytest.fixture
def settings(kafka: str, redis_url: str, fresh_name: Any) -> Settings:
    made = settings_of(fresh_name("profiles"), kafka=kafka, redis=redis_url)
    ensure_topics(made)
    return made


def pid(number: int) -> bytes:
    return number.to_bytes(16, "big")


def subject(
    number: int, orders: int, *, erased_at_ms: int | None = None, segments: Sequence[str] = ()
) -> bytes:
    return SUBJECT.encode(
        Subject(
            pid=pid(number),
            erased_at_ms=erased_at_ms,
            first_seen_ms=1,
            last_seen_ms=2,
            events=orders,
            orders=orders,
            refunds=0,
            spent=[],
            refunded=[],
            segments=list(segments),
            traits=[],
            consents=[],
            order_keys=b"",
            visit_campaigns=[],
            visits=b"",
        )
    )


class Profiles:
    """What Redis holds for one test."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self.client = client
        self.prefix = settings.redis.key_prefix
        self.settings = settings

    def fields(self, number: int) -> dict[Any, Any]:
        return dict(self.client.hgetall(self.prefix + pid(number).hex()))

    def orders(self, number: int) -> int | None:
        value = self.fields(number).get(b"p")
        return SUBJECT.decode(value).orders if value is not None else None

    def is_at_the_end(self) -> bool:
        topic = self.settings.topic_names.subjects
        ends = log_ends(self.settings.kafka.bootstrap_servers, topic, PARTITIONS)
        generation = self.settings.kafka.generation
        return all(
            end == 0
            or self.client.get(f"{self.prefix}cursor:{topic}:{p}") == f"{generation}:{end}".encode()
            for p, (_, end) in ends.items()
        )


@pytest.fixture
def profiles(redis_client: redis.Redis, settings: Settings) -> Profiles:
    return Profiles(redis_client, settings)


def test_the_newest_profile_of_each_person_is_there(settings: Settings, profiles: Profiles) -> None:
    lane, topic = Lane(settings), settings.topic_names.subjects
    with running(run_subjects_to_redis, settings):
        for orders in range(1, 4):
            lane.put_all(topic, [(pid(n), subject(n, orders * n)) for n in range(20)])
        eventually(profiles.is_at_the_end)
    assert [profiles.orders(n) for n in range(20)] == [3 * n for n in range(20)]
    assert profiles.fields(3)[b"g"] == b"1"


def test_the_lanes_own_records_are_no_profiles(settings: Settings, profiles: Profiles) -> None:
    cursor = CURSOR.encode(Cursor(1, 1, [], 0, 0, "t", []))
    records = [(CURSOR_KEY, cursor), (SEEN_PREFIX + bytes(8), b"x"), (pid(1), subject(1, 1))]
    with running(run_subjects_to_redis, settings):
        Lane(settings).put_all(settings.topic_names.subjects, records)
        eventually(profiles.is_at_the_end)
    keys = profiles.client.keys(f"{profiles.prefix}*")
    assert {key for key in keys if b"cursor:" not in key and b"applied:" not in key} == {
        (profiles.prefix + pid(1).hex()).encode()
    }


@pytest.mark.parametrize("value", [subject(1, 0, erased_at_ms=5), None])
def test_an_erased_person_leaves_a_mark_that_older_records_do_not_remove(
    settings: Settings, profiles: Profiles, value: bytes | None
) -> None:
    lane, topic = Lane(settings), settings.topic_names.subjects
    with running(run_subjects_to_redis, settings):
        lane.put_all(topic, [(pid(1), subject(1, 7)), (pid(2), subject(2, 1))])
        eventually(lambda: profiles.orders(1) == 7)
        lane.put_all(topic, [(pid(1), value)])
        eventually(profiles.is_at_the_end)
    mark = profiles.fields(1)
    assert set(mark) == {b"g", b"v", b"d"}
    assert profiles.client.ttl(profiles.prefix + pid(1).hex()) == -1
    ProfileStore(settings, topic).write([ProfileWrite(pid(1), 0, subject(1, 7))])
    assert profiles.fields(1) == mark
    assert profiles.orders(2) == 1


def test_members_of_segments_are_those_whose_profile_says_so(
    settings: Settings, profiles: Profiles
) -> None:
    lane, topic = Lane(settings), settings.topic_names.subjects

    def members(id_: str) -> set[int]:
        found: Any = profiles.client.zrange(f"{profiles.prefix}segment:{id_}", 0, -1)
        return {int(each, 16) for each in found}

    with running(run_subjects_to_redis, settings):
        lane.put_all(topic, [(pid(n), subject(n, 1, segments=["a", "b"])) for n in range(1, 4)])
        eventually(lambda: members("b") == {1, 2, 3})
        lane.put_all(topic, [(pid(1), subject(1, 2, segments=["b", "c"]))])
        lane.put_all(topic, [(pid(2), subject(2, 0, erased_at_ms=5))])
        eventually(profiles.is_at_the_end)
    assert (members("a"), members("b"), members("c")) == ({3}, {1, 3}, {1})
    # Older than what is there: changes no profile, hence no segment.
    ProfileStore(settings, topic).write([ProfileWrite(pid(1), 0, b"older", ["a"])])
    assert (members("a"), members("b"), members("c")) == ({3}, {1, 3}, {1})


def test_writes_in_any_order_leave_the_newest(settings: Settings, profiles: Profiles) -> None:
    topic = settings.topic_names.subjects
    raised = settings.kafka.model_copy(update={"generation": 2})
    newer = ProfileStore(settings.model_copy(update={"kafka": raised}), topic)
    older = ProfileStore(settings, topic)
    older.write([ProfileWrite(pid(1), 10, b"ten")])
    older.write([ProfileWrite(pid(1), 9, b"nine"), ProfileWrite(pid(1), 10, b"again")])
    assert profiles.fields(1)[b"p"] == b"ten"
    newer.write([ProfileWrite(pid(1), 2, b"of the new log")])
    older.write([ProfileWrite(pid(1), 11, b"eleven")])
    assert profiles.fields(1) == {b"g": b"2", b"v": b"2", b"p": b"of the new log"}


def test_it_resumes_from_its_cursor_and_a_lost_one_is_read_again(
    settings: Settings, profiles: Profiles
) -> None:
    lane, topic = Lane(settings), settings.topic_names.subjects
    with running(run_subjects_to_redis, settings):
        lane.put_all(topic, [(pid(n), subject(n, 1)) for n in range(10)])
        eventually(profiles.is_at_the_end)
        # A server that lost its newest writes: profiles and cursors went back together.
        for key in profiles.client.keys(f"{profiles.prefix}*"):
            profiles.client.delete(key)
        lane.put_all(topic, [(pid(100), subject(100, 2))])
        eventually(profiles.is_at_the_end)
    assert [profiles.orders(n) for n in range(10)] == [1] * 10
    assert profiles.orders(100) == 2


def test_a_rebuild_never_shows_a_person_who_was_erased_later(
    settings: Settings, profiles: Profiles
) -> None:
    lane, topic = Lane(settings), settings.topic_names.subjects
    lane.put_all(topic, [(pid(1), subject(1, 7))])
    lane.put_all(topic, [(pid(n), subject(n, 1)) for n in range(2, 300)])
    lane.put_all(topic, [(pid(1), subject(1, 0, erased_at_ms=5))])
    profiles.client.config_set("notify-keyspace-events", "Kh")
    seen: Any = profiles.client.pubsub()  # type: ignore[no-untyped-call]
    seen.psubscribe(f"__keyspace@*__:{profiles.prefix}{pid(1).hex()}")
    with running(run_subjects_to_redis, settings):
        eventually(profiles.is_at_the_end)
    writes = [
        m for m in iter(lambda: seen.get_message(timeout=0.5), None) if m["type"] == "pmessage"
    ]
    seen.close()
    assert [message["data"] for message in writes] == [b"hset"]
    assert set(profiles.fields(1)) == {b"g", b"v", b"d"}


def test_a_redis_that_is_away_or_full_is_waited_for(
    kafka: str, fresh_name: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wanted = Wanted(broker=None, redis=True, clickhouse=False)
    with EmbeddedStack(tmp_path_factory.mktemp("valkey"), wanted) as stack:
        url = stack.addresses.redis_url
        settings = settings_of(fresh_name("away"), kafka=kafka, redis=url)
        ensure_topics(settings)
        lane, topic = Lane(settings), settings.topic_names.subjects
        with redis.Redis.from_url(url) as client, running(run_subjects_to_redis, settings):
            profiles = Profiles(client, settings)
            lane.put_all(topic, [(pid(1), subject(1, 1))])
            eventually(profiles.is_at_the_end)
            stack.servers[0].stop()
            lane.put_all(topic, [(pid(1), subject(1, 2)), (pid(2), subject(2, 1))])
            stack.servers[0].start()
            stack.servers[0].wait_ready()
            eventually(profiles.is_at_the_end)
            assert (profiles.orders(1), profiles.orders(2)) == (2, 1)
            client.config_set("maxmemory", "1")
            lane.put_all(topic, [(pid(1), subject(1, 3))])
            eventually(lambda: client.info("errorstats").get("errorstat_OOM"))
            client.config_set("maxmemory", "0")
            eventually(profiles.is_at_the_end)
            assert profiles.orders(1) == 3


def test_what_is_no_subject_stops_the_role_at_its_place(settings: Settings) -> None:
    Lane(settings).put(settings.topic_names.subjects, pid(1), b"\0\0", partition=1)
    with pytest.raises(StoreRefused, match=r"subjects\[1\]@0"):
        run_subjects_to_redis(settings, threading.Event())


def test_a_log_that_went_back_stops_the_role(settings: Settings, profiles: Profiles) -> None:
    topic = settings.topic_names.subjects
    profiles.client.set(f"{profiles.prefix}cursor:{topic}:0", "1:5000")
    with pytest.raises(StoreRefused, match="the log went back"):
        run_subjects_to_redis(settings, threading.Event())
