"""What do confluent-kafka's clients do with a Kafka in memory?

As much of `Producer` and `Consumer` as the product uses, so that its own code runs unchanged on a
`MemoryKafka`. What may go wrong in a call is decided by the model's `fate`, and at each `pause`
other processes act: a call is several requests.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_INVALID,
    KafkaError,
    KafkaException,
    TopicPartition,
)

from runtime import changes, fresh_consumer, kafka_reader, transactions
from tests.model.memory_kafka import Died, Fenced, Group, MemoryKafka, Record

SLOW_S = 11.0  # longer than the socket's timeout


def _fault(code: int, *, is_fatal: bool = False) -> KafkaException:
    return KafkaException(KafkaError(code, "in memory", is_fatal))


class MemoryProducer:
    """confluent_kafka.Producer, transactional."""

    def __init__(self, kafka: MemoryKafka, config: Mapping[str, Any]) -> None:
        self._kafka = kafka
        self._id: str = config["transactional.id"]
        self._on_error: Callable[[KafkaError], None] = config.get("error_cb", lambda _: None)
        self._on_delivery: Callable[..., None] = config.get("on_delivery", lambda *_: None)
        self._epoch = 0
        self._queue: list[tuple[tuple[str, int], Record]] = []
        self._errors: list[KafkaError] = []
        self._in_transaction = False
        self._is_fenced = False

    def init_transactions(self, _timeout_s: float) -> None:
        self._kafka.pause("fence")
        fate = self._kafka.fate("fence")
        if fate == "unanswered":
            raise _fault(KafkaError._TIMED_OUT)
        self._epoch = self._kafka.fence(self._id)
        if fate == "dies":
            raise Died("after the fence")
        self._kafka.pause("fenced")

    def begin_transaction(self) -> None:
        if self._in_transaction or not self._epoch:
            raise _fault(KafkaError._STATE)
        self._in_transaction = True

    def produce(
        self,
        topic: str,
        value: bytes | None = None,
        key: bytes | None = None,
        partition: int = -1,
    ) -> None:
        if not self._in_transaction or self._is_fenced:
            raise _fault(KafkaError._STATE)
        if self._kafka.fate("produce") == "full":
            raise BufferError
        self._queue.append(((topic, partition), (key, value)))

    def poll(self, _wait_s: float) -> int:
        """Some of what is queued goes out; errors that were met are told."""
        if self._queue and self._kafka.fate("poll") == "sends":
            try:
                self._send(self._kafka.take(len(self._queue)))
            except Fenced:
                self._is_fenced = True
                self._errors.append(KafkaError(KafkaError._FENCED, "in memory", True))
        errors, self._errors = self._errors, []
        for error in errors:
            self._on_error(error)
        return len(errors)

    def commit_transaction(self, _timeout_s: float) -> None:
        kafka = self._kafka
        fate = kafka.fate("commit")
        kafka.pause("flush")
        if fate == "dies early":
            raise Died("before the commit")
        if fate == "undelivered":
            self._queue.clear()
            self._on_delivery(KafkaError(KafkaError._MSG_TIMED_OUT), None)
        self._ask(lambda: self._send(len(self._queue)))
        kafka.pause("end")
        if fate == "dies sending":
            kafka.late_requests.append((self._id, self._epoch))
            raise Died("while it committed")
        if fate == "unanswered":
            kafka.late_requests.append((self._id, self._epoch))
            raise _fault(KafkaError._TIMED_OUT)
        if fate == "refused":
            raise _fault(KafkaError.COORDINATOR_NOT_AVAILABLE)
        self._ask(lambda: kafka.end(self._id, self._epoch, "commit"))
        kafka.pause("ended")
        if fate == "dies late":
            raise Died("after the commit")
        if fate == "answer lost":
            raise _fault(KafkaError._TIMED_OUT)
        if fate in ("repeated", "slow"):
            # The connection was lost or too slow, so librdkafka asked again, and was answered. The
            # first request still lies in some buffer.
            kafka.late_requests.append((self._id, self._epoch))
            if fate == "slow":
                kafka.clock.now_s += SLOW_S
            else:
                self._errors.append(KafkaError(KafkaError._ALL_BROKERS_DOWN))
        self._in_transaction = False

    def _send(self, count: int) -> None:
        for at, record in self._queue[:count]:
            self._kafka.write(self._id, self._epoch, at, record)
        del self._queue[:count]

    def _ask(self, request: Callable[[], None]) -> None:
        try:
            request()
        except Fenced:
            error = KafkaError(KafkaError._FENCED, "in memory", True)
            self._is_fenced = True
            self._errors.append(error)
            raise KafkaException(error) from None


class Message:
    """confluent_kafka.Message: a record, or an event of its partition."""

    __slots__ = ("_error", "_key", "_offset", "_partition", "_value")

    def __init__(
        self,
        partition: int,
        offset: int,
        key: bytes | None,
        value: bytes | None,
        error: KafkaError | None = None,
    ) -> None:
        self._partition, self._offset = partition, offset
        self._key, self._value, self._error = key, value, error

    def partition(self) -> int:
        return self._partition

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes | None:
        return self._key

    def value(self) -> bytes | None:
        return self._value

    def error(self) -> KafkaError | None:
        return self._error


class MemoryConsumer:
    """confluent_kafka.Consumer, of one topic."""

    def __init__(self, kafka: MemoryKafka, config: Mapping[str, Any]) -> None:
        self._kafka = kafka
        self._is_committed = config.get("isolation.level", "read_committed") == "read_committed"
        self._group_name: str = config["group.id"]
        self._topic = ""
        self._at: dict[int, int] = {}
        self._told_end: dict[int, int] = {}
        self._paused: set[int] = set()
        self._group: Group | None = None
        self._generation = -1
        self._owned: list[TopicPartition] = []
        self._callbacks: tuple[Any, Any] = (None, None)

    def subscribe(self, topics: list[str], *, on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        [self._topic] = topics
        self._callbacks = on_assign, on_revoke
        self._group = self._kafka.join(self._group_name, self)

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        first = self._kafka.logs
        self._at = {
            tp.partition: first[tp.topic, tp.partition].first
            if tp.offset == OFFSET_BEGINNING
            else tp.offset
            for tp in partitions
        }
        if partitions:
            self._topic = partitions[0].topic
        self._told_end = {}

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        self._paused |= {tp.partition for tp in partitions}

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self._paused -= {tp.partition for tp in partitions}

    def consume(self, limit: int, wait_s: float) -> list[Message]:
        self._kafka.pause("read")
        self._take_part()
        messages: list[Message] = []
        for p in self._at:
            if p not in self._paused and len(messages) < limit:
                messages += self._of(p, limit - len(messages))
        if not messages:
            self._kafka.clock.now_s += max(wait_s, 0.001)
        return messages

    def poll(self, wait_s: float) -> Message | None:
        found = self.consume(1, wait_s)
        return found[0] if found else None

    def get_watermark_offsets(
        self, tp: TopicPartition, timeout: float = 0, *, cached: bool = False
    ) -> tuple[int, int]:
        self._kafka.pause("ask")
        log = self._kafka.logs[tp.topic, tp.partition]
        # A reader of committed records is told where they end, not where the log does.
        return log.first, log.stable_end() if self._is_committed else len(log.entries)

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        for tp in offsets:
            self._kafka.group_offsets[self._group_name, tp.topic, tp.partition] = tp.offset

    def committed(
        self, partitions: list[TopicPartition], timeout: float = 0
    ) -> list[TopicPartition]:
        offsets = self._kafka.group_offsets
        return [
            TopicPartition(
                tp.topic,
                tp.partition,
                offsets.get((self._group_name, tp.topic, tp.partition), OFFSET_INVALID),
            )
            for tp in partitions
        ]

    def close(self) -> None:
        if self._group is not None:
            self._kafka.leave(self._group_name, self)

    def _take_part(self) -> None:
        group = self._group
        if group is None or group.generation == self._generation:
            return
        if self not in group.members:
            # It was shut out while it slept, and comes back as a new member.
            self._kafka.join(self._group_name, self)
        on_assign, on_revoke = self._callbacks
        if self._generation >= 0:
            on_revoke(self, self._owned)
            self._at, self._told_end = {}, {}
        self._generation = group.generation
        self._owned = [TopicPartition(self._topic, p) for p in group.partitions_of(self)]
        on_assign(self, self._owned)

    def _of(self, p: int, limit: int) -> list[Message]:
        log, position = self._kafka.logs[self._topic, p], self._at[p]
        if not log.first <= position <= len(log.entries):
            error = KafkaError(KafkaError._AUTO_OFFSET_RESET, "in memory")
            return [Message(p, position, None, None, error)]
        end = log.stable_end() if self._is_committed else len(log.entries)
        to = min(end, position + self._kafka.take(min(limit, max(1, end - position))))
        if to <= position:
            if self._told_end.get(p) == position:
                return []
            self._told_end[p] = position
            return [Message(p, position, None, None, KafkaError(KafkaError._PARTITION_EOF))]
        self._at[p] = to
        found = log.read(position, to, is_committed=self._is_committed)
        return [Message(p, *each) for each in found] or self._of(p, limit)


def memory_clients(patch: pytest.MonkeyPatch) -> Callable[[MemoryKafka], None]:
    """From now on the product's Kafka clients work on the MemoryKafka that the answer was given."""
    current: list[MemoryKafka] = []
    for module in (fresh_consumer, transactions, kafka_reader):
        patch.setattr(module, "Consumer", lambda config: MemoryConsumer(current[0], config))
    patch.setattr(transactions, "Producer", lambda config: MemoryProducer(current[0], config))

    def use(kafka: MemoryKafka) -> None:
        current[:] = [kafka]
        for module in (changes, transactions, kafka_reader):
            patch.setattr(module, "time", kafka.clock)

    return use
