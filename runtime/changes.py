"""What do small inputs of a lane hold right now, up to their end?

Faust delivers topics in an order that it does not promise, and what waits in its queues is behind
the log. So what must be known before something else is applied is asked of the broker: where does
the partition end, and what lies between here and there? A client of its own, that fetches nothing
in between: a broker answers one request of a connection after the other, and a waiting fetch would
hold the question up.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from runtime.fresh_consumer import FreshConsumer
from schemas.errors import StoreRefused, StoreUnavailable

ANSWER_WITHIN_S = 5.0
RECORDS_A_READ = 5_000
NEAR = 200  # offsets: to read on costs less than to begin anew


@dataclass(frozen=True, slots=True)
class Change:
    """A record as it was read."""

    key: bytes | None
    value: bytes | None
    offset: int


class ChangeReader:
    """Partition `p` of a few topics, committed records only. Connects when first used.

    Methods are called from one thread at a time, and raise StoreUnavailable.
    """

    def __init__(
        self, bootstrap_servers: str, topics: Iterable[str], partition: int, group: str
    ) -> None:
        self.topics = tuple(topics)
        config: dict[str, str | int | float | bool] = {
            "bootstrap.servers": bootstrap_servers,
            "group.id": group,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 20,
            # noida-db ignores fetch limits and sends a whole backlog at once.
            "receive.message.max.bytes": 1_000_000_000,
        }
        self._kafka = FreshConsumer(config)
        self._unfinished = FreshConsumer(config | {"isolation.level": "read_uncommitted"})
        self._partition = partition

    def ends(self) -> dict[str, int]:
        """Of each topic the offset after the last record committed by now."""
        return {topic: self._range(topic, self._kafka)[1] for topic in self.topics}

    def ends_of_all(self, topics: Iterable[str]) -> dict[str, int]:
        """Of each of `topics` the offset after its last record by now, committed or not.

        What was acknowledged without a transaction may lie behind one that nobody has ended yet:
        it is on the log, and cannot be read for as long.
        """
        return {topic: self._range(topic, self._unfinished)[1] for topic in topics}

    def read(self, topic: str, from_offset: int, end_offset: int) -> tuple[list[Change], int]:
        """Some records from `from_offset` on, and the offset after them.

        All up to `end_offset`, or so many that they are worth applying first.
        """
        with self._kafka.asked() as consumer:
            consumer.assign([TopicPartition(topic, self._partition, from_offset)])
            try:
                return self._read(consumer, topic, from_offset, end_offset)
            finally:
                consumer.assign([])

    def pick(self, topic: str, offsets: Sequence[int]) -> dict[int, Change]:
        """The records at `offsets`, which rise; one that retention took is left out."""
        first, _ = self._range(topic, self._kafka)
        wanted = [offset for offset in offsets if offset >= first]
        found: dict[int, Change] = {}
        at = first
        for number, offset in enumerate(wanted):
            if offset < at:
                continue
            # Those that lie near each other are read on the way: beginning anew is a request.
            last = offset
            for later in wanted[number + 1 :]:
                if later - last > NEAR:
                    break
                last = later
            at = offset
            while at <= last:
                changes, at = self.read(topic, at, last + 1)
                found.update((each.offset, each) for each in changes)
        return {offset: found[offset] for offset in wanted if offset in found}

    def close(self) -> None:
        """End the connections."""
        self._kafka.close()
        self._unfinished.close()

    def _range(self, topic: str, kafka: FreshConsumer) -> tuple[int, int]:
        place = TopicPartition(topic, self._partition)
        try:
            with kafka.asked() as consumer:
                found: tuple[int, int] = consumer.get_watermark_offsets(place, ANSWER_WITHIN_S)
        except KafkaException as error:
            raise self._unavailable(topic, error.args[0].name()) from error
        return found

    def _read(
        self, consumer: Consumer, topic: str, from_offset: int, end_offset: int
    ) -> tuple[list[Change], int]:
        changes: list[Change] = []
        next_offset = from_offset
        heard_at_s = time.monotonic()
        while next_offset < end_offset and len(changes) < RECORDS_A_READ:
            # `consume` alone would wait for as many as it may take, or for all of its time.
            first = consumer.poll(0.05)
            messages: list[Any] = []
            if first is not None:
                messages = [first, *consumer.consume(RECORDS_A_READ, 0)]
                heard_at_s = time.monotonic()
            elif time.monotonic() - heard_at_s > ANSWER_WITHIN_S:
                raise self._unavailable(topic, "no answer")
            for message in messages:
                error = message.error()
                if error is None:
                    changes.append(Change(message.key(), message.value(), message.offset()))
                    next_offset = message.offset() + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    # What takes no record (control records, aborted ones) is passed too.
                    next_offset = max(next_offset, message.offset())
                elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                    raise StoreRefused(
                        f"{topic}[{self._partition}]@{from_offset} is not in the log any more"
                    )
                elif not error.retriable() and error.code() != KafkaError._TRANSPORT:
                    raise self._unavailable(topic, error.name())
        return changes, next_offset

    def _unavailable(self, topic: str, why: str) -> StoreUnavailable:
        return StoreUnavailable(f"{topic}[{self._partition}] cannot be read: {why}")
