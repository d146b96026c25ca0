"""How is a partition read from one offset to its end of now, every byte as it lies there?

For readers outside any group, who know by themselves from where: an audit, a ledger.
"""

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from runtime.fresh_consumer import FreshConsumer
from runtime.settings import Settings
from schemas.errors import StoreUnavailable

SILENT_FOR_S = 15.0
"""So long may Kafka give nothing of a log that has more."""
_CHUNK = 10_000

Raw = tuple[int, bytes | None, bytes | None]
"""Offset, key and value."""


class LogReading:
    """Reads partitions of one topic; for one thread. Raises StoreUnavailable."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._topic = topic
        self._kafka = FreshConsumer(
            {
                "bootstrap.servers": settings.kafka.bootstrap_servers,
                # Named because librdkafka asks for it; no offset is ever committed.
                "group.id": f"{settings.kafka.topic_prefix}headwater.log-reading",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 20,
                # noida-db ignores fetch limits: a backlog comes in one answer.
                "receive.message.max.bytes": 1_000_000_000,
                "reconnect.backoff.max.ms": 1000,
                "log_level": 2,
            }
        )

    def bounds(self, partition: int) -> tuple[int, int]:
        """First offset of the partition, and its end now."""
        try:
            with self._kafka.asked() as consumer:
                found: tuple[int, int] = consumer.get_watermark_offsets(
                    TopicPartition(self._topic, partition), SILENT_FOR_S
                )
        except KafkaException as error:
            raise StoreUnavailable(f"Kafka did not tell the end of {self._topic}") from error
        return found

    def read(self, partition: int, first: int, end: int) -> Iterator[list[Raw]]:
        """Every record from offset `first` until before `end`, some at a time."""
        if first >= end:
            return
        with self._kafka.asked() as consumer:
            consumer.assign([TopicPartition(self._topic, partition, first)])
            yield from self._read(consumer, end)

    def close(self) -> None:
        """Give the connection back."""
        self._kafka.close()

    def _read(self, consumer: Consumer, end: int) -> Iterator[list[Raw]]:
        heard_s = time.monotonic()
        while True:
            try:
                messages = consumer.consume(_CHUNK, 0.1)
            except KafkaException as error:
                raise StoreUnavailable(f"Kafka does not give {self._topic}") from error
            if messages:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > SILENT_FOR_S:
                raise StoreUnavailable(f"Kafka does not give what it has of {self._topic}")
            found: list[Raw] = []
            is_over = False
            for message in messages:
                fault = message.error()
                offset = message.offset()
                if fault is not None:
                    if fault.code() != KafkaError._PARTITION_EOF:
                        raise StoreUnavailable(f"Kafka does not give {self._topic}: {fault.name()}")
                    is_over = is_over or (offset is not None and offset >= end)
                elif offset is not None:
                    if offset < end:
                        found.append((offset, message.key(), message.value()))
                    # Where transactions end, the last offset is of no message.
                    is_over = offset >= end - 1
            if found:
                yield found
            if is_over:
                return
