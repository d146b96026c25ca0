"""Does the broker, whichever it is, keep what the lanes rely on?

One suite for Apache Kafka and for trial mode's broker (HEADWATER_TEST_BROKER), so that trial mode
is kept honest.
"""

import gc
import random
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from runtime.log_ends import log_ends
from runtime.processes import free_ports
from runtime.settings import Kafka, Settings, TopicSettings
from runtime.topics_admin import ensure_topics
from runtime.transactions import LaneProducer, read_compacted
from schemas.errors import StoreRefused, StoreUnavailable
from schemas.partitioning import partition_of
from schemas.topics import PARTITIONER, Topics
from tests.conftest import FreshName
from tests.contracts.broker import Broker
from tests.waiting import eventually

MakeProducer = Callable[[str], LaneProducer]


class Fault(Exception):
    """What a lane would end its process for."""


def raise_fault(why: str) -> NoReturn:
    raise Fault(why)


def settings_of(broker: Broker, fresh_name: FreshName, **values: Any) -> Settings:
    prefix = f"{fresh_name('broker')}."
    kafka = Kafka(
        bootstrap_servers=broker.servers,
        replication_factor=broker.replication,
        topic_prefix=prefix,
        **values,
    )
    return Settings(kafka=kafka)


@pytest.fixture
def topics(broker: Broker, fresh_name: FreshName) -> Topics:
    settings = settings_of(broker, fresh_name, partitions=1)
    ensure_topics(settings)
    broker.wait_known(*(topic.name for topic in settings.topic_names.all()))
    return settings.topic_names


@pytest.fixture
def open_lane(kafka: str) -> Iterator[MakeProducer]:
    opened: list[LaneProducer] = []

    def open_lane(transactional_id: str) -> LaneProducer:
        producer = LaneProducer(kafka, transactional_id, raise_fault)
        producer.fence()
        opened.append(producer)
        return producer

    yield open_lane
    for producer in opened:
        producer.close()
    opened.clear()
    gc.collect()  # their connections end with them


def newest(kafka: str, topics: Topics) -> dict[bytes, bytes]:
    return read_compacted(kafka, topics.subjects, 0, f"{topics.prefix}rebuild").newest


def end_of(kafka: str, topic: str) -> int:
    return log_ends(kafka, topic, 1)[0][1]


@pytest.mark.parametrize("partitions", [3, 8])
def test_producer_chooses_the_partition_that_we_compute(
    broker: Broker, fresh_name: FreshName, partitions: int
) -> None:
    settings = settings_of(broker, fresh_name, partitions=partitions)
    ensure_topics(settings)
    chance = random.Random(partitions)
    keys = [chance.randbytes(16) for _ in range(300)]
    keys += [chance.randbytes(size) for size in range(1, 40)]
    chosen: dict[bytes, int] = {}
    producer = broker.producer(partitioner=PARTITIONER)
    for key in keys:
        producer.produce(
            settings.topic_names.collected,
            b"",
            key,
            on_delivery=lambda error, message: chosen.update({message.key(): message.partition()}),
        )
    assert producer.flush(30) == 0
    assert chosen == {key: partition_of(key, partitions) for key in keys}
    assert set(chosen.values()) == set(range(partitions))


def settings_on_the_broker(kafka: str, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = AdminClient({"bootstrap.servers": kafka})  # its answers end with it
    described = admin.describe_configs([resource])[resource].result(30)
    return {name: entry.value for name, entry in described.items()}


def test_topics_are_created_once_as_configured(broker: Broker, fresh_name: FreshName) -> None:
    kafka = broker.servers
    settings = settings_of(broker, fresh_name, partitions=2).model_copy(
        update={"topics": {"events.accepted": TopicSettings(retention_days=3)}}
    )
    names = settings.topic_names
    assert sorted(ensure_topics(settings)) == sorted(topic.name for topic in names.all())
    assert ensure_topics(settings) == []
    assert settings_on_the_broker(kafka, names.subjects)["cleanup.policy"] == "compact"
    accepted = settings_on_the_broker(kafka, names.accepted)
    assert accepted["retention.ms"] == str(3 * 86_400_000)
    assert int(accepted["max.message.bytes"]) > int(
        settings_on_the_broker(kafka, names.collected)["max.message.bytes"]
    )
    if broker.replication == 3:
        assert accepted["min.insync.replicas"] == "2"
        assert accepted["unclean.leader.election.enable"] == "false"


def test_topic_with_another_partition_count_is_refused(
    broker: Broker, fresh_name: FreshName
) -> None:
    settings = settings_of(broker, fresh_name, partitions=2)
    ensure_topics(settings)
    wrong = settings.kafka.model_copy(update={"partitions": 3})
    with pytest.raises(StoreRefused, match=r"has 2 partitions, \[kafka\] partitions says 3"):
        ensure_topics(settings.model_copy(update={"kafka": wrong}))


def test_empty_partition_is_read_to_its_end(kafka: str, topics: Topics) -> None:
    assert newest(kafka, topics) == {}
    assert end_of(kafka, topics.subjects) == 0


def test_reader_gives_up_on_a_broker_that_does_not_answer() -> None:
    [port] = free_ports(1, [])
    with pytest.raises(StoreUnavailable, match="no answer"):
        read_compacted(f"127.0.0.1:{port}", "subjects", 0, "test", within_s=0.5)


def test_newest_value_of_a_key_is_read_back_and_a_tombstone_removes_it(
    kafka: str, topics: Topics, open_lane: MakeProducer
) -> None:
    producer = open_lane(f"{topics.prefix}lane")
    for values in ([(b"a", b"1"), (b"b", b"1"), (b"c", b"1")], [(b"a", b"2"), (b"b", None)]):
        for key, value in values:
            producer.send(topics.subjects, value, key, 0)
        producer.commit()
    eventually(lambda: newest(kafka, topics) == {b"a": b"2", b"c": b"1"})


def test_commit_makes_all_topics_of_a_transaction_visible_in_order(
    kafka: str, topics: Topics, open_lane: MakeProducer
) -> None:
    producer = open_lane(f"{topics.prefix}lane")
    for number in range(500):
        producer.send(topics.accepted, b"%d" % number, b"key", 0)
    producer.send(topics.subjects, b"cursor", b"@cursor", 0)
    assert newest(kafka, topics) == {}
    producer.commit()
    seen: list[int] = []

    def is_visible() -> bool:
        """A commit is sure when it answers, and visible a moment later."""
        found = read_compacted(kafka, topics.accepted, 0, f"{topics.prefix}test")
        seen.append(found.records)
        return found.newest == {b"key": b"499"}

    eventually(is_visible)
    assert set(seen) <= {0, 500}
    eventually(lambda: newest(kafka, topics) == {b"@cursor": b"cursor"})
    assert end_of(kafka, topics.accepted) == 501  # the commit's own record takes an offset


def test_transaction_of_a_fenced_owner_is_never_seen(
    kafka: str, topics: Topics, open_lane: MakeProducer
) -> None:
    name = f"{topics.prefix}lane"
    first = open_lane(name)
    first.send(topics.subjects, b"1", b"committed", 0)
    first.commit()
    first.send(topics.subjects, b"1", b"zombie", 0)
    # Its records are on the log, in an open transaction.
    committed_and_its_mark = 2
    eventually(lambda: end_of(kafka, topics.subjects) > committed_and_its_mark)
    second = open_lane(name)
    assert newest(kafka, topics) == {b"committed": b"1"}
    first.send(topics.subjects, b"2", b"zombie", 0)
    with pytest.raises(Fault):
        first.commit()
    second.send(topics.subjects, b"1", b"owner", 0)
    second.commit()
    eventually(lambda: newest(kafka, topics) == {b"committed": b"1", b"owner": b"1"})


def test_lanes_commit_side_by_side(kafka: str, topics: Topics, open_lane: MakeProducer) -> None:
    """Another lane's open transaction holds up what is read after it began, and loses nothing."""
    first, second = open_lane(f"{topics.prefix}0"), open_lane(f"{topics.prefix}1")
    for number in range(20):
        first.send(topics.rejected, b"1", b"first %d" % number, 0)
        second.send(topics.rejected, b"1", b"second %d" % number, 0)
        (first if number % 2 else second).commit()
    first.commit()
    second.commit()

    def count() -> int:
        return len(read_compacted(kafka, topics.rejected, 0, f"{topics.prefix}test").newest)

    eventually(lambda: count() == 40)
