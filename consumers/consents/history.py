"""What did one person ever decide, by the log itself?

Their records lie in one partition, under their pid; it is read from its beginning to its end of
now. That is exact, and costs what the partition holds: records of consent are few beside events,
other people's are passed over by their key alone, and no second store has to be kept equal to the
log.
"""

import time
from collections.abc import Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumers.rules.consent_views import Recorded
from runtime.settings import Settings
from schemas.codec import CONSENT_CHANGED, Malformed
from schemas.errors import StoreUnavailable
from schemas.partitioning import partition_of

SILENT_FOR_S = 5.0
"""So long may Kafka give nothing of a log that has more."""
WITHIN_S = 60.0
_CHUNK = 10_000


class ConsentHistory:
    """Reads consents.changed; every call makes a reader of its own."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topic_names.consents
        self._partitions = settings.kafka.partitions
        self._config: dict[str, str | int | float | bool] = {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            # Named because librdkafka asks for it; no offset is ever committed.
            "group.id": f"{settings.kafka.topic_prefix}headwater.consents-api",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,
            "socket.timeout.ms": int(SILENT_FOR_S * 1000),
            # noida-db ignores fetch limits: a backlog comes in one answer (docs/trial-mode.md).
            "receive.message.max.bytes": 1_000_000_000,
            "log_level": 2,
        }

    def of(self, pid: bytes) -> list[Recorded]:
        """Every record of the person that was acknowledged before now, in log order.

        Raises StoreUnavailable when Kafka does not answer, or not in a minute.
        """
        partition = partition_of(pid, self._partitions)
        consumer = Consumer(self._config)
        try:
            return list(self._read(consumer, partition, pid))
        except KafkaException as error:
            raise StoreUnavailable("Kafka does not answer") from error
        finally:
            consumer.close()

    def _read(self, consumer: Consumer, partition: int, pid: bytes) -> Iterator[Recorded]:
        at = TopicPartition(self._topic, partition)
        first, end = consumer.get_watermark_offsets(at, SILENT_FOR_S)
        if first >= end:
            return
        consumer.assign([TopicPartition(self._topic, partition, first)])
        began_s = heard_s = time.monotonic()
        while True:
            messages = consumer.consume(_CHUNK, 0.1)
            now_s = time.monotonic()
            if messages:
                heard_s = now_s
            if now_s - heard_s > SILENT_FOR_S or now_s - began_s > WITHIN_S:
                raise StoreUnavailable("Kafka does not give what it has of consents.changed")
            for message in messages:
                error = message.error()
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        return
                    raise KafkaException(error)
                if message.key() == pid:
                    yield from _recorded(message)
                if (message.offset() or 0) >= end - 1:
                    return


def _recorded(message: Message) -> Iterator[Recorded]:
    try:
        change = CONSENT_CHANGED.decode(message.value())
    except Malformed:
        return  # the lane has rejected it, with its place
    partition, offset = message.partition(), message.offset()
    assert partition is not None and offset is not None
    yield Recorded(change, partition, offset)
