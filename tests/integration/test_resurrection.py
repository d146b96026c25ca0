"""Does anything bring an erased person back: a late event, a replay, a copy put back, a zombie?"""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import msgspec.structs
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from consumers.erasures.erasures_to_certificates import Desk, limits_of
from consumers.erasures.looks import Examiner
from consumers.erasures.stores import Stores
from consumers.rules.certificate import broken_links
from consumers.rules.erasure import Erasure
from runtime.clock import now_ms
from schemas.codec import CLAIMED, COLLECTED
from schemas.events import Collected
from schemas.moves import Claimed
from schemas.partitioning import partition_of
from schemas.requests import merged_erasure_id
from schemas.topics import PARTITIONER
from sinks.counter_store import CounterStore
from tests.collecting import TopicReader
from tests.erasing import DAY_MS, House, house
from tests.waiting import eventually

TABLES = ("facts", "counters", "progress")


@pytest.fixture(scope="module")
def home(
    kafka: str, redis_url: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    with house(
        tmp_path_factory.mktemp("house"),
        f"rising-{now_ms()}",
        kafka=kafka,
        redis_url=redis_url,
        clickhouse_url=clickhouse_url,
    ) as made:
        # Somebody who stays, so that no number is of the erased alone.
        made.send(made.order("stays"), made.opened("stays"))
        yield made


def counted(home: House) -> dict[str, Any]:
    """What the page shows, once everything sent is counted and equals the facts."""
    verdict = home.verdict()
    assert verdict.is_verified, verdict.lines()
    return home.campaign()


def await_facts(home: House, pid: bytes) -> None:
    """Wait until an order, the visit it begins and, if sent, an opened mail are counted."""
    eventually(lambda: home.facts_of(pid) >= 2)


def expect_gone(home: House, user: str, pid: bytes, erasure_id: str) -> None:
    """Every store says so when asked again, and no way in leads to the person."""

    def is_gone() -> bool:
        home.look(erasure_id)
        left = home.remaining(erasure_id)
        assert not any(left.values()), left
        return True

    eventually(is_gone, within_s=60)
    assert home.facts_of(pid) == 0
    assert home.vault.lookup("user", user) is None
    assert home.redis.hget(home.settings.redis.key_prefix + pid.hex(), "p") is None
    assert home.http.get(f"/v1/profiles/user:{user}").status_code == 404


def test_event_that_was_in_flight_and_replay_of_the_whole_log_are_dropped(home: House) -> None:
    user = home.someone()
    home.send(home.order(user), home.opened(user))
    pid = home.pid_of(user)
    with home.roles():
        before = home.await_counted(orders=2, unique_opened=2)
        erasure_id = home.erased(user)
        home.await_status(erasure_id)
        # A collector that had resolved the person before writes now; then all of it once more.
        topic = home.settings.topic_names.collected
        producer = Producer(
            {
                "bootstrap.servers": home.settings.kafka.bootstrap_servers,
                "partitioner": PARTITIONER,
            }
        )
        reader = TopicReader(home.settings, topic)
        old = [(key, value) for key, value in reader.read() if key == pid]
        reader.close()
        assert len(old) == 2
        for number, (key, value) in enumerate(old):
            event = COLLECTED.decode(value)
            late = msgspec.structs.replace(event, event_id=bytes([number]) * 16)
            producer.produce(topic, COLLECTED.encode(late), key)
            producer.produce(topic, value, key)
        producer.flush(20)
        home.send(home.order("stays"))
        assert home.await_counted(orders=3)["buyers"] == before["buyers"]
    # Stores that were lost are counted again from the first record on.
    for table in TABLES:
        home.clickhouse.command(f"TRUNCATE TABLE {table}")
    for key in home.redis.scan_iter(home.settings.redis.key_prefix + "*"):
        home.redis.delete(key)
    with home.roles():
        home.await_counted(orders=3, buyers=before["buyers"], unique_opened=2)
        expect_gone(home, user, pid, erasure_id)
        assert counted(home)["orders"] == 3


def test_merge_that_was_in_flight_meets_an_erased_person(home: House) -> None:
    """The vault had not heard that the device is hers when she was erased; a collector had."""
    user, web = home.someone(), f"d-{home.someone()}"
    seen = home.call("", "page", anonymousId=web, properties={"campaign_id": "spring"})
    del seen["userId"]
    home.send(home.order(user), seen)
    pid, device = home.pid_of(user), home.vault.lookup("anonymous", web)
    assert device is not None
    claim = Claimed(device.pid, pid, 3, now_ms(), b"identifies a her", "identify", now_ms())
    topic = home.settings.topic_names.moves
    servers = home.settings.kafka.bootstrap_servers
    producer = Producer({"bootstrap.servers": servers, "partitioner": PARTITIONER})
    with home.roles():
        await_facts(home, pid)
        await_facts(home, device.pid)
        erasure_id = home.erased(user)
        home.await_status(erasure_id)
        producer.produce(topic, CLAIMED.encode(claim), device.pid)
        assert producer.flush(20) == 0
        # The device is hers: the lane asks for it to be forgotten too, and the role does it.
        merged = merged_erasure_id(pid, device.pid).hex()
        eventually(lambda: home.http.get(f"/v1/erasures/{merged}").status_code == 200, within_s=30)
        home.await_status(merged)
        assert home.vault.lookup("anonymous", web) is None
        # Said again, also by the device itself, it brings nobody back.
        producer.produce(topic, CLAIMED.encode(claim), device.pid)
        assert producer.flush(20) == 0
        again = home.call(user, "identify", anonymousId=web, traits={"name": "Ada"})
        home.send(again, seen | {"messageId": "again"}, home.order("stays"))
        assert counted(home)
        expect_gone(home, user, pid, erasure_id)
        assert home.facts_of(device.pid) == 0
        for subject in (f"user:{user}", f"anonymous:{web}"):
            assert home.http.get(f"/v1/profiles/{subject}").status_code == 404
            assert home.http.get(f"/v1/identities/{subject}").status_code == 404


def test_event_that_was_set_aside_is_mended_and_written_again(home: House) -> None:
    """Where it lies is all that is kept of it: whoever mends it has it from the log."""
    user = home.someone()
    home.send(home.order(user))
    pid = home.pid_of(user)
    topic = home.settings.topic_names.collected
    producer = Producer({"bootstrap.servers": home.settings.kafka.bootstrap_servers})
    place = partition_of(pid, home.settings.kafka.partitions)
    reader = TopicReader(home.settings, topic)
    (value,) = [value for key, value in reader.read() if key == pid]
    reader.close()
    event = COLLECTED.decode(value)
    broken = msgspec.structs.replace(event, event_id=b"set aside" + bytes(7), type="trick")

    def write(each: Collected) -> None:
        producer.produce(topic, COLLECTED.encode(each), pid, place)
        assert producer.flush(20) == 0

    def set_aside() -> int:
        rejected = home.http.get("/v1/events/rejected", "operator").json()["rejected"]
        return sum(each["reason"] == "unknown_type" for each in rejected)

    with home.roles():
        await_facts(home, pid)
        write(broken)
        eventually(lambda: set_aside() == 1)
        erasure_id = home.erased(user)
        home.await_status(erasure_id)
        shown = counted(home)
        write(msgspec.structs.replace(broken, type="track"))
        home.send(home.order(user_after := home.someone()))
        home.await_counted(orders=shown["orders"] + 1)
        await_facts(home, home.pid_of(user_after))
        expect_gone(home, user, pid, erasure_id)
        assert counted(home)["orders"] == shown["orders"] + 1


def test_redis_put_back_from_an_old_copy(home: House) -> None:
    user = home.someone()
    home.send(home.order(user))
    pid = home.pid_of(user)
    with home.roles():
        await_facts(home, pid)
    # Profiles, vault, and the role's own state and positions: all of one old moment.
    name = home.settings.kafka.topic_prefix.removesuffix(".")
    copy = {key: home.redis.dump(key) for key in home.redis.scan_iter(f"{name}:*")}
    erasure_id = home.erased(user)
    with home.roles():
        home.await_status(erasure_id)
        shown = counted(home)
    for key in list(home.redis.scan_iter(f"{name}:*")):
        home.redis.delete(key)
    for key, value in copy.items():
        home.redis.restore(key, 0, cast("Any", value))
    assert home.pid_of(user) == pid  # the copy is what it should be
    with home.roles():
        home.await_known(erasure_id)
        home.await_status(erasure_id)
        expect_gone(home, user, pid, erasure_id)
        home.send(home.order(user))
        assert home.vault.lookup("user", user) is None
        assert counted(home) == shown


def test_clickhouse_put_back_from_an_old_copy(home: House) -> None:
    user = home.someone()
    home.send(home.order(user), home.opened(user))
    pid = home.pid_of(user)
    with home.roles():
        await_facts(home, pid)
    for table in TABLES:
        home.clickhouse.command(f"DROP TABLE IF EXISTS {table}_old")
        home.clickhouse.command(f"CREATE TABLE {table}_old AS {table}")
        home.clickhouse.command(f"INSERT INTO {table}_old SELECT * FROM {table}")
    erasure_id = home.erased(user)
    with home.roles():
        home.await_status(erasure_id)
        shown = counted(home)
    for table in TABLES:
        home.clickhouse.command(f"EXCHANGE TABLES {table} AND {table}_old")
        home.clickhouse.command(f"DROP TABLE {table}_old")
    assert home.facts_of(pid) > 0
    with home.roles():
        expect_gone(home, user, pid, erasure_id)
        assert counted(home) == shown


def test_late_write_of_a_sink_that_should_be_dead_counts_nowhere(home: House) -> None:
    user = home.someone()
    home.send(home.order(user))
    pid = home.pid_of(user)
    topic = home.settings.topic_names.accepted
    zombie = CounterStore(home.settings, topic)
    with home.roles():
        await_facts(home, pid)
        facts = [each.fact for each in zombie.facts_of(None, [pid])]
        assert len(facts) == 2  # the order and its visit
        erasure_id = home.erased(user)
        home.await_status(erasure_id)
        shown = counted(home)
        zombie.insert_facts(facts)
        assert home.facts_of(pid) == 2
        assert counted(home) == shown
        expect_gone(home, user, pid, erasure_id)
        assert counted(home) == shown
    zombie.close()


class Died(Exception):
    """The process ended in the middle."""


class Mortal:
    """A store that works, and ends the process before or after its nth call."""

    def __init__(self, store: object, deaths: "Deaths") -> None:
        self._store = store
        self._deaths = deaths

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return self._deaths.around(getattr(self._store, name))


class Deaths:
    """Counts the calls of all stores together."""

    def __init__(self, at: int) -> None:
        self.left = at

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            self._step()
            answer = call(*arguments)
            self._step()
            return answer

        return called

    def _step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Died


def test_role_that_dies_at_any_step_goes_on_with_the_next_look(home: House) -> None:
    user = home.someone()
    home.send(home.order(user))
    pid = home.pid_of(user)
    partition = partition_of(pid, home.settings.kafka.partitions)
    with home.roles("subjects", "accepted"):
        await_facts(home, pid)
        shown = counted(home)
        erasure_id = home.erased(user)
        with Desk(home.settings) as desk:
            begun = Erasure(erasure_id, pid.hex(), partition, now_ms(), "withdrawn")
            desk.store.begin([begun], now_ms(), {})

            def have_both_sinks_passed() -> bool:
                (profile,) = desk.stores.profiles.read([pid.hex()])
                return profile.mark is not None and bool(
                    desk.stores.facts.count([pid.hex()])[pid.hex()].marks
                )

            eventually(have_both_sinks_passed)
        died = 0
        for step in range(1, 100):
            try:
                with dying_desk(home, step) as desk:
                    desk.look([erasure_id])
            except Died:
                died += 1
                assert home.campaign() == shown
            else:
                break
        assert died > 15
        assert counted(home) == shown
        expect_gone(home, user, pid, erasure_id)
    with Desk(home.settings) as desk:
        chain = desk.store.chain()
    assert broken_links(chain) == []
    # Dying between the certificate and the state costs one more that says the same.
    assert [link["certificate"]["erasure_id"] for link in chain].count(erasure_id) in (1, 2, 3)


@contextmanager
def dying_desk(home: House, at: int) -> Iterator[Desk]:
    """A desk whose process ends before or after one of its calls to a store."""
    deaths = Deaths(at)
    with Desk(home.settings, home.clock) as desk:
        real = desk.stores
        vault, profiles, facts, logs, messages = (
            cast("Any", Mortal(each, deaths))
            for each in (real.vault, real.profiles, real.facts, real.logs, real.messages)
        )
        tell, rewrite = deaths.around(real.tell), deaths.around(real.rewrite_files)
        stores = Stores(vault, profiles, facts, logs, messages, tell, rewrite)
        desk._examiner = Examiner(stores, limits_of(home.settings), home.clock)
        desk.store = desk.certifier._store = cast("Any", Mortal(desk.store, deaths))
        yield desk


def test_it_is_final_once_every_horizon_has_passed_and_nothing_is_found(home: House) -> None:
    user = home.someone()
    home.send(home.order(user))
    pid = home.pid_of(user)
    erasure_id = home.erased(user)
    with home.roles():
        home.await_status(erasure_id)
        shown = counted(home)
    # Time alone is not enough: the logs still have it.
    home.clock.ahead_ms = 100 * DAY_MS
    assert home.look(erasure_id)["status"] == "provisional"
    assert home.remaining(erasure_id)["subjects"] == 0
    assert home.remaining(erasure_id)[home.settings.topic_names.collected] == 1
    topics = home.settings.topic_names
    p = partition_of(pid, home.settings.kafka.partitions)
    cut(home, [(topics.collected, p), (topics.accepted, p), (topics.segments_changed, p)])
    every = range(home.settings.kafka.partitions)
    cut(home, [(topic, n) for topic in (topics.rejected, topics.moves) for n in every])
    home.look(erasure_id)  # tells the lane to forget, and takes the mark out
    home.clock.ahead_ms += 100 * DAY_MS
    eventually(lambda: newest_of(home, pid) is None)
    state = home.look(erasure_id)
    assert state["status"] == "provisional"
    assert home.remaining(erasure_id)["subjects"] > 0  # not yet compacted
    home.worker.end(signal.SIGTERM)
    cut(home, [(topics.subjects, p)])

    def is_final() -> bool:
        assert home.look(erasure_id)["status"] == "final", home.remaining(erasure_id)
        return True

    eventually(is_final, within_s=60)
    state = home.state(erasure_id)
    assert state["pending"] == []
    assert not any(look["remaining"] for look in state["stores"])
    looked_for = {look["looked_for"] for look in state["stores"]}
    assert looked_for >= {
        "files of Redis from before the deletion",
        "parts on the disk that may have deleted rows",
        "statements kept that name the pid",
    }
    assert {look["store"] for look in state["stores"]} >= {
        "vault",
        "profiles",
        "subjects",
        "facts",
        topics.collected,
        topics.accepted,
        topics.rejected,
        topics.moves,
        topics.journeys,
        topics.segments_changed,
    }
    assert state["certificate"]["certificate"]["status"] == "final"
    assert not home.redis.exists(home.settings.redis.key_prefix + pid.hex())
    left = f"SELECT count() FROM facts WHERE pid = unhex('{pid.hex()}')"
    assert home.clickhouse.query(left).result_rows == [(0,)]
    kept = home.redis.hgetall(f"{home.settings.vault.key_prefix}erasure:{erasure_id}")
    assert pid.hex() not in str(kept)
    assert home.campaign() == shown
    home.send(home.call(user))
    assert home.vault.lookup("user", user) is None


def cut(home: House, partitions: list[tuple[str, int]]) -> None:
    """Everything in them is gone, as after their retention, or compaction of all of it."""
    admin = AdminClient({"bootstrap.servers": home.settings.kafka.bootstrap_servers})
    for topic in {topic for topic, _ in partitions}:
        # Kafka cuts no compacted log by hand.
        policy = ConfigEntry(
            "cleanup.policy", "delete", incremental_operation=AlterConfigOpType.SET
        )
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[policy])
        for future in admin.incremental_alter_configs([resource]).values():
            future.result(30)
    ends = [TopicPartition(topic, p, -1) for topic, p in partitions]

    def is_cut() -> bool:
        try:
            for future in admin.delete_records(ends).values():
                future.result(30)
        except KafkaException as refused:
            # The broker follows its controller: it may not know of the new policy yet.
            if refused.args[0].code() != KafkaError.POLICY_VIOLATION:
                raise
            return False
        return True

    eventually(is_cut)


def newest_of(home: House, pid: bytes) -> bytes | None:
    with Desk(home.settings) as desk:
        p = partition_of(pid, home.settings.kafka.partitions)
        return desk.stores.logs.of_keys(home.settings.topic_names.subjects, p, [pid])[pid].newest
