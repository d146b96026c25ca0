"""Does the gate know whether lanes have read what is on the log, on a real broker and Valkey?"""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from confluent_kafka import Producer

from consumers.profiles import profile_freshness
from consumers.profiles.profile_freshness import ProfileFreshness
from runtime.log_ends import log_ends
from runtime.processes import free_ports
from runtime.retry import Stopped
from runtime.settings import Settings
from runtime.topics_admin import ensure_topics
from schemas.codec import CURSOR
from schemas.errors import StoreUnavailable
from schemas.subjects import CURSOR_KEY, Cursor, Position, applied_key
from sinks.subjects_to_redis import run_subjects_to_redis
from tests.sink_log import PARTITIONS, Lane, running, settings_of
from tests.waiting import eventually


@pytest.fixture
def settings(
    kafka: str, redis_url: str, fresh_name: Any, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    monkeypatch.setattr(profile_freshness, "CATCHES_UP_WITHIN_S", 0)
    made = settings_of(fresh_name("fresh"), kafka=kafka, redis=redis_url)
    ensure_topics(made)
    return made


@pytest.fixture
def freshness(settings: Settings) -> Iterator[ProfileFreshness]:
    made = ProfileFreshness(settings)
    eventually(lambda: is_fresh(made))  # a topic that was just made may have no leader yet
    yield made
    made.close()


def stands(settings: Settings, generation: int = 1) -> None:
    """Every lane says that it stands at the ends of all inputs."""
    topics, lane = settings.topic_names, Lane(settings)
    ends = {topic: log_ends(settings.kafka.bootstrap_servers, topic, PARTITIONS)
            for topic in topics.inputs}  # fmt: skip
    for p in range(PARTITIONS):
        positions = [Position(topic, of[p][1]) for topic, of in ends.items()]
        cursor = CURSOR.encode(Cursor(generation, 1, positions, 0, 0, "t", []))
        lane.put(topics.subjects, CURSOR_KEY, cursor, p)


def arrives(settings: Settings, topic: str, p: int) -> None:
    """Something is on the log that no lane has read."""
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    producer.produce(topic, b"x", b"x", p)
    assert producer.flush(30) == 0


def is_fresh(freshness: ProfileFreshness) -> bool:
    try:
        freshness.require()
    except StoreUnavailable:
        return False
    return True


def test_profiles_are_fresh_once_every_lane_stood_at_the_ends_of_all_inputs(
    settings: Settings, freshness: ProfileFreshness
) -> None:
    topics = settings.topic_names
    freshness.require()  # nothing was ever said
    with running(run_subjects_to_redis, settings):
        for topic in (topics.collected, topics.consents, topics.moves):
            arrives(settings, topic, PARTITIONS - 1)
            with pytest.raises(StoreUnavailable, match=r"behind .*\[1\]; see streams"):
                freshness.require()
            stands(settings)
            eventually(lambda: is_fresh(freshness))
        arrives(settings, topics.collected, 0)
        stands(settings, generation=2)
        assert not is_fresh(freshness), "believed a lane of another generation"
    stands(settings)
    assert not is_fresh(freshness), "fresh without the sink"
    with running(run_subjects_to_redis, settings):
        eventually(lambda: is_fresh(freshness))


@pytest.mark.parametrize("is_away", [False, True], ids=["lanes are behind", "kafka is away"])
def test_who_waits_for_profiles_stops_when_told_to(
    settings: Settings,
    freshness: ProfileFreshness,
    monkeypatch: pytest.MonkeyPatch,
    is_away: bool,
) -> None:
    if is_away:
        kafka = settings.kafka.model_copy(
            update={"bootstrap_servers": f"127.0.0.1:{free_ports(1)[0]}"}
        )
        settings = settings.model_copy(update={"kafka": kafka})
    else:
        arrives(settings, settings.topic_names.collected, 0)
        assert not is_fresh(freshness)
    for name in ("ANSWER_WITHIN_S", "CATCHES_UP_WITHIN_S"):
        monkeypatch.setattr(profile_freshness, name, 600.0)
    stop = threading.Event()
    raised: list[BaseException] = []
    told = ProfileFreshness(settings, stop)

    def wait() -> None:
        try:
            told.require()
        except BaseException as error:
            raised.append(error)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    stop.set()
    waiting.join(60)
    assert [type(each) for each in raised] == [Stopped]
    told.close()


def test_a_sink_that_finds_profiles_of_an_older_version_learns_where_lanes_stand(
    settings: Settings, freshness: ProfileFreshness, redis_client: redis.Redis
) -> None:
    topics = settings.topic_names
    arrives(settings, topics.collected, 0)
    stands(settings)
    with running(run_subjects_to_redis, settings):
        eventually(lambda: is_fresh(freshness))
    for p in range(PARTITIONS):
        redis_client.delete(applied_key(settings.redis.key_prefix, topics.subjects, p))
    assert not is_fresh(freshness)
    with running(run_subjects_to_redis, settings):
        eventually(lambda: is_fresh(freshness))
