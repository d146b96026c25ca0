"""How does a lane write outputs, memory and position as one, and read its memory back?

One transactional producer a lane (KIP-98): opening it fences the previous owner at the broker and
aborts what that one left open; a commit makes everything visible together or not at all. Any doubt
about a commit ends the process, because librdkafka cannot tell a lost answer from a lost commit
(it lacks KIP-890).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from runtime.signs import give_sign, rebuild_of
from schemas.errors import StoreUnavailable
from schemas.topics import PARTITIONER

SOCKET_TIMEOUT_S = 10.0
TRANSACTION_TIMEOUT_MS = 10_000
ANSWER_WITHIN_S = 30.0
OnFault = Callable[[str], NoReturn]


class LaneProducer:
    """The one writer of a lane. Methods are called from one thread at a time."""

    def __init__(self, bootstrap_servers: str, transactional_id: str, on_fault: OnFault) -> None:
        self.transactional_id = transactional_id
        self._on_fault = on_fault
        self._is_committing = False
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "transactional.id": transactional_id,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "socket.timeout.ms": int(SOCKET_TIMEOUT_S * 1000),
                "partitioner": PARTITIONER,
                # Nothing is visible before the commit, which sends at once what still waits.
                "linger.ms": 50,
                "queue.buffering.max.messages": 1_000_000,
                "queue.buffering.max.kbytes": 1_048_576,
                "message.max.bytes": 8 * 1_048_576,
                "delivery.report.only.error": True,
                "on_delivery": self._delivered,
                "error_cb": self._noticed,
            }
        )
        self.produce = self._producer.produce  # the hot path calls librdkafka without a detour
        self.poll = self._producer.poll

    def fence(self) -> None:
        """Nobody else writes as this lane any more, and nothing of theirs is left half done."""
        try:
            self._producer.init_transactions(ANSWER_WITHIN_S)
            self._producer.begin_transaction()
        except KafkaException as error:
            self._on_fault(f"cannot fence: {error.args[0]}")

    def send(self, topic: str, value: bytes | None, key: bytes | None, partition: int) -> None:
        """Queue one record; waits where the queue is full."""
        while True:
            try:
                self.produce(topic, value, key, partition)
            except BufferError:
                self.poll(0.05)
            else:
                return

    def commit(self) -> float:
        """Everything sent since the last commit is visible; the seconds it took.

        Calls `on_fault`, which does not return, when that is not certain.
        """
        began_s = time.perf_counter()
        self._is_committing = True
        try:
            self._producer.commit_transaction(ANSWER_WITHIN_S)
            self._producer.poll(0)  # a disconnect that happened meanwhile is told here
            self._is_committing = False
            self._producer.begin_transaction()
        except BaseException as error:  # a fenced commit can raise SystemError as well
            self._on_fault(f"commit failed: {fault_name(error)}")
        took_s = time.perf_counter() - began_s
        if took_s > SOCKET_TIMEOUT_S:
            self._on_fault(f"commit took {took_s:.1f} s, longer than the socket's timeout")
        return took_s

    def close(self) -> None:
        """Its threads and connections end; nothing may be called afterwards.

        What was sent since the last commit is left to the next owner's fence, which aborts it.
        """
        del self.produce, self.poll, self._producer

    def _delivered(self, error: KafkaError | None, _message: object) -> None:
        if error is not None:
            self._on_fault(f"a record was not delivered: {error.name()}")

    def _noticed(self, error: KafkaError) -> None:
        if error.fatal() or self._is_committing:
            self._on_fault(f"producer error {error.name()}, committing: {self._is_committing}")


def fault_name(error: BaseException) -> str:
    """What happened, in a word: librdkafka's name of its error, else the exception's class."""
    if isinstance(error, KafkaException) and isinstance(error.args[0], KafkaError):
        return str(error.args[0].name())
    return type(error).__name__


@dataclass(frozen=True, slots=True)
class Compacted:
    """The newest value of each key of a partition, and how many records were read for it."""

    newest: dict[bytes, bytes]
    records: int


def read_compacted(
    bootstrap_servers: str,
    topic: str,
    partition: int,
    group: str,
    within_s: float = ANSWER_WITHIN_S,
) -> Compacted:
    """What a compacted partition says up to its end, committed records only; tombstones are gone.

    The end is the one that the broker tells (partition EOF): control records take offsets too.
    Raises StoreUnavailable, also when there is no answer for `within_s`.
    """
    reader = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 20,
            "fetch.message.max.bytes": 8 * 1_048_576,
            # noida-db ignores fetch limits and sends a whole backlog at once.
            "receive.message.max.bytes": 1_000_000_000,
            "queued.min.messages": 200_000,
        }
    )
    newest: dict[bytes, bytes] = {}
    records = 0
    try:
        reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
        heard_at_s = time.monotonic()
        while True:
            messages: list[Any] = reader.consume(20_000, 0.05)
            if messages:
                heard_at_s = time.monotonic()
                give_sign(rebuild_of(partition), len(messages))
            elif time.monotonic() - heard_at_s > within_s:
                raise StoreUnavailable(f"{topic}[{partition}] cannot be read: no answer")
            for message in messages:
                error = message.error()
                if error is None:
                    records += 1
                    if message.value() is None:
                        newest.pop(message.key(), None)
                    else:
                        newest[message.key()] = message.value()
                elif error.code() == KafkaError._PARTITION_EOF:
                    return Compacted(newest, records)
                elif not error.retriable() and error.code() != KafkaError._TRANSPORT:
                    raise StoreUnavailable(f"{topic}[{partition}] cannot be read: {error.name()}")
    finally:
        reader.close()
