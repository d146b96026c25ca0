"""Does a sink's reader give every partition from where it was told, whatever the group does?"""

from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from runtime import kafka_reader
from runtime.kafka_reader import KafkaReader
from runtime.settings import Settings
from schemas.errors import StoreUnavailable
from tests.waiting import eventually

PARTITIONS = 4

Found = dict[int, list[int]]


@pytest.fixture
def topic(kafka: str, fresh_name: Any) -> str:
    name: str = fresh_name("read")
    admin = AdminClient({"bootstrap.servers": kafka})
    for done in admin.create_topics([NewTopic(name, PARTITIONS, 1)]).values():
        done.result()
    return name


@pytest.fixture
def readers(kafka: str, topic: str) -> Iterator[Any]:
    """Makes members of one group on `topic`."""
    settings = Settings.model_validate({"kafka": {"bootstrap_servers": kafka}})
    made: list[KafkaReader] = []

    def make() -> KafkaReader:
        made.append(KafkaReader(settings, topic, f"group-{topic}"))
        return made[-1]

    yield make
    for reader in made:
        reader.close()


def produce(kafka: str, topic: str, each: int) -> None:
    """So many records into each partition."""
    producer = Producer({"bootstrap.servers": kafka})
    for partition in range(PARTITIONS):
        for _ in range(each):
            producer.produce(topic, b"record", partition=partition)
    producer.flush()


def read(reader: KafkaReader) -> Found:
    """Offsets of what has come, by partition."""
    batches = reader.read(limit=1000, wait_s=0.1, fill_s=0)
    return {b.partition: [offset for offset, _, _ in b.records] for b in batches if b.records}


def read_until(reader: KafkaReader, wanted: Found) -> None:
    """Fail unless exactly `wanted` comes."""
    found: Found = {}

    def is_all() -> bool:
        for partition, offsets in read(reader).items():
            found.setdefault(partition, []).extend(offsets)
        return found == wanted

    eventually(is_all, every_s=0)


def join(reader: KafkaReader, partitions: int) -> None:
    def has_joined() -> bool:
        read(reader)
        return len(reader.unstarted) == partitions

    eventually(has_joined, every_s=0)


def test_nothing_comes_before_the_start_and_then_all_from_there(
    kafka: str, topic: str, readers: Any
) -> None:
    produce(kafka, topic, 3)
    reader = readers()
    join(reader, PARTITIONS)
    assert read(reader) == {}
    reader.start({0: None, 1: 1, 2: 2, 3: 3})
    read_until(reader, {0: [0, 1, 2], 1: [1, 2], 2: [2]})
    reader.restart()
    reader.start({0: 2, 1: 3, 2: 3, 3: 0})
    read_until(reader, {0: [2], 3: [0, 1, 2]})


def test_staying_alive_reads_on_without_loss_or_repeat(
    kafka: str, topic: str, readers: Any
) -> None:
    reader = readers()
    join(reader, PARTITIONS)
    reader.start(dict.fromkeys(range(PARTITIONS)))
    produce(kafka, topic, 2)
    reader.keep_alive(0.5)
    reader.keep_alive(0.0)
    produce(kafka, topic, 1)
    read_until(reader, {partition: [0, 1, 2] for partition in range(PARTITIONS)})


def test_partitions_that_change_hands_while_one_member_waits_flow_for_both(
    kafka: str, topic: str, readers: Any
) -> None:
    produce(kafka, topic, 2)
    first = readers()
    join(first, PARTITIONS)
    first.start(dict.fromkeys(range(PARTITIONS)))
    second = readers()

    def is_shared() -> bool:
        first.keep_alive(0.1)
        read(second)
        return len(first.unstarted) == len(second.unstarted) == PARTITIONS // 2

    eventually(is_shared, every_s=0)
    for reader in (first, second):
        ours = reader.unstarted
        reader.start(dict.fromkeys(ours, 1))
        read_until(reader, {partition: [1] for partition in ours})


def test_no_partition_is_paused_or_resumed_beside_an_assignment(
    kafka: str, topic: str, readers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """librdkafka may drop one of the two (its issue 5591): about one start in a hundred left a
    partition silent for good."""
    calls: list[str] = []

    class Recording(Consumer):
        def assign(self, partitions: list[TopicPartition]) -> None:
            calls.append(f"assign {len(partitions)}")
            super().assign(partitions)

        def pause(self, partitions: list[TopicPartition]) -> None:
            calls.append("pause")
            super().pause(partitions)

        def resume(self, partitions: list[TopicPartition]) -> None:
            calls.append("resume")
            super().resume(partitions)

    monkeypatch.setattr(kafka_reader, "Consumer", Recording)
    reader = readers()
    join(reader, PARTITIONS)
    reader.start(dict.fromkeys(range(PARTITIONS)))
    produce(kafka, topic, 1)
    read_until(reader, {partition: [0] for partition in range(PARTITIONS)})
    assert calls == ["assign 0", f"assign {PARTITIONS}"]


def test_process_ends_when_its_group_forgot_it_although_kafka_answers(
    readers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a broker that was down twice: without it the reader would be silent for ever."""
    ends: list[str] = []
    monkeypatch.setattr(kafka_reader, "REJOINS_WITHIN_S", 0.5)
    monkeypatch.setattr(kafka_reader, "crash", lambda why, **_: ends.append(why))
    reader = readers()
    join(reader, PARTITIONS)
    reader.start(dict.fromkeys(range(PARTITIONS), None))
    read(reader)
    assert ends == []
    reader._consumer.unsubscribe()  # out of the group, and nothing brings it back

    def has_ended() -> bool:
        read(reader)
        return bool(ends)

    eventually(has_ended)


def test_reader_waits_for_kafka_however_long_it_is_away(
    readers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[str] = []
    looks: list[str] = []

    def is_away(*_: object, **__: object) -> None:
        looks.append("away")
        raise StoreUnavailable("away")

    monkeypatch.setattr(kafka_reader, "REJOINS_WITHIN_S", 0.2)
    monkeypatch.setattr(kafka_reader, "crash", lambda why, **_: ends.append(why))
    monkeypatch.setattr(kafka_reader, "log_ends", is_away)
    reader = readers()
    join(reader, PARTITIONS)
    reader.start(dict.fromkeys(range(PARTITIONS), None))
    reader._consumer.unsubscribe()

    def has_looked_thrice() -> bool:
        read(reader)
        return len(looks) == 3

    eventually(has_looked_thrice)
    assert ends == []
