"""Does the broker take each record once, as it was sent, and refuse what it must refuse?

A producer that gets no answer sends again: with idempotence the broker recognises the batch by its
sequence number (KIP-98). librdkafka never sends twice by itself, so these tests speak the protocol.
"""

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from runtime.clock import now_ms
from tests.conftest import FreshName
from tests.contracts.broker import Broker
from tests.contracts.conftest import MakeTopic
from tests.waiting import eventually

NO_ERROR = 0


@dataclass(frozen=True, slots=True)
class RawProducer:
    """An idempotent producer by hand: it chooses the sequence number of each batch."""

    client: AIOKafkaClient
    topic: str
    producer_id: int
    epoch: int

    async def send(self, value: bytes, sequence: int) -> tuple[int, int]:
        """(error code, offset) that the broker answers to a batch of one record.

        Of now: Kafka forgets a producer whose newest record is older than a day (its
        producer.id.expiration.ms), and then takes a batch twice.
        """
        batch = DefaultRecordBatchBuilder(2, 0, False, self.producer_id, self.epoch, sequence, 0)
        batch.append(0, now_ms(), b"key", value, [])
        request = ProduceRequest(None, -1, 10_000, [(self.topic, [(0, bytes(batch.build()))])])
        leader = self.client.cluster.leader_for_partition(TopicPartition(self.topic, 0))
        answer = await self.client.send(leader, request)
        [(_, [(_, code, offset, *_)])] = answer.topics
        return code, offset


def send_raw(broker: Broker, topic: str, *batches: tuple[bytes, int]) -> list[tuple[int, int]]:
    """What the broker answers to batches of (value, sequence) of one new producer."""

    async def send() -> list[tuple[int, int]]:
        client = AIOKafkaClient(bootstrap_servers=broker.servers)
        await client.bootstrap()
        try:
            await client.set_topics([topic])
            made = None
            async with asyncio.timeout(30):
                # A broker without producer ids at hand says so, and fetches a block of them.
                while made is None or made.error_code == KafkaError.COORDINATOR_LOAD_IN_PROGRESS:
                    made = await client.send(
                        client.get_random_node(), InitProducerIdRequest(None, 60_000)
                    )
            assert made.error_code == NO_ERROR
            producer = RawProducer(client, topic, made.producer_id, made.producer_epoch)
            return [await producer.send(value, sequence) for value, sequence in batches]
        finally:
            await client.close()

    return asyncio.run(send())


def test_batch_sent_again_is_written_once(broker: Broker, topic: str) -> None:
    first, again, third = send_raw(broker, topic, (b"a", 0), (b"a", 0), (b"b", 1))
    assert (first, third) == ((NO_ERROR, 0), (NO_ERROR, 1))
    assert again[0] in (NO_ERROR, KafkaError.DUPLICATE_SEQUENCE_NUMBER)
    assert broker.read(topic).records == [(0, b"a"), (1, b"b")]


def test_batch_that_comes_before_its_forerunner_is_refused(broker: Broker, topic: str) -> None:
    answers = send_raw(broker, topic, (b"a", 0), (b"c", 2), (b"b", 1))
    assert [code for code, _ in answers] == [
        NO_ERROR,
        KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER,
        NO_ERROR,
    ]
    assert broker.read(topic).records == [(0, b"a"), (1, b"b")]


def delivered(producer: Producer, *places: Any, **record: Any) -> KafkaError | None:
    """What becomes of one record; None if it was acknowledged."""
    errors: list[KafkaError | None] = []
    producer.produce(*places, **record, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(30) == 0
    return errors[0]


def first_message(broker: Broker, topic: str) -> Message:
    with broker.consumer() as consumer:
        consumer.assign([TopicPartition(topic, 0, 0)])
        message = eventually(lambda: consumer.poll(0.2), every_s=0)
        assert message.error() is None
        return message


def test_record_comes_back_as_it_was_sent(broker: Broker, topic: str) -> None:
    headers = [("trace", b"\x00\xff"), ("empty", b""), ("none", None), ("trace", b"again")]
    at_ms = now_ms() - 3_600_000
    error = delivered(
        broker.producer(), topic, b"value", b"\x00key", 0, timestamp=at_ms, headers=headers
    )
    assert error is None
    found = first_message(broker, topic)
    assert (found.key(), found.value()) == (b"\x00key", b"value")
    assert found.headers() == headers
    assert found.timestamp() == (TIMESTAMP_CREATE_TIME, at_ms)


def test_null_and_empty_are_different(broker: Broker, topic: str) -> None:
    broker.put(topic, b"", None)
    assert [value for _, value in broker.read(topic).records] == [b"", None]
    with broker.consumer() as consumer:
        consumer.assign([TopicPartition(topic, 0, 0)])
        assert eventually(lambda: consumer.poll(0.2), every_s=0).key() is None


@pytest.mark.parametrize("compression", ["none", "gzip", "lz4", "zstd"])
def test_compressed_records_are_read_back(broker: Broker, topic: str, compression: str) -> None:
    value = os.urandom(100) + bytes(20_000)
    assert delivered(broker.producer(compression_type=compression), topic, value) is None
    assert broker.read(topic).records == [(0, value)]


def test_record_larger_than_the_topic_allows_is_refused(
    broker: Broker, make_topic: MakeTopic
) -> None:
    topic = make_topic(max_message_bytes="10000")
    producer = broker.producer(message_max_bytes=1_000_000)
    assert delivered(producer, topic, os.urandom(9_000)) is None
    error = delivered(producer, topic, os.urandom(20_000))
    assert error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE
    assert len(broker.read(topic).records) == 1


def test_fenced_producer_cannot_write_even_what_it_had_begun(
    broker: Broker, topic: str, fresh_name: FreshName
) -> None:
    name = fresh_name("lane")
    first = broker.transactional(name)
    first.begin_transaction()
    first.produce(topic, b"zombie", partition=0)
    assert first.flush(30) == 0
    second = broker.transactional(name)
    # A record of the fenced one is refused, not only its commit.
    first.produce(topic, b"late", partition=0)
    with pytest.raises((KafkaException, SystemError)):
        first.flush(30)
        first.commit_transaction(30)
    second.begin_transaction()
    second.produce(topic, b"owner", partition=0)
    second.commit_transaction(30)
    values = [value for _, value in broker.read(topic, 0, "read_uncommitted").records]
    assert values == [b"zombie", b"owner"]
    eventually(lambda: [value for _, value in broker.read(topic).records] == [b"owner"])


def test_transaction_that_is_left_open_is_aborted_in_time(
    broker: Broker, topic: str, fresh_name: FreshName
) -> None:
    """A dead owner's transaction holds up readers no longer than its timeout allows."""
    name = fresh_name("lane")
    producer = broker.transactional(name, transaction_timeout_ms=1_000)
    producer.begin_transaction()
    producer.produce(topic, b"left", partition=0)
    assert producer.flush(30) == 0
    broker.put(topic, b"after")

    def is_readable(*, within_s: float) -> bool:
        try:
            return eventually(
                lambda: [value for _, value in broker.read(topic).records] == [b"after"],
                within_s=within_s,
            )
        except AssertionError:
            return False

    # noida-db never ends it by itself (it did not in 100 s).
    broker.shows(is_readable(within_s=4 if broker.kind == "trial" else 60), True, trial=False)
    broker.transactional(name)
    assert is_readable(within_s=30)
    with pytest.raises((KafkaException, SystemError)):
        producer.commit_transaction(30)
