"""By which definitions does a lane decide on segments, and whom does it still have to look at?

A switch to other definitions happens at one point of the lane's log. From there on everybody who
changes is decided by them; the others are looked at a slice a transaction, so that a lane with a
million people stalls for nobody. What is in force is written in the transaction of the switch, and
whether all were looked at in that of the last slice: after a crash in between everybody is looked
at again, which changes nothing for those who were.
"""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from schemas.consent import Basis
from schemas.persons import VISIT_GAP_MS
from schemas.segment_records import SegmentsDefined, SegmentsInForce
from schemas.segment_rules import Compiled, compile_segments
from schemas.segments import Segment, SegmentsInvalid, parse_segments, with_built_in
from schemas.traits import SHIPPED, Measures
from streams.rules.gate import groups_of
from streams.rules.person import Person
from streams.rules.whole import is_whole, whole_of

PEOPLE_A_SLICE = 2_000


class Membership:
    """The segments of one lane."""

    __slots__ = (
        "_bases",
        "_compiled",
        "_force",
        "_is_first",
        "_measures",
        "_sliced_seq",
        "_visit_gap_ms",
        "_waiting",
        "is_fresh",
    )

    def __init__(
        self,
        bases: Mapping[str, Basis],
        force: SegmentsInForce | None = None,
        measures: Measures = SHIPPED,
        visit_gap_ms: int = VISIT_GAP_MS,
    ) -> None:
        self._bases = json.dumps(dict(sorted(bases.items())))
        self._measures = measures
        self._visit_gap_ms = visit_gap_ms
        self._is_first = force is None
        known = SegmentsInForce(0, 0, "[]", "", True) if force is None else force
        self._compiled = self._compile(read_definitions(known.definitions))
        decided_by = (self._bases, self._written_measures())
        is_filled = known.is_filled and (known.bases, known.measures) == decided_by
        self._force = SegmentsInForce(
            known.version,
            known.defined_at_ms,
            known.definitions,
            self._bases,
            is_filled,
            self._written_measures(),
        )
        self._waiting: list[bytes] = []
        self._sliced_seq = -1
        self.is_fresh = self._force != force
        """True while what is in force stands in no record yet."""

    @property
    def version(self) -> int:
        return self._force.version

    @property
    def is_waiting(self) -> bool:
        """True while somebody was not yet looked at by what is in force."""
        return bool(self._waiting)

    def look_at(self, people: Iterable[bytes]) -> None:
        """Everybody has to be looked at, unless they all were."""
        if not self._force.is_filled:
            self._waiting = list(people)

    def switch(self, defined: SegmentsDefined, people: Iterable[bytes]) -> bool:
        """These definitions are in force; False where they were already.

        The order of the log decides, not the version: a log that was lost begins at 1 again.
        Raises SegmentsInvalid or ValueError when they cannot be read.
        """
        segments = read_definitions(defined.definitions)
        known = self._force
        if (defined.version, defined.definitions) == (known.version, known.definitions):
            return False
        self._compiled = self._compile(segments)
        self._force = SegmentsInForce(
            defined.version,
            defined.defined_at_ms,
            defined.definitions,
            self._bases,
            False,
            self._written_measures(),
        )
        self.is_fresh = True
        self.look_at(people)
        return True

    def take_fresh(self) -> SegmentsInForce | None:
        """What is in force, where it is not yet written; call once a transaction."""
        if not self._waiting and not self._force.is_filled:
            self._force = msgspec.structs.replace(self._force, is_filled=True)
            self.is_fresh, self._is_first = True, False
        if not self.is_fresh:
            return None
        self.is_fresh = False
        return self._force

    def is_waiting_in(self, seq: int) -> bool:
        """True while transaction `seq` has not yet had its slice of those who wait."""
        return bool(self._waiting) and self._sliced_seq != seq

    def slice(self, people: Mapping[bytes, Person], now_ms: int, seq: int) -> list[Person]:
        """Of the next few who wait, those for whom something changes. They wait no more."""
        self._sliced_seq = seq
        taken, self._waiting = self._waiting[-PEOPLE_A_SLICE:], self._waiting[:-PEOPLE_A_SLICE]
        found: list[Person] = []
        for pid in taken:
            person = people.get(pid)
            if person is None or person.erased_at_ms is not None:
                continue
            segments, next_ms = self.evaluate(person, now_ms)
            # Records of before there were definitions are read anew, to be listed by segment.
            is_unlisted = self._is_first and bool(segments)
            is_in_time = next_ms is None or 0 < person.wake_at_ms <= next_ms
            if segments != person.segments or is_unlisted or not is_in_time:
                found.append(person)
        return found

    def evaluate(self, person: Person, now_ms: int) -> tuple[tuple[str, ...], int | None]:
        """The ids of the segments that `person` is in, sorted, and when to look again.

        A pid that belongs to another's person is in none: that person is.
        """
        if person.kinship is None:
            members, next_ms = self._compiled.evaluate(person, now_ms)
        elif is_whole(person):
            whole = whole_of(person, self._visit_gap_ms)
            members, next_ms = self._compiled.evaluate(whole, now_ms, groups_of(person))
        else:
            return (), None
        return _in_order(members), next_ms

    def _compile(self, segments: tuple[Segment, ...]) -> Compiled:
        return compile_segments(with_built_in(segments), json.loads(self._bases), self._measures)

    def _written_measures(self) -> str:
        return self._measures.written() if self._compiled.is_measured else ""


@lru_cache(maxsize=10_000)  # many people are in the same ones
def _in_order(members: frozenset[str]) -> tuple[str, ...]:
    return tuple(sorted(members))


def read_definitions(definitions: str) -> tuple[Segment, ...]:
    """The segments of a record. Raises SegmentsInvalid or ValueError."""
    found: Any = json.loads(definitions)
    return parse_segments(found)


__all__ = ["Membership", "SegmentsInvalid", "read_definitions"]
