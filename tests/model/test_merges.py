"""Would persons who turn out to be one be counted as one, and apart again, in every schedule?

Merges are designed and not built: this is the protocol alone, as evidence for whoever builds it. A
lane commits its outputs, memory and position at once, and may die before; test_lanes.py shows that
real ones do. Lanes tell each other by the log alone:

    link(loser -> winner) is keyed by the loser; the winner ranks strictly higher: no cycles
    the losing lane marks `moved_to` and sends its substate, all in one transaction
    its later events are deduplicated at home, and change the substate that the winner has of it
    the winner keeps a substate for each member, so that an unlinked one can be taken out

What a loser sends to one winner is written by one lane into one partition, and read once: it needs
no version to be applied in order.
"""

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Literal

import pytest

from tests.model.schedules import BLOCKS, seeds

SHARE = 1_000
LANES = 3
PEOPLE = 9
MOST_STEPS = 600

Kind = Literal["event", "link", "unlink", "state"]


@dataclass(frozen=True, slots=True)
class Record:
    """On a lane's input: about `pid`; `state` carries the substate of its member `other`."""

    kind: Kind
    pid: int
    event_id: int = 0
    other: int = 0
    events: frozenset[int] = frozenset()


@dataclass(slots=True)
class Person:
    """What a lane knows of a pid: its own events, and the substates of members by pid."""

    own: set[int] = field(default_factory=set)
    moved_to: int | None = None
    members: dict[int, frozenset[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Lane:
    """Its committed memory and position; what a step changes is kept whole or not at all."""

    people: dict[int, Person] = field(default_factory=lambda: defaultdict(Person))
    next_offset: int = 0


Mutation = Literal["", "adds up", "forwards before it knows", "links downward", "in two commits"]


class World:
    """One schedule."""

    def __init__(self, seed: int, mutation: Mutation = "") -> None:
        self.chance = random.Random(seed)
        self.mutation = mutation
        self.logs: list[list[Record]] = [[] for _ in range(LANES)]
        self.lanes = [Lane() for _ in range(LANES)]
        self.sent: dict[int, int] = {}  # event id -> pid
        self.links: dict[int, int] = {}  # loser -> winner, as last decided

    def arrive(self) -> None:
        """A call, a copy of one, a link or its end."""
        chance = self.chance
        kind = chance.choices(("new", "again", "link", "unlink"), (8, 3, 2, 1))[0]
        if kind == "new":
            event_id, pid = len(self.sent), chance.randrange(PEOPLE)
            self.sent[event_id] = pid
            self._put(Record("event", pid, event_id))
        elif kind == "again" and self.sent:
            event_id = chance.choice(list(self.sent))
            self._put(Record("event", self.sent[event_id], event_id))
        elif kind == "link":
            loser, winner = chance.randrange(PEOPLE), chance.randrange(PEOPLE)
            # A smaller pid ranks higher.
            if loser > winner or (loser != winner and self.mutation == "links downward"):
                self.links[loser] = winner
                self._put(Record("link", loser, other=winner))
        elif kind == "unlink" and self.links:
            loser = chance.choice(list(self.links))
            del self.links[loser]
            self._put(Record("unlink", loser))

    def _put(self, record: Record) -> None:
        self.logs[record.pid % LANES].append(record)

    def step(self, p: int) -> None:
        """One transaction of a lane: some records, applied to a copy; it commits, or died before."""
        lane, chance = self.lanes[p], self.chance
        to = min(len(self.logs[p]), lane.next_offset + chance.randint(1, 5))
        people = {
            pid: Person(set(each.own), each.moved_to, dict(each.members))
            for pid, each in lane.people.items()
        }
        outputs: list[Record] = []
        for record in self.logs[p][lane.next_offset : to]:
            self._apply(people.setdefault(record.pid, Person()), record, outputs)
        if chance.random() < 0.2:
            # Died: nothing of it is there.
            if self.mutation == "in two commits":
                self.lanes[p] = Lane(people, to)
            return
        self.lanes[p] = Lane(people, to)
        for record in outputs:
            self._put(record)

    def _apply(self, person: Person, record: Record, outputs: list[Record]) -> None:
        pid, before = record.pid, self._told(person)
        winner = person.moved_to
        if record.kind == "event":
            person.own.add(record.event_id)
        elif record.kind == "link":
            person.moved_to = record.other
        elif record.kind == "unlink":
            person.moved_to = None
        else:
            known = person.members.get(record.other, frozenset[int]())
            adds_up = self.mutation == "adds up"
            person.members[record.other] = record.events | known if adds_up else record.events
        if winner is not None and winner != person.moved_to:
            # Who was told before is told that nothing of this pid is theirs any more.
            outputs.append(Record("state", winner, other=pid))
        told = self._told(person)
        if person.moved_to is not None and (winner != person.moved_to or told != before):
            if self.mutation == "forwards before it knows":
                told = before
            outputs.append(Record("state", person.moved_to, other=pid, events=told))

    def _told(self, person: Person) -> frozenset[int]:
        """All that a winner is told: one's own, and what one's members told."""
        return frozenset(person.own).union(*person.members.values())

    def run(self) -> set[str]:
        """The whole schedule; the promises that it broke."""
        chance, arrivals = self.chance, self.chance.randint(5, 60)
        for _ in range(MOST_STEPS):
            if arrivals and chance.random() < 0.5:
                self.arrive()
                arrivals -= 1
            self.step(chance.randrange(LANES))
            ends = [len(log) for log in self.logs]
            if not arrivals and [lane.next_offset for lane in self.lanes] == ends:
                return self._broken()
        return {"stuck"}

    def _broken(self) -> set[str]:
        found = set()
        truth: dict[int, set[int]] = defaultdict(set)
        for event_id, pid in self.sent.items():
            truth[self._root(pid)].add(event_id)
        counts: Counter[int] = Counter()
        for p, lane in enumerate(self.lanes):
            for pid, person in lane.people.items():
                assert pid % LANES == p
                if person.moved_to is None:
                    held = self._told(person)
                    counts.update(held)
                    if held != truth[pid]:
                        found.add("profile is not its members'")
        if any(count > 1 for count in counts.values()):
            found.add("counted under two people")
        if counts.keys() != self.sent.keys():
            found.add("lost")
        return found

    def _root(self, pid: int) -> int:
        seen = {pid}
        while (winner := self.links.get(pid, pid)) not in seen:
            seen.add(winner)
            pid = winner
        return pid


@pytest.mark.parametrize("block", range(BLOCKS))
def test_merged_people_are_counted_as_one_in_every_schedule(block: int) -> None:
    for seed in seeds(SHARE, block):
        assert World(seed).run() == set(), f"seed {seed}"


@pytest.mark.parametrize(
    "mutation", ["adds up", "forwards before it knows", "links downward", "in two commits"]
)
def test_model_sees_a_protocol_without_its_safeguard(mutation: Mutation) -> None:
    found: Counter[str] = Counter()
    for seed in range(300):
        found.update(World(seed, mutation).run())
        if found:
            break
    assert found
