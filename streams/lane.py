"""What is one partition's memory, and how does it become durable?

A lane is partition p of every input topic. One worker owns it; one task applies its batches and
commits them, so that applying and committing exclude each other by construction. Outputs, memory
and position travel in one transaction: after any crash the next owner finds all of them or none
(ADR 0002; DESIGN of the protocol in ARCHITECTURE.md).

    fence      a new transactional producer: the previous owner cannot write any more
    rebuild    read subjects[p] to its end: people, event ids, cursor
    seek       every input to the cursor (the transport does it)
    flow       apply; at each barrier write changed people, new ids, the cursor; commit
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

from runtime.changes import ChangeReader
from runtime.crash import crash
from runtime.lanes import Batch
from runtime.metrics import counter, gauge, histogram
from runtime.transactions import LaneProducer, read_compacted
from schemas.errors import StoreRefused
from schemas.segment_records import SegmentsInForce
from schemas.subjects import WRITER_KEY
from streams.catch_up import CatchUp
from streams.known import Known
from streams.lane_settings import LaneSettings as LaneSettings
from streams.outputs import Outputs
from streams.parked_to_accepted import release_due
from streams.rules.deduplicate import Memory
from streams.rules.membership import Membership
from streams.rules.outcomes import Withheld
from streams.rules.parking import Parking
from streams.rules.person import Person
from streams.rules.rebuild import rebuild
from streams.rules.wakes import Wakes
from streams.written_memory import write_memory

RECORDS_A_SLICE = 2_000
BATCHES_WAITING = 4
BEHIND_BARRIERS = 2
WAKES_A_BARRIER = 10_000
LOOK_AT_WAKES_S = 0.25
LATEST_S = 1.5
"""A lane commits so many barriers later for each batch that waits here, and by this, which is the
most, while the log has more than was fetched: a person who changes often is written less often,
and what waits is late anyway. Far below the time that a transaction may take."""


T = TypeVar("T")
Apply = Callable[["Lane", Sequence[Any]], None]
"""Applies records of one input topic to a lane; pure but for the lane's memory and outputs."""


class Lane(Outputs):
    """Partition p of every input topic: its people, its event ids, its transaction."""

    def __init__(self, p: int, settings: LaneSettings, apply_by_topic: Mapping[str, Apply]) -> None:
        self.p = p
        self.settings = settings
        self.people: dict[bytes, Person] = {}
        self.memory = Memory(settings.deduplication_ms)
        self.parking = Parking(settings.generation, settings.rules.gate.late_grant_ms)
        self.wakes = Wakes()
        self.membership = self._membership(None)
        self.changed: dict[bytes, Person] = {}
        self.withheld: dict[Withheld, int] = {}
        self.seq = 0  # of the transaction under way
        self.index = 0  # outputs written in it
        self.next_offsets: dict[str, int] = {}
        self.committed_offsets: dict[str, int] = {}
        self.producer: LaneProducer
        self._apply_by_topic = apply_by_topic
        self.is_touched = False
        self._is_behind = False
        self._due_s = 0.0  # when the barrier is due, once something is applied
        self._inbox: asyncio.Queue[tuple[int, Batch] | None] = asyncio.Queue(BATCHES_WAITING)
        self._is_closing = False
        self._done = asyncio.Event()
        self._is_running = False
        self._thread = ThreadPoolExecutor(1, f"lane-{p}")
        topics = settings.topics
        group = f"{topics.prefix}headwater.catch-up"
        first = (topics.consents, topics.erasures)
        self._reader = ChangeReader(settings.bootstrap_servers, first, p, group)
        self._catch_up = CatchUp(self._reader, self.next_offsets)
        self.known = Known(lambda: self._reader.ends_of_all(topics.inputs))

    # -- opening, in a thread

    def open(self) -> None:
        """Fence the previous owner, then rebuild what it committed."""
        name = f"{self.settings.topics.prefix}headwater.{self.settings.generation}.{self.p}"
        self.producer = self._fenced(name)
        fenced = {name}
        while (previous := self._rebuild()) and previous not in fenced:
            # The last owner wrote under another name: of an older generation, or in trial mode.
            # It may still live, and may have committed since we read.
            self._fenced(previous)
            fenced.add(previous)
        if self.settings.is_trial:
            # noida-db lists every aborted transaction since offset 0 to readers in mid-log, which
            # then discard later records of that producer id: each start writes under a new one.
            # No lane's clock, which may stand still: two starts would have one name.
            writer = self._fenced(f"{name}.{self.seq}.{time.time_ns()}")
            # Told before it writes: it would never be fenced otherwise, nor what it leaves open
            # ended. And told by a commit as the lane: of two that open it, one fails here.
            topic, its_name = self.settings.topics.subjects, writer.transactional_id
            self.producer.send(topic, its_name.encode(), WRITER_KEY, self.p)
            self.producer.commit()
            self.producer = writer

    def _fenced(self, transactional_id: str) -> LaneProducer:
        producer = LaneProducer(self.settings.bootstrap_servers, transactional_id, self._fault)
        producer.fence()
        return producer

    def _rebuild(self) -> str:
        """Read back what was committed; the transactional id of who wrote last, if any."""
        settings = self.settings
        topic, group = settings.topics.subjects, f"{settings.topics.prefix}headwater.rebuild"
        compacted = read_compacted(settings.bootstrap_servers, topic, self.p, group)
        rebuilt = rebuild(
            compacted.newest,
            self.p,
            settings.generation,
            settings.deduplication_ms,
            settings.rules.gate.late_grant_ms,
        )
        self.people, self.memory, self.seq = rebuilt.people, rebuilt.memory, rebuilt.seq
        self.withheld, self.parking = rebuilt.withheld, rebuilt.parking
        self.wakes = Wakes(self.people.values())
        self.membership = self._membership(rebuilt.segments)
        self.membership.look_at(self.people)
        self.next_offsets.clear()
        self.next_offsets |= rebuilt.next_offsets
        self.committed_offsets = dict(rebuilt.next_offsets)
        self.changed = rebuilt.changed
        self.is_touched = bool(self.changed)
        return rebuilt.writer

    def _membership(self, force: SegmentsInForce | None) -> Membership:
        settings = self.settings
        gap_ms = settings.rules.visit_gap_ms
        return Membership(settings.bases_in_force(), force, settings.measures, gap_ms)

    def start_at(self, topic: str, first_offset: int, end_offset: int) -> None:
        """Begin `topic` at the cursor, or at the log's start in a first or new generation.

        Raises StoreRefused when the cursor lies outside the log: events would be lost or counted
        again without a sign.
        """
        offset = self.next_offsets.setdefault(topic, first_offset)
        if not first_offset <= offset <= end_offset:
            raise StoreRefused(
                f"{topic}[{self.p}] holds offsets {first_offset} to {end_offset}, the lane stands "
                f"at {offset}: the log was cut or lost. Restore it, or raise [kafka] generation to "
                f"{self.settings.generation + 1} to begin anew at its start"
            )

    # -- flowing: one task

    async def put(self, batch: Batch) -> None:
        """Take a batch; it is applied after those before it."""
        await self._inbox.put((self._catch_up.number(), batch))

    async def run(self) -> None:
        """Apply what comes and commit it within the barrier's time, until closed."""
        self._is_running = True
        try:
            await self._flow()
        except Exception:
            # A fenced producer refuses a record by its state; why it is so waits in its queue.
            self.producer.poll(0)
            raise
        self._done.set()

    async def _flow(self) -> None:
        loop = asyncio.get_running_loop()
        await self._release()  # of what the last owner applied
        while not self._is_closing:
            came = await self._next(self._wait_s(loop.time()))
            self._wake(loop.time())
            if came is not None and not self._is_closing:
                number, batch = came
                self._is_behind = batch.is_behind
                if batch.topic == self.settings.topics.collected:
                    await self._know_before(number)
                for part in self._slices(batch):
                    if self._is_closing or not await self._apply_and_breathe(*part):
                        break
            await self._barrier_if_due(loop.time())
        await self._barrier()

    def _wait_s(self, now_s: float) -> float | None:
        """How long at most to wait for a batch; None: as long as it takes."""
        waits = [self._commit_at_s() - now_s] if self.is_touched else []
        if self.membership.is_waiting_in(self.seq):
            return 0.0
        at_ms = self.wakes.next_ms()
        if at_ms is not None:
            # Looked at again before it is due: another clock may run faster than the loop's.
            waits.append(min((at_ms - self.settings.clock_ms()) / 1000, LOOK_AT_WAKES_S))
        return max(0.0, min(waits)) if waits else None

    def _wake(self, now_s: float) -> None:
        """Whoever is due by time counts as changed: the next barrier settles them."""
        now_ms = self.settings.clock_ms()
        woken = self.wakes.due(self.people, now_ms, WAKES_A_BARRIER)
        if is_sliced := self.membership.is_waiting_in(self.seq):
            woken += self.membership.slice(self.people, now_ms, self.seq)
        for person in woken:
            self.changed[person.pid] = person
        if (woken or is_sliced) and not self.is_touched:
            self.is_touched, self._due_s = True, now_s

    async def _know_before(self, number: int) -> None:
        await self._catch_up.before(
            number,
            in_thread=self._in_thread,
            apply=self._apply_and_breathe,
            on_wait=self._barrier,  # a transaction that stays open is aborted by the broker
            is_closing=lambda: self._is_closing,
        )

    async def _apply_and_breathe(self, topic: str, records: Sequence[Any], to_offset: int) -> bool:
        """Apply, and commit when it is time; False once the lane closes."""
        loop = asyncio.get_running_loop()
        if not self.is_touched:
            self._due_s = loop.time() + self.settings.barrier_s
        self._apply(topic, records, to_offset)
        if self.parking.due:
            await self._release()
        await self._settle_known()
        await asyncio.sleep(0)  # other lanes, commits and timers breathe
        await self._barrier_if_due(loop.time())
        return not self._is_closing

    async def _release(self) -> None:
        await release_due(
            self,
            in_thread=self._in_thread,
            pick=self._reader.pick,
            on_wait=self._barrier,
            is_closing=lambda: self._is_closing,
        )

    def _in_thread(self, work: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _next(self, wait_s: float | None) -> tuple[int, Batch] | None:
        """The next batch; None after `wait_s` without one."""
        if not self._inbox.empty():
            # wait_for with nothing left to wait would not even look: the lane went round idly, with
            # batches waiting, from the time a barrier was due until the latest one.
            return self._inbox.get_nowait()
        try:
            return await asyncio.wait_for(self._inbox.get(), wait_s)
        except TimeoutError:
            return None

    async def close(self) -> None:
        """Commit what is applied, and write nothing more. Batches not yet applied are dropped."""
        self._is_closing = True
        while not self._inbox.empty():
            self._inbox.get_nowait()
        self._inbox.put_nowait(None)
        if self._is_running:
            await self._done.wait()
        # Frozen out of the collector's sight (batches.open_lanes), a cycle would stay for ever with
        # all people and the producer's threads and connections.
        await self._in_thread(self._catch_up.close)
        await self._in_thread(self.producer.close)
        del self.producer
        self._thread.shutdown(wait=False)

    def _slices(self, batch: Batch) -> list[tuple[str, Sequence[Any], int]]:
        expected = self.next_offsets[batch.topic]
        records = batch.records
        if batch.topic != self.settings.topics.collected and batch.from_offset < expected:
            # Some of it was read before an event was applied.
            if batch.to_offset <= expected:
                return []
            records = [record for record in records if record.offset >= expected]
        elif batch.from_offset != expected:
            crash(
                "the chain of offsets is broken",
                topic=batch.topic,
                partition=self.p,
                expected=expected,
                found=batch.from_offset,
            )
        slices: list[tuple[str, Sequence[Any], int]] = []
        for at in range(0, max(1, len(records)), RECORDS_A_SLICE):
            part = records[at : at + RECORDS_A_SLICE]
            is_last = at + RECORDS_A_SLICE >= len(records)
            slices.append((batch.topic, part, batch.to_offset if is_last else part[-1].offset + 1))
        return slices

    def _apply(self, topic: str, records: Sequence[Any], to_offset: int) -> None:
        self.is_touched = True
        if records:
            self._apply_by_topic[topic](self, records)
        self.next_offsets[topic] = to_offset
        self.producer.poll(0)

    # -- the barrier

    async def _barrier_if_due(self, now_s: float) -> None:
        if now_s >= self._commit_at_s():
            await self._barrier()

    def _commit_at_s(self) -> float:
        waiting_s = self._inbox.qsize() * BEHIND_BARRIERS * self.settings.barrier_s
        return self._due_s + (LATEST_S if self._is_behind else min(waiting_s, LATEST_S))

    async def _barrier(self) -> None:
        if not self.is_touched:
            return
        write_memory(self)
        self.is_touched = False
        offsets = dict(self.next_offsets)
        took_s = await self._in_thread(self.producer.commit)
        self.committed_offsets = offsets
        self.seq += 1
        self.index = 0
        label = str(self.p)
        counter("headwater_lane_commits_total").labels(label).inc()
        histogram("headwater_lane_commit_seconds").observe(took_s)
        gauge("headwater_lane_committed_at_seconds").labels(label).set_to_current_time()
        if self.known.wanted and not self._is_closing:
            await self.known.ask(self.settings.clock_ms(), self._in_thread)
            await self._settle_known()

    async def _settle_known(self) -> None:
        """Those of whom all is known now are settled before anything else is applied."""
        for pid in self.known.answered(self.next_offsets, self.changed):
            self.changed[pid], self.is_touched = self.person(pid), True
        if self.known.until_ms:
            await self._barrier()

    def _fault(self, why: str) -> NoReturn:
        crash(why, lane=self.p)
