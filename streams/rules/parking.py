"""Which withheld events may a decision on its way still release?

A decision and the event that it allows travel by different topics, and the event may win: the gate
withholds it, and the grant arrives a moment later. So a lane remembers for a few minutes *where* a
withheld event lies, never what it says (ADR 0013). What such an event may become is decided by its
stamps alone (schemas/consent.py). A pointer is kept until the lane has seen events that were
received after its time: before it applied those it knew all decisions on the log by then.
"""

import struct
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final, NamedTuple

from schemas.events import Collected
from schemas.subjects import Parked
from streams.rules.gate import ANALYTICS_REFUSED, ANALYTICS_UNKNOWN, Gate, Stamped, gate_by_consent
from streams.rules.outcomes import ERASED, Withheld
from streams.rules.person import Person

MOST_A_PERSON: Final = 100
"""Of more the oldest stay withheld: a grant that was overtaken is about the newest."""

_POINTER = struct.Struct(">qqq?")
_pack = _POINTER.pack


class Pointer(NamedTuple):
    """A withheld event: where in the lane's partition of the input, and its times (UTC ms)."""

    offset: int
    occurred_at_ms: int
    received_at_ms: int
    is_refused: bool

    @property
    def counted_as(self) -> Withheld:
        """Under what it was withheld."""
        return ANALYTICS_REFUSED if self.is_refused else ANALYTICS_UNKNOWN


class NeverSeen:
    """Stands in for the memory of event ids, which knows a withheld event already."""

    def recognise(self, _event: Collected) -> None:
        """A first sighting."""


NEVER_SEEN: Final = NeverSeen()


class Parking:
    """The pointers of one lane; those of people of whom a decision came are due to be looked at."""

    __slots__ = ("_by_pid", "_changed", "_ends", "due", "generation", "limit_ms")

    def __init__(self, generation: int, limit_ms: int) -> None:
        self.generation = generation
        self.limit_ms = limit_ms
        self.due: dict[bytes, None] = {}
        self._by_pid: dict[bytes, list[Pointer]] = {}
        self._changed: dict[bytes, None] = {}
        self._ends: list[tuple[int, bytes]] = []  # a heap: when some of a person's are over

    def __len__(self) -> int:
        return sum(len(pointers) for pointers in self._by_pid.values())

    def park(self, pid: bytes, event: Stamped, offset: int, withheld: Withheld) -> None:
        """Remember where the withheld `event` lies, unless nothing can release it."""
        if withheld is ERASED or not self.limit_ms:
            return
        pointers = self._by_pid.setdefault(pid, [])
        refused = withheld is ANALYTICS_REFUSED
        pointers.append(Pointer(offset, event.occurred_at_ms, event.received_at_ms, refused))
        if len(pointers) == 1:
            heappush(self._ends, (event.received_at_ms + self.limit_ms, pid))
        elif len(pointers) > MOST_A_PERSON:
            del pointers[0]
        self._changed[pid] = None

    def look_at(self, pid: bytes) -> None:
        """A decision of this person was applied."""
        if pid in self._by_pid:
            self.due[pid] = None

    def released(self, person: Person, gate: Gate) -> list[Pointer]:
        """Of the person's withheld events those that a grant allows by now. They stay parked."""
        undecided = not person.consents and person.kinship is None
        if undecided or person.erased_at_ms is not None:
            return []
        # Whatever the basis: one that was configured anew would release without anybody's grant.
        by_grant = Gate(counts=False, profiles=False, late_grant_ms=gate.late_grant_ms)
        pointers = self._by_pid.get(person.pid, ())
        return [each for each in pointers if gate_by_consent(by_grant, person, each).counts]

    def take(self, pid: bytes, pointer: Pointer) -> None:
        """The event is no longer parked."""
        pointers = self._by_pid[pid]
        pointers.remove(pointer)
        if not pointers:
            del self._by_pid[pid]
        self._changed[pid] = None

    def forget(self, pid: bytes) -> None:
        """Nothing of this person is parked any more."""
        if self._by_pid.pop(pid, None) is not None:
            self._changed[pid] = None
        self.due.pop(pid, None)

    def expire(self, now_ms: int) -> int:
        """Forget what is over at `now_ms`, a time of `received_at`; how many these were."""
        ends = self._ends
        expired = 0
        while ends and ends[0][0] < now_ms:
            _, pid = heappop(ends)
            pointers = self._by_pid.get(pid)
            if pointers is None:
                continue
            left = [each for each in pointers if each.received_at_ms + self.limit_ms >= now_ms]
            expired += len(pointers) - len(left)
            if not left:
                self.forget(pid)
                continue
            self._by_pid[pid] = left
            self._changed[pid] = None
            heappush(ends, (min(each.received_at_ms for each in left) + self.limit_ms, pid))
        return expired

    def take_changed(self) -> Iterator[tuple[bytes, Parked | None]]:
        """Every person of whom something changed since the last call; None: nothing is left."""
        changed, self._changed = self._changed, {}
        for pid in changed:
            pointers = self._by_pid.get(pid)
            packed = b"".join([_pack(*each) for each in pointers]) if pointers else b""
            yield pid, Parked(self.generation, packed) if pointers else None

    def restore(self, pid: bytes, parked: Parked) -> None:
        """Remember what was written; of an older generation nothing, and that is written instead.

        Whatever was applied without being looked at is due again.
        """
        self._changed.pop(pid, None)
        if parked.generation != self.generation or not self.limit_ms:
            self._changed[pid] = None
            return
        pointers = [Pointer(*each) for each in _POINTER.iter_unpack(parked.events)]
        self._by_pid[pid] = pointers
        self.due[pid] = None
        first_ms = min(each.received_at_ms for each in pointers)
        heappush(self._ends, (first_ms + self.limit_ms, pid))
