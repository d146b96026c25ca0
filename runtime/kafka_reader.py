"""How does a sink read a topic whose position it keeps elsewhere?

A consumer group only shares the partitions out. Where to begin is the sink's own record, given to
`start`; Kafka's group offsets are written for lag tools and never read. Reads are committed records
only, and a position counts control records too: they take offsets of their own.
"""

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from runtime.crash import crash
from runtime.log_ends import ANSWER_WITHIN_S, log_ends
from runtime.logs import get_logger
from runtime.settings import Settings
from schemas.errors import StoreRefused, StoreUnavailable

STRANGER_WITHIN_S = 5.0
REJOINS_WITHIN_S = 30.0
"""librdkafka 2.16 does not always come back to its group after a broker was down twice within some
seconds: it lost its session, gave its partitions up, and then tried nothing more for minutes while
its neighbours were back in four seconds. A rebalance that waits for a member that died takes 10."""

DRAIN_S = 0.01
DRAIN_AT_MOST_S = 0.2
FILL_STEP_S = 0.05
CHUNK = 5000
RECONNECT_MS = 1000
"""librdkafka logs every try to connect. Its default of 100 ms never grows to its maximum while no
broker is left: it begins anew with the addresses it was given (metadata.recovery.strategy).
Measured, Apache Kafka killed for 15 s: 290 lines at 100 ms, 32 at 1000; in both, a static member's
next record came within 3 s of the broker's first answer."""


@dataclass(slots=True)
class Batch:
    """Consecutive records of one partition: (offset, key, value), and the offset after them."""

    partition: int
    next_offset: int
    records: list[tuple[int, bytes | None, bytes | None]] = field(default_factory=list)


class KafkaReader:
    """A member of `group` on one topic, for one thread.

    After every change of its partitions they are `unstarted`: nothing of them is read until
    `start` says from where. `on_lost` is told of partitions that are no longer ours. `member`
    names this process for good (static membership): after a crash it has its partitions back
    without waiting for a session to end; two processes must never share a name.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        group: str,
        *,
        member: str | None = None,
        on_lost: Callable[[Iterable[int]], None] = lambda _: None,
    ) -> None:
        self._topic = topic
        self._bootstrap_servers = settings.kafka.bootstrap_servers
        self._generation = settings.kafka.generation
        self._on_lost = on_lost
        self._assigned: list[int] = []
        self._unstarted: set[int] = set()
        self._epoch = 0
        self._ends: dict[int, int] = {}
        self._left_at_s: float | None = None
        """Since when we are in no group; None while we are, and before the first time."""
        self._set_aside: list[Message] = []
        self._paused: list[TopicPartition] = []
        config: dict[str, str | int | float | bool] = {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            "group.id": group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "partition.assignment.strategy": "range",
            "session.timeout.ms": 10_000,
            "fetch.wait.max.ms": 100,
            "fetch.queue.backoff.ms": 20,
            "queued.max.messages.kbytes": 65_536,
            "reconnect.backoff.ms": RECONNECT_MS,
            "reconnect.backoff.max.ms": RECONNECT_MS,
            # noida-db ignores fetch limits: a backlog comes in one answer (docs/trial-mode.md).
            "receive.message.max.bytes": 1_000_000_000,
        }
        if member is not None:
            config["group.instance.id"] = f"{group}.{member}"
        self._consumer = Consumer(config)
        self._consumer.subscribe(
            [topic], on_assign=self._assign, on_revoke=self._revoke, on_lost=self._revoke
        )

    @property
    def has_joined(self) -> bool:
        """True once the group gave us our partitions, be it none."""
        return self._epoch > 0

    @property
    def assigned(self) -> tuple[int, ...]:
        """Partitions of ours, started or not; may be asked by any thread."""
        return tuple(self._assigned)

    @property
    def unstarted(self) -> frozenset[int]:
        """Partitions of ours that wait for `start`."""
        return frozenset(self._unstarted)

    def start(
        self, positions: Mapping[int, int | None], anew: Collection[int] = ()
    ) -> dict[int, tuple[int, int]]:
        """Read every partition of `positions` from there on; None is the beginning of its log, and
        so is each position of `anew`, which must be in the log nevertheless.

        Answers (first offset to be read, end of the log now) of each. Name all of `unstarted` at
        once. Raises StoreRefused, naming the remedy, if a position is outside the log;
        StoreUnavailable if Kafka does not answer.
        """
        begin = []
        for partition, position in positions.items():
            first, end = self._range(partition)
            if position is not None and not first <= position <= end:
                raise StoreRefused(self._explain_outside(partition, position, first, end))
            if position is None or partition in anew:
                position = first
            begin.append(TopicPartition(self._topic, partition, position))
            self._ends[partition] = end
        # No resume beside it: librdkafka may drop either of the two (its issue 5591), and the
        # partition is then silent for good, without a word.
        self._consumer.assign(begin)
        # Also an end of partition that was met while they were held: it is not where we begin.
        self._set_aside = []
        self._unstarted -= set(positions)
        return {at.partition: (at.offset, self._ends[at.partition]) for at in begin}

    def restart(self) -> None:
        """Every partition of ours waits for `start` again."""
        self._epoch += 1
        self._unstarted = set(self._assigned)
        self._set_aside = []

    def read(self, *, limit: int, wait_s: float, fill_s: float) -> list[Batch]:
        """What has come: at most `limit` records or so, waiting up to `wait_s` for the first.

        Then collects for at least `fill_s`, and goes on a little while there is more to read. A
        batch without records tells that the position moved past control records.
        """
        self._end_if_forgotten()
        epoch = self._epoch
        batches: dict[int, Batch] = {}
        at_end: set[int] = set()
        messages = self._set_aside or self._consume(1, wait_s)
        self._set_aside = []
        if not messages:
            return []
        until_s = time.monotonic() + fill_s
        count = 0
        while True:
            count += len(messages)
            self._collect(messages, batches, at_end)
            if self._epoch != epoch:
                # Read for a membership that has ended: whoever has the partition reads it again.
                return []
            left_s = until_s - time.monotonic()
            if count >= limit or left_s < -DRAIN_AT_MOST_S:
                break
            if left_s <= 0 and (not messages or at_end.issuperset(batches)):
                break
            messages = self._consume(
                min(CHUNK, limit - count), DRAIN_S if left_s <= 0 else min(left_s, FILL_STEP_S)
            )
        return list(batches.values())

    def keep_alive(self, wait_s: float) -> None:
        """Stay a member for `wait_s` without reading on."""
        epoch = self._epoch
        self._paused = [
            TopicPartition(self._topic, p) for p in self._assigned if p not in self._unstarted
        ]
        self._consumer.pause(self._paused)
        try:
            message = self._consumer.poll(wait_s)
        finally:
            self._resume()
        # Fetched before the pause: it is the next to read, unless the partition has gone.
        if message is not None and self._epoch == epoch:
            self._set_aside.append(message)

    def commit(self, positions: Mapping[int, int]) -> None:
        """Tell lag tools how far we are; a failure is theirs, not ours."""
        offsets = [TopicPartition(self._topic, p, offset) for p, offset in positions.items()]
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            get_logger().info("group_offsets_not_committed", fault=str(error.args[0]))

    def close(self) -> None:
        """Leave the group (a static member only ends its connection)."""
        self._consumer.close()

    def _end_if_forgotten(self) -> None:
        """End the process when we are out of the group for long although Kafka answers others."""
        if self._left_at_s is None or time.monotonic() - self._left_at_s < REJOINS_WITHIN_S:
            return
        try:
            log_ends(self._bootstrap_servers, self._topic, [0], within_s=STRANGER_WITHIN_S)
        except StoreUnavailable:
            self._left_at_s = time.monotonic()  # Kafka is away: the time begins when it answers
            return
        crash("out of its group, and not taken in again", topic=self._topic)

    def _consume(self, count: int, wait_s: float) -> list[Message]:
        try:
            messages: list[Message] = self._consumer.consume(count, wait_s)
        except KafkaException as error:
            raise self._fault(error.args[0]) from error
        return messages

    def _collect(
        self, messages: list[Message], batches: dict[int, Batch], at_end: set[int]
    ) -> None:
        """Sort messages into batches; keep in `at_end` which partitions have no more."""
        for message in messages:
            error = message.error()
            partition = message.partition()
            offset = message.offset()
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    self._judge(error)
                elif partition is not None and offset is not None:
                    at_end.add(partition)
                    self._ends[partition] = offset
                    batch = batches.setdefault(partition, Batch(partition, offset))
                    batch.next_offset = offset
                continue
            assert partition is not None and offset is not None
            at_end.discard(partition)
            found = batches.get(partition)
            if found is None:
                found = batches[partition] = Batch(partition, offset)
            found.next_offset = offset + 1
            found.records.append((offset, message.key(), message.value()))

    def _range(self, partition: int) -> tuple[int, int]:
        try:
            found: tuple[int, int] = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=ANSWER_WITHIN_S
            )
        except KafkaException:
            # This client believes no leader that is older than one it has known, as that of a log
            # that went back is: without a stranger's look it would wait for ever.
            return log_ends(
                self._bootstrap_servers,
                self._topic,
                [partition],
                within_s=STRANGER_WITHIN_S,
                isolation="read_committed",
            )[partition]
        return found

    def _explain_outside(self, partition: int, position: int, first: int, end: int) -> str:
        where = f"{self._topic}[{partition}]"
        if position > end:
            return (
                f"{where} ends at offset {end}, but {position} was the next to read: the log went "
                f"back. Restore the log, or begin a new one: raise [kafka] generation above "
                f"{self._generation}"
            )
        return (
            f"{where} begins at offset {first}, but {position} was the next to read: retention "
            f"deleted records that were never read. Restore the log, or accept the loss by raising "
            f"[kafka] generation above {self._generation}"
        )

    def _judge(self, error: KafkaError) -> None:
        """Raise what cannot pass; librdkafka asks again by itself for the rest."""
        fault = self._fault(error)
        if isinstance(fault, StoreRefused):
            raise fault
        get_logger().warning("kafka_trouble", topic=self._topic, fault=error.str())

    def _fault(self, error: KafkaError) -> StoreRefused | StoreUnavailable:
        said = f"{self._topic}: {error.str()}"
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            return StoreRefused(
                f"{said}: the log no longer has what was to be read next. Restore it, or raise "
                f"[kafka] generation above {self._generation}"
            )
        # A fatal error that comes as an event has this code, and fatal() is not true of it.
        if error.fatal() or error.code() in (
            KafkaError._FATAL,
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
            KafkaError.FENCED_INSTANCE_ID,
        ):
            return StoreRefused(f"{said}; this process ends, another may have taken its place")
        return StoreUnavailable(said)

    def _assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._change()
        self._left_at_s = None
        self._assigned = [found.partition for found in partitions]
        self._unstarted = set(self._assigned)
        get_logger().info("partitions_taken", topic=self._topic, partitions=self._assigned)
        # The position comes with `start`; until then nothing may flow.
        consumer.assign([])

    def _revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._change()
        self._left_at_s = time.monotonic()
        gone = [found.partition for found in partitions]
        self._assigned = [p for p in self._assigned if p not in gone]
        self._unstarted -= set(gone)
        get_logger().info("partitions_given_up", topic=self._topic, partitions=gone)
        self._on_lost(gone)

    def _change(self) -> None:
        """What was read or paused until now belongs to a membership that ends."""
        self._epoch += 1
        self._set_aside = []
        self._resume()

    def _resume(self) -> None:
        # Before anything else is assigned: see `start`.
        paused, self._paused = self._paused, []
        if paused:
            self._consumer.resume(paused)
