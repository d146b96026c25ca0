"""Which records does the log hold about one person?

All of a person's records lie in one partition of each topic, by the pid that is their key. It is
read once, from its beginning to where it ends when the reading starts, committed records only; what
others wrote is passed over by its key without being decoded. Memory holds one chunk.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from runtime.settings import Settings
from schemas.errors import StoreUnavailable
from schemas.partitioning import partition_of

ANSWER_WITHIN_S = 15.0
_CHUNK = 2000
_MOST_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record about the person; `written_at_ms` is the log's own time, UTC."""

    topic: str
    partition: int
    offset: int
    written_at_ms: int
    value: bytes

    @property
    def place(self) -> str:
        """`events.accepted[3]@88214`."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


def records_of(settings: Settings, topic: str, pid: bytes) -> Iterator[list[LogRecord]]:
    """The person's records in log order, some at a time; now and then none, while it is looking.

    Raises StoreUnavailable when Kafka does not answer, or has no such topic. Close the iterator to
    end early.
    """
    partition = partition_of(pid, settings.kafka.partitions)
    consumer = Consumer(
        {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            # Named because librdkafka asks for it; no offset is ever committed.
            "group.id": f"{settings.kafka.topic_prefix}headwater.export",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "queued.max.messages.kbytes": 16_384,
            "fetch.queue.backoff.ms": 20,
            # noida-db ignores fetch limits: a backlog comes in one answer (docs/trial-mode.md).
            "receive.message.max.bytes": 1_000_000_000,
            "socket.timeout.ms": int(ANSWER_WITHIN_S * 1000),
            "log_level": 2,
        }
    )
    try:
        at = TopicPartition(topic, partition)
        first, end = consumer.get_watermark_offsets(at, ANSWER_WITHIN_S)
        if first >= end:
            return
        consumer.assign([TopicPartition(topic, partition, first)])
        yield from _read(consumer, pid, end)
    except KafkaException as error:
        raise StoreUnavailable(f"Kafka did not give the records of {topic}") from error
    finally:
        consumer.close()


def _read(consumer: Consumer, pid: bytes, end: int) -> Iterator[list[LogRecord]]:
    heard_at_s = time.monotonic()
    while True:
        messages = consumer.consume(_CHUNK, 0.2)
        if messages:
            heard_at_s = time.monotonic()
        elif time.monotonic() - heard_at_s > ANSWER_WITHIN_S:
            raise StoreUnavailable("Kafka stopped giving records")
        found: list[LogRecord] = []
        for message in messages:
            error = message.error()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                yield found
                return
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            assert topic is not None and partition is not None and offset is not None
            if offset >= end:
                yield found
                return
            value = message.value()
            if message.key() == pid and value is not None:
                _, at_ms = message.timestamp()
                found.append(LogRecord(topic, partition, offset, at_ms, value))
            if len(found) >= _MOST_AT_ONCE:
                yield found
                found = []
        yield found
