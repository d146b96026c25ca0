"""Which segments follow from what was asked, and until when?

A segment is a tree of comparisons, of which each takes two bits (schemas/segment_questions.py).
What follows from these bits is worked out once and kept, in tables of segments that compare few
things together: such a table is soon complete, whoever comes, while in one table of everything
almost everybody would be a row of their own.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from schemas.segment_facts import NEVER, Look
from schemas.segment_questions import BOTH_BITS, Comparison, Question, Term, Verdict

MOST_COMPARISONS = 8
"""Segments that make so few comparisons together share a table; one that makes more has its own."""
MOST_ROWS = 5_000
"""A table of more is forgotten, and fills anew."""
NOBODY: frozenset[str] = frozenset()

Tree = Callable[[int], Verdict | Question]
"""A condition: what it says by these bits, or which question it needs besides."""


def leaf(comparison: Comparison) -> Tree:
    """One comparison."""
    question, _, place, below, within, above = comparison
    found: tuple[Verdict | Question, ...] = (question, below, within, above)
    return lambda bits: found[bits >> place & BOTH_BITS]


def branch(trees: Sequence[Tree], *, decides: bool) -> Tree:
    """`all` (False decides) or `any` (True does) of these, asked in this order as far as needed:
    while one that decides holds, the others do not matter."""

    def decided(bits: int) -> Verdict | Question:
        ends: tuple[Term, ...] = ()
        for tree in trees:
            found = tree(bits)
            if isinstance(found, Question) or found[0] is decides:
                return found
            ends += found[1]
        return not decides, ends

    return decided


def negated(tree: Tree) -> Tree:
    """What does not hold, and as long."""

    def decided(bits: int) -> Verdict | Question:
        found = tree(bits)
        return found if isinstance(found, Question) else (not found[0], found[1])

    return decided


class _Row(NamedTuple):
    """What follows from some bits: who has to be asked besides, or the segments (a bit each) and
    until when."""

    question: Question | None
    members: int = 0
    ends: tuple[Term, ...] = ()


class _Table:
    """Some segments that compare few things together."""

    __slots__ = ("_trees", "compared", "mask", "rows")

    def __init__(self) -> None:
        self.compared: set[Comparison] = set()
        self.mask = 0
        self.rows: dict[int, _Row] = {}
        self._trees: list[tuple[int, Tree]] = []

    def add(self, member: int, tree: Tree, compared: Iterable[Comparison]) -> None:
        self._trees.append((member, tree))
        self.compared.update(compared)
        self.mask = sum(BOTH_BITS << each.place for each in self.compared)

    def row(self, bits: int) -> _Row:
        """Of bits that were not met yet; it is kept."""
        if len(self.rows) >= MOST_ROWS:
            self.rows.clear()
        row = self.rows[bits] = self._row(bits)
        return row

    def _row(self, bits: int) -> _Row:
        members = 0
        ends: dict[tuple[str, int], int] = {}
        for member, tree in self._trees:
            found = tree(bits)
            if isinstance(found, Question):
                return _Row(found)
            if found[0]:
                members |= member
            for about, k, ms in found[1]:
                ends[about, k] = min(ms, ends.get((about, k), ms))
        return _Row(None, members, tuple((*about, ms) for about, ms in ends.items()))


class Tables:
    """All segments of a set."""

    __slots__ = ("_first", "_ids", "_sets", "_tables")

    def __init__(
        self,
        segments: Iterable[tuple[str, Tree, frozenset[Comparison]]],
        first: Sequence[Question],
    ) -> None:
        """`first`: what is asked of everybody. The rest is asked where it matters."""
        self._first = first
        self._ids: list[str] = []
        self._sets: dict[int, frozenset[str]] = {0: NOBODY}
        self._tables: list[_Table] = []
        for id_, tree, compared in segments:
            self._table_for(compared).add(1 << len(self._ids), tree, compared)
            self._ids.append(id_)

    def _table_for(self, compared: frozenset[Comparison]) -> _Table:
        """One with room, and of these the one that compares most of the same: what it compares
        with one thing takes few rows, since whoever has five of it has three."""
        about = {each.about for each in compared}

        def shared(table: _Table) -> int:
            return len(about & {each.about for each in table.compared})

        fits = [t for t in self._tables if len(t.compared | compared) <= MOST_COMPARISONS]
        if not fits:
            self._tables.append(_Table())
            return self._tables[-1]
        return max(fits, key=shared)

    def evaluate(self, look: Look) -> tuple[frozenset[str], int]:
        """The segments that `look` is in, and until when, NEVER included."""
        bits = members = 0
        until_ms = NEVER
        for question in self._first:
            bits |= question.ask(look)
        numbers = look.numbers
        for table in self._tables:
            known = bits & table.mask
            row = table.rows.get(known) or table.row(known)
            while (asked := row.question) is not None:
                bits |= asked.ask(look)
                known = bits & table.mask
                row = table.rows.get(known) or table.row(known)
            _, its_members, ends = row
            members |= its_members
            for about, k, ms in ends:
                at_ms = look.times[about][-k] + ms if k else numbers[about] + ms
                if at_ms < until_ms:
                    until_ms = at_ms
        return self._sets.get(members) or self._set(members), until_ms

    def _set(self, members: int) -> frozenset[str]:
        if members and len(self._sets) >= MOST_ROWS:
            self._sets.clear()
        ids = frozenset(id_ for at, id_ in enumerate(self._ids) if members >> at & 1)
        self._sets[members] = ids
        return ids
