"""How does Redis come to hold the newest profile of every person, and none of an erased one?

`subjects` is compacted: the newest record of a pid is the person. Writes are set-if-newer, so they
may be repeated, and the sink begins where its cursor in Redis says. That cursor is part of what it
describes: a Redis that lost its newest writes, or stands in for another, has an older one.
"""

import threading
import time
from collections.abc import Callable, Iterable

from runtime.kafka_reader import Batch
from runtime.logs import get_logger
from runtime.settings import Settings
from runtime.watchdog import Watch, nobody_watches
from schemas.codec import SUBJECT, Malformed
from schemas.errors import StoreRefused
from schemas.subjects import CURSOR_KEY, PID_BYTES
from sinks.group_sink import GroupSink
from sinks.profile_store import ProfileStore, ProfileWrite

SINK = "subjects-to-redis"
BATCH_RECORDS = 10_000
IDLE_WAIT_S = 0.2
DURABLE_EVERY_S = 5.0
"""Under load. With appendfsync everysec a sync takes up to a second, in which no profile moves; and
nothing waits for it but Kafka's group offsets: after a crash the cursor says what Redis has."""

REBUILD_PROFILES = 200_000
"""Held of one partition during a rebuild before they are written anyway."""


def run_subjects_to_redis(
    settings: Settings,
    stop: threading.Event,
    *,
    member: str | None = None,
    on_ready: Callable[[], None] = lambda: None,
    watch: Watch = nobody_watches,
) -> None:
    """Write profiles until `stop` is set, then leave; see GroupSink, also for what it raises.

    `watch` is given what tells how far the partitions are.
    """
    sink = SubjectsToRedis(settings, stop, member=member)
    watch(sink.standings)
    try:
        sink.run(on_ready)
    finally:
        sink.close()


class SubjectsToRedis(GroupSink):
    """The sink of one process."""

    def __init__(
        self,
        settings: Settings,
        stop: threading.Event,
        *,
        member: str | None = None,
    ) -> None:
        super().__init__(SINK, settings, settings.topic_names.subjects, stop, member=member)
        self._store = ProfileStore(settings, self._topic)
        self._positions: dict[int, int] = {}
        self._rebuilding: dict[int, int] = {}
        self._held: dict[int, dict[bytes, ProfileWrite]] = {}
        self._held_until: dict[int, int] = {}
        self._applied: dict[int, bytes] = {}  # of each partition the last that its lane said
        self._not_durable: set[int] = set()
        self._durable_at_s = time.monotonic()

    def step(self) -> None:
        """Start new partitions, or write what has come."""
        if self._reader.unstarted:
            self._retry(self._start, "start")
        batches = self._reader.read(limit=BATCH_RECORDS, wait_s=IDLE_WAIT_S, fill_s=0)
        if batches:
            self._write(batches)
        is_due = time.monotonic() - self._durable_at_s > DURABLE_EVERY_S
        if is_due or (self._not_durable and not batches):
            self._make_durable()

    def close(self) -> None:
        """Leave the group and the store."""
        super().close()
        self._store.close()

    def _standing(self, partition: int) -> tuple[int | None, int]:
        return self._positions.get(partition), self._held_until.get(partition, 0)

    def _finish(self) -> None:
        if self._not_durable:
            self._make_durable()

    def _start(self) -> None:
        partitions = self._reader.unstarted
        if not partitions:
            return
        positions = self._store.positions(partitions)
        unsaid = self._store.without_lane(partitions)
        ranges = self._reader.start(positions, anew=unsaid)
        self._positions = {p: begin for p, (begin, _) in ranges.items()}
        self._not_durable = set()
        self._held, self._applied = {}, {}
        # Without a cursor Redis is new or was lost. People erased later in the log must not appear
        # meanwhile: the newest record of each key is found first, and only that is written.
        self._rebuilding = {
            p: end
            for p, (begin, end) in ranges.items()
            if (positions[p] is None or p in unsaid) and begin < end
        }
        get_logger().info("sink_started", sink=SINK, topic=self._topic, positions=positions)

    def _write(self, batches: list[Batch]) -> None:
        began_s = time.monotonic()
        writes: list[ProfileWrite] = []
        moves: dict[int, int] = {}
        for batch in batches:
            p = batch.partition
            if p not in self._positions or batch.next_offset <= self._positions[p]:
                continue
            # A lane's last record of each transaction: one of the last.
            for _, key, value in reversed(batch.records):
                if key == CURSOR_KEY and value is not None:
                    self._applied[p] = value
                    break
            newest = self._held.pop(p, {})
            newest.update(self._newest(batch))
            if batch.next_offset < self._rebuilding.get(p, 0) and len(newest) < REBUILD_PROFILES:
                self._held[p] = newest
                self._held_until[p] = batch.next_offset
                continue
            self._rebuilding.pop(p, None)
            writes += newest.values()
            moves[p] = batch.next_offset
        if not moves:
            return
        applied = {p: self._applied[p] for p in moves if p in self._applied}

        def write() -> list[int]:
            # The cursors after every reply: what they claim is there.
            return self._store.write(writes, moves) or self._store.move_cursors(moves, applied)

        # All of it again after a fault: a server that came back in an earlier state may have lost
        # the profiles of this very batch, which the cursors before it do not show.
        lost = self._retry(write, "write profiles and cursors")
        if lost:
            self._begin_again(lost)
            return
        self._positions |= {p: at for p, at in moves.items() if p in self._positions}
        self._not_durable |= set(moves)
        self._measure({"profiles": len(writes)}, began_s)

    def _newest(self, batch: Batch) -> dict[bytes, ProfileWrite]:
        """The newest record of each person; the lanes' own records (cursor, sightings) left out."""
        values = {
            key: (offset, value)
            for offset, key, value in batch.records
            if key is not None and len(key) == PID_BYTES
        }
        return {
            pid: self._write_of(batch.partition, pid, offset, value)
            for pid, (offset, value) in values.items()
        }

    def _write_of(
        self, partition: int, pid: bytes, offset: int, value: bytes | None
    ) -> ProfileWrite:
        if value is None:
            return ProfileWrite(pid, offset, None)
        try:
            subject = SUBJECT.decode(value)
        except Malformed as error:
            raise StoreRefused(
                f"{self._topic}[{partition}]@{offset} is no subject ({error}): somebody else "
                "writes to our topic, or this version is older than the log; nothing from here on "
                "is written"
            ) from error
        if subject.erased_at_ms is not None:
            return ProfileWrite(pid, offset, None)
        return ProfileWrite(pid, offset, value, subject.segments)

    def _make_durable(self) -> None:
        self._retry(self._store.make_durable, "sync Redis")
        self._durable_at_s = time.monotonic()
        self._reader.commit({p: self._positions[p] for p in self._not_durable})
        self._not_durable = set()
        # A Redis that went back while nothing happened would wait for the next record to be seen.
        lost = self._retry(lambda: self._store.lost_cursors(self._positions), "look for cursors")
        if lost:
            self._begin_again(lost)

    def _begin_again(self, lost: list[int]) -> None:
        get_logger().warning(
            "cursor_lost", sink=SINK, topic=self._topic, partitions=lost, doing="read again from it"
        )
        self._reader.restart()

    def _forget(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._positions.pop(partition, None)
            self._applied.pop(partition, None)
            self._held.pop(partition, None)
            self._rebuilding.pop(partition, None)
            self._not_durable.discard(partition)
