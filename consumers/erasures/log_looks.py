"""What does Kafka still hold of a person, as a reader of its log finds it?

Nobody can take single records out of a log. What can be seen is how old the oldest record of a
partition is (everything older is gone), and, of a compacted topic, which keys are still there. All
reading is of uncommitted records too: an aborted one is on the disk like any other.
"""

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from runtime.fresh_consumer import FreshConsumer
from runtime.settings import Settings
from schemas.errors import StoreUnavailable

ANSWER_WITHIN_S = 15.0
_READ_ON = 2000
"""Offsets: reading so many is quicker than to begin anew behind them."""


@dataclass(frozen=True, slots=True)
class Found:
    """Records of one key in a partition, and the value of the newest."""

    records: int = 0
    newest: bytes | None = None


class LogLooks:
    """Reads partitions anywhere. For one thread. Every method raises StoreUnavailable."""

    def __init__(self, settings: Settings) -> None:
        self._kafka = FreshConsumer(
            {
                "bootstrap.servers": settings.kafka.bootstrap_servers,
                "group.id": f"{settings.kafka.topic_prefix}erasure.looks",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_uncommitted",
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 20,
                "receive.message.max.bytes": 1_000_000_000,
            }
        )

    def close(self) -> None:
        """End the connections."""
        self._kafka.close()

    def oldest_ms(self, topic: str, partitions: Iterable[int]) -> dict[int, int | None]:
        """Of each partition, when its oldest record was written (UTC ms); None if it has none."""
        found: dict[int, int | None] = {}
        for p in partitions:
            first, _ = self._range(topic, p)
            found[p] = None
            for message in self._read(topic, p, first):
                kind, at_ms = message.timestamp()
                # Of an unknown age is as old as can be: it never counts as gone.
                found[p] = 0 if kind == TIMESTAMP_NOT_AVAILABLE else at_ms
                break
        return found

    def values_at(
        self, topic: str, partition: int, offsets: Collection[int]
    ) -> dict[int, bytes | None]:
        """The values at these offsets; none of one that is no longer there."""
        wanted = frozenset(offsets)
        found: dict[int, bytes | None] = {}
        reading: Iterator[Message] = iter(())
        at = -_READ_ON
        for offset in sorted(wanted):
            if offset - at >= _READ_ON:
                reading = self._read(topic, partition, offset)
            for message in reading:
                at = int(message.offset() or 0)
                if at in wanted:
                    found[at] = message.value()
                if at >= offset:
                    break
        return found

    def of_keys(self, topic: str, partition: int, keys: Collection[bytes]) -> Mapping[bytes, Found]:
        """What the partition has of each key, from its first record to its last."""
        found = dict.fromkeys(keys, Found())
        first, _ = self._range(topic, partition)
        for message in self._read(topic, partition, first):
            key = message.key()
            known = found.get(key) if isinstance(key, bytes) else None
            if known is not None and isinstance(key, bytes):
                found[key] = Found(known.records + 1, message.value())
        return found

    def _range(self, topic: str, partition: int) -> tuple[int, int]:
        with _answering(topic), self._kafka.asked() as consumer:
            found: tuple[int, int] = consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=ANSWER_WITHIN_S
            )
        return found

    def _read(self, topic: str, partition: int, offset: int) -> Iterator[Message]:
        """Every record from `offset` to the end of now; control records are left out."""
        with _answering(topic), self._kafka.asked() as consumer:
            consumer.assign([TopicPartition(topic, partition, offset)])
            yield from _to_the_end(consumer, topic, partition)


def _to_the_end(consumer: Consumer, topic: str, partition: int) -> Iterator[Message]:
    heard_at_s = time.monotonic()
    while True:
        messages: list[Any] = consumer.consume(500, 0.05)
        if messages:
            heard_at_s = time.monotonic()
        elif time.monotonic() - heard_at_s > ANSWER_WITHIN_S:
            raise StoreUnavailable(f"{topic}[{partition}] cannot be read: no answer")
        for message in messages:
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
                return
            elif not error.retriable() and error.code() != KafkaError._TRANSPORT:
                raise StoreUnavailable(f"{topic}[{partition}] cannot be read: {error.name()}")


@contextmanager
def _answering(topic: str) -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise StoreUnavailable(f"Kafka did not answer about {topic}: {error.args[0]}") from error
