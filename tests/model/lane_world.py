"""What may happen to lanes, and was everything counted once when it was over?

Real lanes (streams/) with the real producer and reader of runtime/transactions.py, on a Kafka in
memory. A seed decides everything: what arrives when, which coroutine goes on, which request lands
before which, where a process dies or sleeps, what the broker loses. In the end the faults stop, and
all must come to rest with every promise kept (tests/model/recount.py).
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

from runtime.lanes import Batch
from schemas.codec import SUBJECT
from schemas.consent import Basis
from schemas.errors import StoreRefused, StreamError
from streams.app import arrows
from streams.lane import Lane, LaneSettings
from streams.rules.admit import Rules
from streams.rules.gate import Gate
from streams.rules.person import person_to_subject
from streams.rules.written_person import write_person
from tests.lane_log import TOPICS, Fetched
from tests.model.arrivals import WINDOW_MS, Arrivals
from tests.model.memory_kafka import Died, MemoryKafka
from tests.model.recount import WINDOW_MS as WINDOW_OF_TOUCHES_MS
from tests.model.virtual_loop import Call, VirtualLoop
from tests.stream_log import GAP_MS, START_MS

BARRIER_S = 0.1
LATE_GRANT_MS = 40_000  # several arrivals, and fewer than most schedules have
MOST_STEPS = 3_000
MOST_ROUNDS = 1_000
COMMIT_FATES = (
    "dies early", "dies sending", "dies late", "unanswered", "refused", "answer lost", "undelivered",
    "repeated", "slow",
)  # fmt: skip
EXPECTED_ENDS = ("commit failed", "cannot fence", "producer error", "a record was not delivered",
                 "commit took")  # fmt: skip


class Process:
    """A stream worker: its lanes, the coroutines of each, what its threads should do."""

    def __init__(self) -> None:
        self.lanes: dict[int, Lane] = {}
        self.tasks: dict[asyncio.Task[Any], int] = {}
        self.calls: list[Call] = []
        self.read_to: dict[tuple[str, int], int] = {}
        self.puts: dict[int, asyncio.Task[None]] = {}
        self.closing: dict[int, asyncio.Task[None]] = {}
        self.is_alive = True
        self.is_asleep = False


class LaneWorld:
    """One schedule. `violations` of a world that ran to its end is empty, or a promise broke."""

    def __init__(self, seed: int, loop: VirtualLoop, kafka: MemoryKafka) -> None:
        self.chance = random.Random(seed)
        self.loop = loop
        self.kafka = kafka
        self.partitions = kafka.partitions
        self.now_ms = START_MS
        self.generation = 1
        self.processes: list[Process] = []
        self.owners: dict[int, Process] = {}
        self.met: Counter[str] = Counter()
        self.wrong: set[str] = set()
        self.is_calm = False
        self._acting: Process | None = None
        self._rested_until_s = 0.0
        self._is_nested = False
        # Where unknown means no, little counts: the less often.
        self.basis: Basis = "consent" if seed % 3 == 2 else "legitimate_interest"
        self.late_grant_ms = 0 if seed % 4 == 3 else LATE_GRANT_MS
        self.may_cut = self.chance.random() < 0.1
        self.arrivals = Arrivals(
            self.chance,
            kafka,
            has_expiry=not self.may_cut and self.chance.random() < 0.3,
            has_merges=seed % 5 < 2,
        )
        loop.clock = kafka.clock
        loop.handed_over = self._hand_over
        kafka.pause = self._pause
        kafka.fate = self._fate
        kafka.take = lambda most: 1 + int(self.chance.random() * most)

    # -- what the product calls

    def crash(self, why: str, **_where: object) -> NoReturn:
        """Stands for runtime.crash.crash: the process that called it has ended."""
        if not why.startswith(EXPECTED_ENDS):
            self.wrong.add(f"ended: {why}")
        self.met[why.split(":")[0]] += 1
        raise Died(why)

    def _fate(self, call: str) -> str:
        chance = self.chance
        if call == "poll":
            return "sends" if chance.random() < 0.5 else ""
        if self.is_calm:
            return ""
        if call == "commit" and chance.random() < 0.08:
            fate = chance.choice(COMMIT_FATES + COMMIT_FATES[-2:])
        elif call == "fence" and chance.random() < 0.03:
            fate = chance.choice(("unanswered", "dies"))
        elif call == "produce" and chance.random() < 0.02:
            fate = "full"
        else:
            return ""
        self.met[f"{call} {fate}"] += 1
        return fate

    def _pause(self, _point: str) -> None:
        """Between two requests of one process others act."""
        if self.is_calm or self._is_nested:
            return
        if self.kafka.late_requests and self.chance.random() < 0.2:
            self.kafka.land(self.kafka.late_requests[0])
        if self.chance.random() > 0.1:
            return
        self._is_nested = True
        acting = self._acting
        try:
            self.chance.choice((self._settle_some, self._hurry_other, self._take_over))()
        finally:
            self._acting = acting
            self._is_nested = False

    def _hand_over(self, call: Call, task: Any) -> None:
        for process in self.processes:
            if task in process.tasks:
                process.calls.append(call)
                return

    # -- processes

    def start(self) -> Process:
        process = Process()
        self.processes.append(process)
        return process

    def _do(self, process: Process, action: Callable[[], None]) -> bool:
        """What `process` does in one go; False when it ended by it."""
        before, self._acting = self._acting, process
        try:
            action()
        except Died:
            self.end(process)
            return False
        finally:
            self._acting = before
        return True

    def open(self, process: Process, p: int) -> None:
        """`process` takes lane `p`: fence, rebuild, seek; then it flows."""
        settings = LaneSettings(
            bootstrap_servers="",
            topics=TOPICS,
            partitions=self.partitions,
            generation=self.generation,
            barrier_s=BARRIER_S,
            deduplication_ms=WINDOW_MS,
            rules=Rules(
                Gate(self.basis != "consent", True, self.late_grant_ms),
                GAP_MS,
                attribution_ms=WINDOW_OF_TOUCHES_MS,
            ),
            is_trial=False,
            clock_ms=lambda: self.now_ms,
        )
        lane = Lane(p, settings, arrows(TOPICS))

        def settle() -> None:
            lane.open()
            for topic in TOPICS.inputs:
                log = self.kafka.logs[topic, p]
                lane.start_at(topic, log.first, len(log.entries))

        try:
            if not self._do(process, settle):
                return
        except StoreRefused:
            self._refused(process, p)
            return
        except StreamError:
            self.end(process)
            return
        process.lanes[p] = lane
        process.read_to |= {(topic, p): lane.next_offsets[topic] for topic in TOPICS.inputs}
        self._spawn(process, p, lane.run())
        self.owners[p] = process
        self.met["owners"] += 1

    def _refused(self, process: Process, p: int) -> None:
        """A start that was refused is right when a log went back; a person raises the generation."""
        self.end(process)
        if not self.arrivals.was_cut:
            self.wrong.add("refused without a reason")
        self.met["refused"] += 1
        self.generation += 1
        # That person stops the workers first. One that is forgotten is fenced by the name under
        # which it committed: one that never did has to be stopped (docs/reliability.md).
        for other in list(self.processes):
            if not all(lane.committed_offsets for lane in other.lanes.values()):
                self.end(other)

    def _spawn(self, process: Process, p: int, work: Any) -> "asyncio.Task[Any]":
        task = self.loop.create_task(work)
        process.tasks[task] = p

        def ended(task: "asyncio.Task[Any]") -> None:
            process.tasks.pop(task, None)
            if task.cancelled() or (error := task.exception()) is None:
                return
            if not isinstance(error, Died):
                self.wrong.add(f"raised {error!r}")
            self.end(process)

        task.add_done_callback(ended)
        return task

    def end(self, process: Process) -> None:
        """The process is no more."""
        process.is_alive = False
        process.calls.clear()
        for task in list(process.tasks):
            task.cancel()
        if process in self.processes:
            self.processes.remove(process)
        for p, owner in list(self.owners.items()):
            if owner is process:
                del self.owners[p]

    # -- steps

    def _feed(self, process: Process) -> None:
        """Hand a lane the next records of one of its inputs."""
        choices = [p for p in process.lanes if p not in process.closing]
        if not choices:
            return
        p = self.chance.choice(choices)
        put = process.puts.get(p)
        if put is not None and not put.done():
            return
        topic = self.chance.choice(TOPICS.inputs)
        log, begin = self.kafka.logs[topic, p], process.read_to[topic, p]
        if begin > len(log.entries):
            self.end(process)  # the fetch is out of range, and resets are off
            return
        to = min(log.stable_end(), begin + self.chance.randint(1, 8))
        if to <= begin:
            return
        records = [
            Fetched(key, value, at)  # type: ignore[arg-type]
            for at, key, value in log.read(begin, to, is_committed=True)
        ]
        process.read_to[topic, p] = to
        batch = Batch(topic, p, records, begin, to, 1)
        process.puts[p] = self._spawn(process, p, process.lanes[p].put(batch))

    def _hurry(self, process: Process) -> None:
        """What a thread of the process was to do is done."""
        if process.calls:
            call = process.calls.pop(self.chance.randrange(len(process.calls)))
            self._do(process, call.run)

    def _hurry_other(self) -> None:
        others = [each for each in self.processes if each is not self._acting and each.calls]
        if others:
            self._hurry(self.chance.choice(others))

    def _take_over(self) -> None:
        """Somebody else opens a lane, whoever has it; that one does not know yet."""
        p = self.chance.randrange(self.partitions)
        former = self.owners.get(p)
        process = self.start()
        self.open(process, p)
        if former is not None and process.is_alive:
            self.met["zombies"] += 1

    def _settle_some(self) -> None:
        """The broker does something that it had put off."""
        kafka, chance = self.kafka, self.chance
        if kafka.late_requests and chance.random() < 0.5:
            kafka.land(chance.choice(kafka.late_requests))
        elif kafka.decided and chance.random() < 0.7:
            kafka.mark(chance.choice(kafka.decided))
        elif kafka.owners and chance.random() < 0.02 and not self.is_calm:
            kafka.time_out(chance.choice(list(kafka.owners)))
            self.met["timed out"] += 1

    def _give_up(self) -> None:
        """A rebalance: the owner closes a lane in good order, and another opens it after that."""
        p = self.chance.randrange(self.partitions)
        owner = self.owners.get(p)
        if owner is None or p in owner.closing:
            return
        owner.closing[p] = self._spawn(owner, p, owner.lanes[p].close())
        self.met["rebalances"] += 1

    def _hurt(self) -> None:
        chance = self.chance
        owners = list(dict.fromkeys(self.owners.values()))
        how = chance.choice(("kill", "sleep", "sleep", "give up", "give up", "take over", "cut"))
        if how == "kill" and owners:
            self.end(chance.choice(owners))
            self.met["kills"] += 1
        elif how == "sleep" and owners:
            chance.choice(owners).is_asleep = True
            self._take_over()
        elif how == "give up":
            self._give_up()
        elif how == "take over":
            self._take_over()
        elif how == "cut" and self.may_cut and self.arrivals.cut():
            self.met["cuts"] += 1
            # Whoever reads there is told so at once. A log that grew again before anybody looked
            # is not promised to be noticed.
            for process in list(self.processes):
                if any(to > len(self.kafka.logs[at].entries) for at, to in process.read_to.items()):
                    self.end(process)
            self._tend()

    def _tend(self) -> None:
        """A lane without an owner gets one; of a lane that was closed nothing is left."""
        for process in self.processes:
            for p in [p for p, closing in process.closing.items() if closing.done()]:
                del process.closing[p], process.lanes[p]
                process.puts.pop(p, None)
                if self.owners.get(p) is process:
                    del self.owners[p]
        for p in range(self.partitions):
            if p in self.owners:
                continue
            awake = [each for each in self.processes if not each.is_asleep and p not in each.lanes]
            process = self.chance.choice(awake) if awake else self.start()
            self.open(process, p)

    async def _breathe(self) -> None:
        """Coroutines go on: a few steps, or until all of them wait; sometimes time passes."""
        kind = self.chance.random()
        if kind < 0.2:
            await asyncio.sleep(self.chance.random() * BARRIER_S * 2)
        elif kind < 0.5:
            self.kafka.clock.now_s += self.chance.choice((0.0, 0.4, 1.1)) * BARRIER_S
            await asyncio.sleep(0)
        else:
            await self._rest()

    async def _rest(self) -> None:
        for _ in range(MOST_ROUNDS):
            await asyncio.sleep(0)
            if self.loop.is_idle():
                return
        self.wrong.add("a coroutine goes round without doing anything")

    async def run(self) -> set[str]:
        """The whole schedule; the promises that it broke."""
        chance = self.chance
        arrivals, faults = chance.randint(4, 28), chance.randint(0, 6)
        if self.arrivals.has_merges:
            arrivals += 12
        for _ in range(MOST_STEPS):
            self._tend()
            if arrivals and chance.random() < 0.5:
                self.now_ms = self.arrivals.arrive(self.now_ms)
                arrivals -= 1
            if faults and chance.random() < 0.12:
                faults -= 1
                self._hurt()
            if chance.random() < 0.2:
                self._settle_some()
            for process in list(self.processes):
                if process.is_asleep:
                    process.is_asleep = chance.random() > 0.05
                    continue
                if chance.random() < 0.7:
                    self._feed(process)
                if chance.random() < 0.4:
                    self._hurry(process)
            await self._breathe()
            if not arrivals and not faults and not self.is_calm:
                await self._calm()
            if self.is_calm and await self._is_settled():
                break
        else:
            self.wrong.add("stuck")
        for process in list(self.processes):
            if not all(map(_is_as_written, process.lanes.values())):
                self.wrong.add("a person is written otherwise than they are")
            self.end(process)
        await self._rest()
        for transactional_id in list(self.kafka.owners):
            self.kafka.time_out(transactional_id)  # what the dead left open hides what follows
        self.loop.forget_timers()
        return self.wrong

    async def _calm(self) -> None:
        """No more faults. Whoever still sleeps wakes, and tries to write what it has."""
        self.is_calm = True
        self.kafka.settle()
        for process in self.processes:
            process.is_asleep = False

    async def _is_settled(self) -> bool:
        """True once a committed cursor of each lane's owner stands at the end of every input."""
        for process in list(self.processes):
            if process.calls or process.closing:
                return False
        self.kafka.settle()
        is_settled = len(self.owners) == self.partitions and all(
            process.lanes[p].committed_offsets.get(topic, 0)
            == len(self.kafka.logs[topic, p].entries)
            for p, process in self.owners.items()
            for topic in TOPICS.inputs
        )
        if not is_settled or self.loop.time() < self._rested_until_s:
            return is_settled
        # Once more, after every timer: who was a zombie has tried to write what it had.
        self._rested_until_s = float("inf")
        await asyncio.sleep(10 * BARRIER_S)
        return False


def _is_as_written(lane: Lane) -> bool:
    """True unless what a lane kept of somebody's record is older than the person."""
    return all(
        write_person(person) == SUBJECT.encode(person_to_subject(person))
        for person in lane.people.values()
    )
