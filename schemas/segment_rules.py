"""Which segments is a person in at a time, and when may time alone change that?

Definitions are compiled once, to questions about a person (schemas/segment_questions.py) and to
what follows from the answers (schemas/segment_tables.py); no text is ever run. Each condition
answers twice: whether it holds at `now_ms`, and until when that holds if nothing more becomes known
of the person. A window's edge, a consent that begins or ends, a day that fills: all of them can be
told in advance, so a person who will leave by time passing is woken then, and nobody is polled. Of
`all` and `any` only as much counts as decides them, what is cheap first: while a condition that
decides holds, the others do not matter.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.consent import Basis, allowed_now_in_all, decisions_on
from schemas.decisions import consents_on_topic
from schemas.segment_computed import SINCE, amount_of, computed_rule, events_asked
from schemas.segment_facts import (
    MICRO,
    NEVER,
    Answer,
    Facts,
    Look,
    Rule,
    bounds_of,
    count_in_window,
    entries_of,
    trait_rule,
    window_ms,
)
from schemas.segment_leaves import AGES, MEASURED
from schemas.segment_questions import (
    BITS_EACH,
    Comparison,
    HowMuch,
    HowOften,
    Question,
    Whether,
)
from schemas.segment_tables import NOBODY, Tables, Tree, branch, leaf, negated
from schemas.segments import Condition, Segment
from schemas.subjects import Consent
from schemas.traits import SHIPPED, Measures

_DEAR = 10
"""A question that reads the person's events is asked only where the cheaper ones leave it open."""
PERSONALISATION = "personalisation"


@dataclass(frozen=True, slots=True)
class Compiled:
    """A set of definitions, ready to be asked."""

    ids: tuple[str, ...]
    _tables: Tables
    _personalisation: Basis
    is_measured: bool = False
    """True where a condition asks for what goes by Measures."""

    def evaluate(
        self, facts: Facts, now_ms: int, groups: Sequence[Sequence[Consent]] | None = None
    ) -> tuple[frozenset[str], int | None]:
        """The segments that the person is in at `now_ms`, and the earliest time at which that may
        change although nothing more becomes known of them; None if it cannot.

        `groups` are the decisions under each of their pids, where they have several. Whoever does
        not allow personalisation now is in none (docs/consent.md).
        """
        look = Look(facts, (facts.consents,) if groups is None else groups, now_ms)
        members, until_ms = self._tables.evaluate(look)
        if members and look.has_decided:
            decided = [decisions_on(_ABOUT, group) for group in look.groups]
            allowed, its_ms = _allowed(self._personalisation, decided, now_ms)
            if not allowed:
                return NOBODY, None if its_ms == NEVER else its_ms
            until_ms = min(until_ms, its_ms)
        elif members and self._personalisation == "consent":
            return NOBODY, None  # unknown means no, until a decision comes
        return members, None if until_ms == NEVER else until_ms


_ABOUT = f"purpose/{PERSONALISATION}"


def compile_segments(
    segments: Sequence[Segment], bases: Mapping[str, Basis], measures: Measures = SHIPPED
) -> Compiled:
    """The rules of `segments`, which parse_segments accepted, under each purpose's legal basis;
    scores and favourites go by `measures`.

    A purpose without a basis is allowed to nobody who did not say yes.
    """
    compiler = _Compiler(bases, measures)
    for segment in segments:
        compiler.names(segment.condition)
    for segment in segments:
        compiler.begin(segment.id)
        compiler.trees[segment.id] = compiler.tree(segment.condition)[1]
    first = compiler.ready()
    return Compiled(
        tuple(segment.id for segment in segments),
        Tables(
            [
                (segment.id, compiler.trees[segment.id], compiler.compared(segment.id))
                for segment in segments
            ],
            first,
        ),
        bases.get(PERSONALISATION, "consent"),
        compiler.is_measured,
    )


class _Compiler:
    def __init__(self, bases: Mapping[str, Basis], measures: Measures) -> None:
        self.bases = bases
        self.measures = measures
        self.trees: dict[str, Tree] = {}
        self._often = HowOften()
        self._amounts: dict[str, HowMuch] = {}
        self._first: list[Question] = []
        self._leaves: dict[str, tuple[int, Comparison]] = {}  # by condition, with its cost
        self._compares: dict[str, set[Comparison]] = {}  # by segment
        self._builds_on: dict[str, set[str]] = {}
        self._id = ""
        self.is_measured = False
        self._names: set[str] = set()

    def names(self, condition: Condition) -> None:
        """Learn which events are asked for: of the others nothing has to be looked up."""
        for inner in (*condition.get("all", ()), *condition.get("any", ())):
            self.names(inner)
        if "not" in condition:
            self.names(condition["not"])
        if condition.get("where"):
            self._names.add(condition["event"])
        if "computed" in condition:
            self._names.update(events_asked(condition))
            self.is_measured |= condition["computed"] in MEASURED

    def begin(self, id_: str) -> None:
        """What is compared from now on is compared by this segment."""
        self._id, self._compares[id_], self._builds_on[id_] = id_, set(), set()

    def compared(self, id_: str) -> frozenset[Comparison]:
        """All that a segment may have to compare, with those that it builds on."""
        return frozenset(self._compares[id_]).union(*map(self.compared, self._builds_on[id_]))

    def ready(self) -> list[Question]:
        """Everything that is asked is known; which of it is asked of everybody."""
        self._often.ready()
        for question in self._amounts.values():
            question.ready()
        return [*self._amounts.values(), *self._first]

    def tree(self, condition: Condition) -> tuple[int, Tree]:
        """(roughly what it costs, the condition)."""
        if "all" in condition:
            return self._branch(condition["all"], decides=False)
        if "any" in condition:
            return self._branch(condition["any"], decides=True)
        if "not" in condition:
            cost, inner = self.tree(condition["not"])
            return cost, negated(inner)
        if "segment" in condition:
            trees, id_ = self.trees, condition["segment"]
            self._builds_on[self._id].add(id_)
            return 8, lambda known: trees[id_](known)
        key = json.dumps(condition, sort_keys=True)
        if key not in self._leaves:
            self._leaves[key] = self._compare(condition, key, BITS_EACH * len(self._leaves))
        cost, comparison = self._leaves[key]
        self._compares[self._id].add(comparison)
        return cost, leaf(comparison)

    def _branch(self, conditions: Sequence[Condition], *, decides: bool) -> tuple[int, Tree]:
        inner = sorted((self.tree(each) for each in conditions), key=lambda each: each[0])
        return sum(cost for cost, _ in inner), branch([tree for _, tree in inner], decides=decides)

    def _compare(self, condition: Condition, key: str, place: int) -> tuple[int, Comparison]:
        if "event" in condition and not condition.get("where"):
            length_ms, bounds = window_ms(condition), bounds_of(condition, default_low=1)
            return _DEAR, self._often.compare(condition["event"], length_ms, *bounds, place)
        name = condition.get("computed")
        if name in (*AGES, "spent", "refunded"):
            return 3, self._how_much(condition, name, place)
        cost, rule = self._rule(condition)
        question = Whether()
        if cost < _DEAR:
            self._first.append(question)
        return cost, question.compare(key, rule, place)

    def _how_much(self, condition: Condition, name: str, place: int) -> Comparison:
        currency, is_age = condition.get("currency", ""), name in AGES
        about = f"{name} {currency}"
        question = self._amounts.get(about)
        if question is None:
            of = SINCE[name] if is_age else amount_of(name, currency)
            question = self._amounts[about] = HowMuch(about, of, in_days=is_age)
        return question.compare(*bounds_of(condition, factor=1 if is_age else MICRO), place)

    def _rule(self, condition: Condition) -> tuple[int, Rule]:
        if "event" in condition:
            return _DEAR, self._event(condition)
        if "computed" in condition:
            return computed_rule(condition, self._names, self.measures)
        if "trait" in condition:
            return 2, trait_rule(condition)
        return 4, self._consent(condition["consent"])

    def _event(self, condition: Condition) -> Rule:
        name, names = condition["event"], self._names
        length_ms = window_ms(condition)
        low, high = bounds_of(condition, default_low=1)
        where = condition["where"]
        category, product, campaign = (
            _texts(where.get(key)) for key in ("category", "product_id", "campaign")
        )

        def event(look: Look) -> Answer:
            entries = entries_of(look, names).get(name)
            if entries is None:
                return low == 0, NEVER
            since_ms = look.now_ms - length_ms
            times = [
                entry.occurred_at_ms
                for entry in entries[1]
                if entry.occurred_at_ms > since_ms
                and (category is None or entry.category in category)
                and (product is None or entry.product in product)
                and (campaign is None or entry.campaign in campaign)
            ]
            return count_in_window(times, 0, low, high, length_ms)

        return event

    def _consent(self, about: str) -> Rule:
        if "/" in about:
            channel, _, topic = about.partition("/")

            def subscribed(look: Look) -> Answer:
                if not look.has_decided:
                    return False, NEVER
                decided = [consents_on_topic(channel, topic, group) for group in look.groups]
                return _allowed("consent", decided, look.now_ms)

            return subscribed
        basis, subject_of = self.bases.get(about, "consent"), f"purpose/{about}"

        def allowed(look: Look) -> Answer:
            if not look.has_decided:
                return basis != "consent", NEVER
            decided = [decisions_on(subject_of, group) for group in look.groups]
            return _allowed(basis, decided, look.now_ms)

        return allowed


def _allowed(basis: Basis, groups: Sequence[Sequence[Consent]], now_ms: int) -> Answer:
    until_ms = NEVER
    if not any(groups):
        return basis != "consent", NEVER
    for group in groups:
        for decision in group:
            for at_ms in (decision.valid_from_ms, decision.valid_to_ms):
                if at_ms is not None and now_ms < at_ms < until_ms:
                    until_ms = at_ms
    return allowed_now_in_all(basis, groups, now_ms), until_ms


def _texts(value: Any) -> frozenset[str] | None:
    if value is None:
        return None
    return frozenset((value,) if isinstance(value, str) else value)
