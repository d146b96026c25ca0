"""How does every accepted event come to be counted exactly once?

Links, facts, counters and progress are written in this order, and each write is absolute, so a
crash anywhere repeats rows that say what is known already. The sink begins where the newest row of
`progress` says, with the tripwire of that row, whatever Kafka's group offsets say. Progress is
written only over the row that we last saw there: a ClickHouse that went back to an earlier state,
or stands in for another, is noticed by its older progress and counted again from it.

Among the events come other records (sinks/rules/runs.py): a `Reattributed` gives earlier facts of a
person to other campaigns, a `Retracted` takes them back. Everything before one of these is durable
before it is looked at, and it is written by itself, so that it too is a function of what lies
before it in the log.
"""

import gc
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from runtime.clock import ClockMs, now_ms
from runtime.kafka_reader import Batch
from runtime.logs import get_logger
from runtime.metrics import counter
from runtime.settings import Settings
from runtime.watchdog import Watch, nobody_watches
from schemas.events import Retracted
from sinks.counter_store import SINK, CounterStore
from sinks.counter_tables import Store
from sinks.group_sink import GroupSink
from sinks.rules.counters import (
    Plan,
    Prefix,
    Progress,
    Tally,
    before,
    forget_idle,
    forget_people,
    mark_people,
    missing_counters,
    people_to_look_up,
    people_to_move,
    plan_write,
    tally,
)
from sinks.rules.reattribute import Live, live_facts
from sinks.rules.retract import KnownFact, person_from
from sinks.rules.runs import Run, split_into_runs
from sinks.rules.take_back import tally_erasures, tally_retraction

BATCH_RECORDS = 20_000
BATCH_S = 0.2
"""A batch is written when it has so many records, or so long after the one before."""

IDLE_WAIT_S = 0.2
LOOK_EVERY_S = 5.0
"""While nothing is written, so often the store is asked whether it still has what we wrote."""

GC_THRESHOLDS = (100_000, 20, 100)
CACHED_COUNTERS = 300_000
"""Of one partition; ~150 MB when all are in use."""
CACHED_PEOPLE = 1_000
"""Of one partition, with retracted events."""

MINUTE_MS = 60_000


def run_accepted_to_clickhouse(
    settings: Settings,
    stop: threading.Event,
    clock: ClockMs = now_ms,
    *,
    member: str | None = None,
    on_ready: Callable[[], None] = lambda: None,
    watch: Watch = nobody_watches,
) -> None:
    """Count until `stop` is set, then leave; see GroupSink, also for what it raises.

    `watch` is given what tells how far the partitions are.
    """
    # A batch is 20,000 events of a few objects each, freed together: collecting at the default 700
    # walked them all again and again, for a third of the CPU.
    gc.set_threshold(*GC_THRESHOLDS)
    store = CounterStore(settings, settings.topic_names.accepted)
    sink = AcceptedToClickHouse(settings, store, stop, clock, member=member)
    watch(sink.standings)
    try:
        sink.run(on_ready)
    finally:
        sink.close()
        store.close()


class AcceptedToClickHouse(GroupSink):
    """The sink of one process: the prefixes of its partitions, and its loop."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        stop: threading.Event,
        clock: ClockMs = now_ms,
        *,
        member: str | None = None,
    ) -> None:
        super().__init__(SINK, settings, settings.topic_names.accepted, stop, member=member)
        self._store = store
        self._clock = clock
        self._prefixes: dict[int, Prefix] = {}
        self._visit_gap_ms = settings.time.visit_gap_minutes * MINUTE_MS
        self._has_looked = False  # in the store, for what the rows to be written rest on
        self._known_erased: set[bytes] = set()  # whose stand-ins the rows to be written rest on
        self._written_at_s = 0.0
        self._stored: dict[int, int | None] = {}
        self._looked_at_s = time.monotonic()

    def step(self) -> None:
        """Start new partitions, or count what has come."""
        if self._reader.unstarted:
            self._retry(self._start, "start")
        fill_s = max(0.0, self._written_at_s + BATCH_S - time.monotonic())
        batches = self._reader.read(limit=BATCH_RECORDS, wait_s=IDLE_WAIT_S, fill_s=fill_s)
        if batches:
            self._write(batches)
            self._written_at_s = time.monotonic()
        if time.monotonic() - self._looked_at_s > LOOK_EVERY_S:
            # One that went back while nothing happened would wait for the next record to be seen.
            self._begin_again_if(self._retry(lambda: self._lost({}), "look for progress"))

    def _standing(self, partition: int) -> tuple[int | None, int]:
        return self._stored.get(partition), 0

    def _start(self) -> None:
        partitions = self._reader.unstarted
        if not partitions:
            return
        prefixes = self._load(partitions)
        positions = {
            kp: prefix.next_offset if has_row else None
            for kp, (prefix, has_row) in prefixes.items()
        }
        self._reader.start(positions)
        self._prefixes = {kp: prefix for kp, (prefix, _) in prefixes.items()}
        self._stored = positions
        get_logger().info("sink_started", sink=SINK, topic=self._topic, positions=positions)

    def _load(self, partitions: Iterable[int]) -> dict[int, tuple[Prefix, bool]]:
        """Progress first, then counters: these cover at least what the progress claims."""
        loaded = {}
        for kp, (at, older) in self._store.progress(partitions).items():
            prefix = Prefix(kp, counted_before=older)
            if at is not None:
                prefix.next_offset, prefix.records = at.next_offset, at.records
                prefix.highest = dict(at.highest)
            if self._store.count_counters(kp) <= CACHED_COUNTERS:
                prefix.counters = self._store.all_counters(kp)
            else:
                prefix.is_complete = False
            mark_people(prefix, self._store.marked_people(kp))
            loaded[kp] = (prefix, at is not None)
        return loaded

    def _write(self, batches: list[Batch]) -> None:
        """Write them run by run: the n-th runs of all partitions together."""
        runs = [
            (kp, split_into_runs(self._topic, kp, batch.records, batch.next_offset))
            for kp, batch in ((batch.partition, batch) for batch in batches)
        ]
        for number in range(max(len(of_one) for _, of_one in runs)):
            together = [(kp, of_one[number]) for kp, of_one in runs if number < len(of_one)]
            if not self._write_runs(together):
                return

    def _write_runs(self, runs: list[tuple[int, Run]]) -> bool:
        """Write them; False when all begins again from what the store has."""
        began_s = time.monotonic()
        self._known_erased = set()
        self._has_looked = any(not prefix.is_complete for prefix in self._prefixes.values())
        # Looking counters up may take long, and cost us partitions: others read those again.
        plans = [
            self._plan(prefix, run)
            for kp, run in runs
            if (prefix := self._prefixes.get(kp)) is not None
            and run.next_offset > prefix.next_offset
        ]
        if not plans:
            return True
        if self._has_looked:
            # A sum that was looked up in a store that has gone back would claim events that it
            # lacks, and when they are counted again they would seem to be in it.
            lost = self._retry(lambda: self._lost({}), "look for progress")
            if self._begin_again_if(lost):
                return False
        links = [link for plan in plans for link in plan.links]
        facts = [fact for plan in plans for fact in plan.facts]
        marks = [mark for plan in plans for mark in (*plan.marks, *plan.moves)]
        stand_ins = [row for plan in plans for row in plan.stand_ins]
        counters = [row for plan in plans for row in plan.counters]
        progress = [plan.progress for plan in plans]
        positions = {at.kp: at.next_offset for at in progress}
        at_ms = self._clock()

        def insert() -> list[int]:
            # In a store that lost what they stand for they would hide it when it comes again.
            if stand_ins and (lost := self._lost(positions)):
                return lost
            # Before the stand-ins of an erasure, which they join: those are written once.
            self._store.insert_links(links)
            self._store.insert_facts(facts)
            self._store.insert_marks(marks)
            self._store.insert_marks(stand_ins)
            self._store.insert_counters(counters)
            # Progress last: a crash above repeats the same rows with the same versions and changes
            # nothing. The other order loses the batch.
            return self._move(progress, positions, at_ms)

        # All of it again after a fault: a store that came back in an earlier state may have lost
        # the facts of this very batch, which the progress before it does not show.
        if self._begin_again_if(self._retry(insert, "insert facts, counters and progress")):
            return False
        rows = {"facts": len(facts), "counters": len(counters), "progress": len(progress)}
        self._measure(rows, began_s)
        moved = sum(len(plan.moves) for plan in plans)
        counter("headwater_sink_moved_events_total").inc(moved)
        counter("headwater_sink_retracted_events_total").inc(len(marks) - moved)
        self._reader.commit(positions)
        return True

    def _move(
        self, progress: list[Progress], positions: Mapping[int, int], at_ms: int
    ) -> list[int]:
        """Write `progress`, unless the store has lost some of what is before it: answer where."""
        lost = self._lost(positions)
        if self._known_erased - self._store.erased_people(sorted(self._known_erased)):
            # They stood after the progress: a store that went back by them alone shows no sign.
            lost = sorted(positions)
        if not lost:
            self._store.insert_progress(progress, at_ms)
            self._stored |= {kp: at for kp, at in positions.items() if kp in self._stored}
        return lost

    def _lost(self, moving: Mapping[int, int]) -> list[int]:
        """Partitions whose progress is neither as we last saw it nor, its answer lost, `moving`.

        That of older generations counts too: what it claims is left out.
        """
        found = self._store.positions(self._stored)
        self._looked_at_s = time.monotonic()
        older = {kp: at.counted_before for kp, at in self._prefixes.items() if at.counted_before}
        claimed = {kp: of for kp, (_, of) in self._store.progress(older).items()} if older else {}
        return [
            kp
            for kp, known in self._stored.items()
            if (found[kp] != known and (found[kp] is None or found[kp] != moving.get(kp)))
            or claimed.get(kp) != older.get(kp)
        ]

    def _begin_again_if(self, lost: list[int]) -> bool:
        if lost:
            get_logger().warning(
                "progress_differs",
                sink=SINK,
                topic=self._topic,
                partitions=lost,
                doing="count again from what the store has",
            )
            self._prefixes = {}
            self._reader.restart()
        return bool(lost)

    def _plan(self, prefix: Prefix, run: Run) -> Plan:
        if run.other is not None:
            done = self._retract(prefix, run.other, run.next_offset - 1)
        elif run.erased:
            done = self._erase(prefix, run)
        else:
            self._look_up(prefix, people_to_look_up(prefix, run.events))
            live = self._live_facts(prefix, people_to_move(run.events))
            done = tally(prefix, run.events, run.next_offset, live)
        self._alarm(prefix.kp, done)
        missing = missing_counters(prefix, done)
        if missing:
            prefix.counters |= self._retry(
                lambda: self._store.some_counters(prefix.kp, missing), "load counters"
            )
        plan = plan_write(prefix, done)
        forget_idle(prefix, done, limit=CACHED_COUNTERS)
        forget_people(prefix, limit=CACHED_PEOPLE)
        return plan

    def _retract(self, prefix: Prefix, retracted: Retracted, offset: int) -> Tally:
        facts = self._facts_of(prefix.kp, [retracted.pid])
        return tally_retraction(prefix, retracted, offset, facts, self._visit_gap_ms)

    def _erase(self, prefix: Prefix, run: Run) -> Tally:
        """Stand-ins, and nothing of the facts: the role `erasure` deletes these, many at once."""
        people = sorted({erased.pid for _, erased in run.erased})
        # In this order: who deletes facts waits for the stand-ins, so whoever has none yet when the
        # facts are read, and still none after it, had lost nothing.
        facts = self._facts_of(None, people)
        already = self._retry(lambda: self._store.erased_people(people), "load erased people")
        self._known_erased |= already
        links = self._retry(lambda: self._store.links_of(people), "load people's links")
        return tally_erasures(prefix, run.erased, run.next_offset, facts, already, links)

    def _live_facts(self, prefix: Prefix, people: set[bytes]) -> Live | None:
        if not people:
            return None
        return live_facts(people, before(prefix, self._facts_of(prefix.kp, sorted(people))))

    def _look_up(self, prefix: Prefix, people: set[bytes]) -> None:
        if not people:
            return
        known = before(prefix, self._facts_of(prefix.kp, sorted(people)))
        for pid in people:
            of_person = [each for each in known if each.fact[6] == pid]
            prefix.marked[pid] = person_from(of_person, self._visit_gap_ms)

    def _facts_of(self, partition: int | None, people: list[bytes]) -> list[KnownFact]:
        self._has_looked = True
        return self._retry(lambda: self._store.facts_of(partition, people), "load facts of people")

    def _alarm(self, partition: int, done: Tally) -> None:
        for repeat in done.repeats[:10]:
            get_logger().error(
                "tripwire",
                topic=self._topic,
                partition=partition,
                offset=repeat.offset,
                lane=repeat.lane,
                found=repeat.found,
                highest=repeat.highest,
            )
        if done.repeats:
            counter("headwater_sink_tripwire_total").labels(SINK).inc(len(done.repeats))

    def _forget(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._prefixes.pop(partition, None)
            self._stored.pop(partition, None)
