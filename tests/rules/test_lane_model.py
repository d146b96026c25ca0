"""Is a lane exact under every order of applying, committing, dying and being replaced?

The real lane runs against a log in memory whose transactions are whole or nothing and which fences
as Kafka does. A seed decides the schedule: what arrives when, which batch is applied, when it
commits, when the process dies (before the commit, or after it but before its answer), when it
becomes a zombie that goes on beside its successor. Afterwards a recount, which knows nothing of
lanes, says what was lost or doubled. The same checker must find fault with a log that does not
fence or commits in pieces: else it could not see.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest

from runtime.lanes import Batch
from schemas.codec import (
    ACCEPTED,
    COLLECTED,
    CONSENT_CHANGED,
    CURSOR,
    ERASURE_REQUESTED,
    REJECTED,
    SUBJECT,
)
from schemas.events import Collected
from schemas.requests import ConsentChanged, ErasureRequested
from schemas.subjects import CURSOR_KEY, PID_BYTES, Subject
from streams import lane as lane_module
from streams.app import arrows
from streams.lane import Lane, LaneSettings
from streams.rules.admit import Rules
from streams.rules.gate import Gate
from tests.lane_log import TOPICS, Died, Fetched, InlineThread, Kafka, Producer
from tests.stream_log import GAP_MS, START_MS, make_event, visits_of

SCHEDULES = 1_000
SCHEDULES_OF_A_MUTANT = 60
ERASED_PID = b"e" * PID_BYTES
PIDS = [bytes([number]) * PID_BYTES for number in range(4)] + [ERASED_PID]


class Schedule:
    """One seed's history of a lane and its log."""

    def __init__(self, seed: int, kafka: Kafka) -> None:
        self.chance = random.Random(seed)
        self.kafka = kafka
        self.sent: list[Collected] = []
        self.bad: set[tuple[str, int]] = set()
        self.consents: list[ConsentChanged] = []
        self.zombies: list[Lane] = []
        self.owner = self.open()

    def open(self) -> Lane:
        """A new process takes the lane: fence, rebuild, seek."""
        settings = LaneSettings(
            bootstrap_servers="",
            topics=TOPICS,
            partitions=1,
            generation=1,
            barrier_s=0.0,
            deduplication_ms=10**9,
            rules=Rules(Gate(counts=True, profiles=True), GAP_MS),
            is_trial=False,
            clock_ms=lambda: START_MS,
        )
        lane = Lane(0, settings, arrows(TOPICS))
        lane._thread = InlineThread()  # type: ignore[assignment]
        lane.open()
        for topic, records in self.kafka.inputs.items():
            lane.start_at(topic, 0, len(records))
        return lane

    # -- what arrives

    def arrive(self) -> None:
        """One more record on an input: new, sent again, or of no use."""
        chance, inputs = self.chance, self.kafka.inputs
        kind = chance.choices(
            ["event", "again", "bad", "gap", "consent", "erasure"], [10, 4, 1, 1, 1, 0.5]
        )[0]
        collected = inputs[TOPICS.collected]
        if kind == "event":
            event = make_event(
                event_id=chance.randbytes(16),
                pid=chance.choice(PIDS),
                occurred_at_ms=START_MS + chance.randrange(5) * GAP_MS // 2,
                clear={"properties": {"campaign_id": chance.choice("ab")}},
            )
            self.sent.append(event)
            collected.append((event.pid, COLLECTED.encode(event)))
        elif kind == "again" and self.sent:
            event = chance.choice(self.sent)
            collected.append((event.pid, COLLECTED.encode(event)))
        elif kind == "bad":
            topic = chance.choice(TOPICS.inputs)
            self.bad.add((topic, len(inputs[topic])))
            inputs[topic].append((b"k", b"no record of ours"))
        elif kind == "gap":
            inputs[chance.choice(TOPICS.inputs)].append(None)
        elif kind == "consent":
            change = _consent(chance.choice(PIDS), len(self.consents))
            self.consents.append(change)
            inputs[TOPICS.consents].append((change.pid, CONSENT_CHANGED.encode(change)))
        elif kind == "erasure":
            request = ErasureRequested(bytes(16), ERASED_PID, START_MS, "withdrawn")
            inputs[TOPICS.erasures].append((ERASED_PID, ERASURE_REQUESTED.encode(request)))

    # -- what processes do

    def apply(self, lane: Lane) -> None:
        """Apply the next few records of one input."""
        topic = self.chance.choice(TOPICS.inputs)
        from_offset = lane.next_offsets[topic]
        held = self.kafka.inputs[topic]
        to_offset = min(len(held), from_offset + self.chance.randint(1, 8))
        if to_offset == from_offset:
            return
        records = [
            Fetched(record[0], record[1], at)
            for at, record in enumerate(held[from_offset:to_offset], from_offset)
            if record is not None
        ]
        batch = Batch(topic, 0, records, from_offset, to_offset, 1)
        for part in lane._slices(batch):
            lane._apply(*part)

    async def step(self, lane: Lane) -> bool:
        """Apply or commit; False when the process has ended by it."""
        try:
            if self.chance.random() < 0.6:
                self.apply(lane)
            else:
                await lane._barrier()
        except Died:
            return False
        return True

    async def run(self) -> None:
        """Arrivals, steps and faults in a random order, until all is applied and committed."""
        chance = self.chance
        arrivals, faults = chance.randint(5, 40), chance.randint(0, 5)
        while arrivals or not self.is_settled():
            if arrivals and chance.random() < 0.5:
                self.arrive()
                arrivals -= 1
            if faults and chance.random() < 0.1:
                faults -= 1
                self.hurt()
            for zombie in list(self.zombies):
                if chance.random() < 0.3 and not await self.step(zombie):
                    self.zombies.remove(zombie)
            if not await self.step(self.owner):
                self.owner = self.open()
        # Whoever still sleeps wakes now, and tries to write what it has.
        for zombie in self.zombies:
            while await self.step(zombie) and zombie._is_touched:
                pass

    def hurt(self) -> None:
        """The owner dies at once or at its next commit, or falls asleep and is replaced."""
        how = self.chance.choice(["now", "before", "after", "sleeps", "sleeps"])
        if how in ("before", "after"):
            self.kafka.dies = how
            return
        if how == "sleeps":
            self.zombies.append(self.owner)
        self.owner = self.open()

    def is_settled(self) -> bool:
        """True once a committed cursor stands at the end of every input."""
        ends = {topic: len(records) for topic, records in self.kafka.inputs.items() if records}
        stands = self.owner.committed_offsets
        return all(stands.get(topic) == end for topic, end in ends.items())

    # -- what a recount finds

    def violations(self) -> set[str]:
        """Names of the promises that the log breaks."""
        found: set[str] = set()
        outputs = self.kafka.outputs
        accepted = [ACCEPTED.decode(value) for _, value in outputs[TOPICS.accepted]]
        rejected = [REJECTED.decode(value) for _, value in outputs[TOPICS.rejected]]
        cursors = [CURSOR.decode(v) for k, v in outputs[TOPICS.subjects] if k == CURSOR_KEY and v]
        newest = self.kafka.read_compacted("", TOPICS.subjects, 0, "").newest
        people = {k: SUBJECT.decode(v) for k, v in newest.items() if len(k) == PID_BYTES}

        if [each.seq for each in cursors] != list(range(1, len(cursors) + 1)):
            found.add("seq has a gap or a repeat")
        for topic_outputs in (accepted, rejected):
            places = [(each.seq, each.index) for each in topic_outputs]
            if places != sorted(set(places)):
                found.add("coordinates do not rise")
        if Counter((r.topic, r.offset) for r in rejected) != Counter(self.bad):
            found.add("bad records not set aside once")

        counts = Counter(each.event_id for each in accepted)
        if any(count > 1 for count in counts.values()):
            found.add("accepted twice")
        withheld = {each.purpose: each.count for each in cursors[-1].withheld} if cursors else {}
        missing = Counter(event.pid for event in self.sent if not counts[event.event_id])
        if set(missing) - {ERASED_PID}:
            found.add("lost")
        consents = sum(change.pid == ERASED_PID for change in self.consents)
        if not 0 <= withheld.get("erased", 0) - missing[ERASED_PID] <= consents:
            found.add("withheld count is wrong")
        return found | self._wrong_people(people, accepted)

    def _wrong_people(self, people: dict[bytes, Subject], accepted: list[Any]) -> set[str]:
        found: set[str] = set()
        requested = {record[0] for record in self.kafka.inputs[TOPICS.erasures] if record}
        if ERASED_PID in requested:
            stub = people.get(ERASED_PID)
            if stub is None or stub.erased_at_ms is None or stub.events or stub.consents:
                found.add("erased person came back")
        visits = Counter[bytes]()
        for each in accepted:
            visits[each.pid] += sum(change.delta for change in each.visit_changes)
        for pid in PIDS[:-1]:
            sent = [event for event in self.sent if event.pid == pid]
            wanted = [change.recorded_at_ms for change in self.consents if change.pid == pid]
            known = people.get(pid)
            if known is None:
                if sent or wanted:
                    found.add("person is missing")
                continue
            if known.events != len(sent):
                found.add("person counts otherwise")
            recount = visits_of(event.occurred_at_ms for event in sent)
            if not len(known.visits) // 34 == visits[pid] == recount:
                found.add("visits count otherwise")
            if [each.recorded_at_ms for each in known.consents] != wanted:
                found.add("consents differ")
        return found


def _consent(pid: bytes, number: int) -> ConsentChanged:
    return ConsentChanged(
        number.to_bytes(16, "big"), pid, "sale", None, None, "consent", "granted", START_MS, None,
        START_MS + number, "form",
    )  # fmt: skip


@pytest.fixture
def run_schedule(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, Kafka], set[str]]]:
    """Runs one seed against a log; the promises that it breaks."""
    log: list[Kafka] = []

    def die(_why: str, **_where: object) -> NoReturn:
        raise Died

    monkeypatch.setattr(lane_module, "crash", die)
    monkeypatch.setattr(
        lane_module, "LaneProducer", lambda _servers, name, fault: Producer(log[-1], name, fault)
    )
    monkeypatch.setattr(lane_module, "read_compacted", lambda *args: log[-1].read_compacted(*args))
    with asyncio.Runner() as runner:

        def run(seed: int, kafka: Kafka) -> set[str]:
            log[:] = [kafka]
            schedule = Schedule(seed, kafka)
            runner.run(asyncio.wait_for(schedule.run(), 60))
            return schedule.violations()

        yield run


def test_lane_is_exact_in_every_schedule(
    run_schedule: Callable[[int, Kafka], set[str]],
) -> None:
    for seed in range(SCHEDULES):
        assert run_schedule(seed, Kafka()) == set(), f"seed {seed}"


@pytest.mark.parametrize(
    ("mutant", "expected"),
    [
        ({"fences": False}, {"accepted twice", "seq has a gap or a repeat"}),
        ({"is_atomic": False}, {"accepted twice"}),
    ],
    ids=["without fencing", "commits in pieces"],
)
def test_checker_sees_what_a_worse_log_would_do(
    run_schedule: Callable[[int, Kafka], set[str]], mutant: dict[str, bool], expected: set[str]
) -> None:
    found: Counter[str] = Counter()
    for seed in range(SCHEDULES_OF_A_MUTANT):
        found.update(run_schedule(seed, Kafka(**mutant)))
    assert expected <= found.keys(), found


def test_model_meets_what_it_is_about(run_schedule: Callable[[int, Kafka], set[str]]) -> None:
    """The schedules do contain restarts, fenced zombies, several transactions and stubs."""
    met: Counter[str] = Counter()
    for seed in range(100):
        kafka = Kafka()
        run_schedule(seed, kafka)
        subjects = kafka.outputs[TOPICS.subjects]
        met["transactions"] += sum(key == CURSOR_KEY for key, _ in subjects)
        met["owners"] += sum(kafka.epochs.values())
        met["stubs"] += any(
            value is not None and SUBJECT.decode(value).erased_at_ms is not None
            for key, value in subjects
            if len(key) == PID_BYTES
        )
        met["rejections"] += len(kafka.outputs[TOPICS.rejected])
    assert met["owners"] > 200
    assert met["transactions"] > 500
    assert met["stubs"] > 20
    assert met["rejections"] > 50
