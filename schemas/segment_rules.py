"""Which segments is a person in at a time, and when may time alone change that?

Definitions are compiled once, to closures; no text is ever run. Each closure answers twice: whether
its condition holds at `now_ms`, and until when that holds if nothing more becomes known of the
person. A window's edge, a consent that begins or ends, a day that fills: all of them can be told in
advance, so a person who will leave by time passing is woken then, and nobody is polled. Of `all`
and `any` only as much is asked as decides them, what is cheap first: while a condition that decides
holds, the others do not matter.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schemas.consent import Basis, allowed_now_in_all, decisions_on
from schemas.decisions import consents_on_topic
from schemas.segment_computed import computed_rule, events_asked
from schemas.segment_facts import (
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
from schemas.segment_leaves import MEASURED
from schemas.segments import Condition, Segment, segments_in
from schemas.subjects import Consent
from schemas.traits import SHIPPED, Measures

PERSONALISATION = "personalisation"


@dataclass(frozen=True, slots=True)
class Compiled:
    """A set of definitions, ready to be asked."""

    ids: tuple[str, ...]
    _rules: Mapping[str, Rule]
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
        until_ms = NEVER
        members: list[str] = []
        for id_, rule in self._rules.items():
            holds, its_ms = rule(look)
            if holds:
                members.append(id_)
            if its_ms < until_ms:
                until_ms = its_ms
        if members and look.has_decided:
            decided = [decisions_on(_ABOUT, group) for group in look.groups]
            allowed, its_ms = _allowed(self._personalisation, decided, now_ms)
            if not allowed:
                return _NOBODY, None if its_ms == NEVER else its_ms
            until_ms = min(until_ms, its_ms)
        elif members and self._personalisation == "consent":
            return _NOBODY, None  # unknown means no, until a decision comes
        return frozenset(members) if members else _NOBODY, None if until_ms == NEVER else until_ms


_ABOUT = f"purpose/{PERSONALISATION}"
_NOBODY: frozenset[str] = frozenset()


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
        rule = compiler.rule(segment.condition)[1]
        is_shared = any(segment.id in segments_in(other.condition) for other in segments)
        compiler.rules[segment.id] = compiler.member(segment.id, rule) if is_shared else rule
    return Compiled(
        tuple(segment.id for segment in segments),
        compiler.rules,
        bases.get(PERSONALISATION, "consent"),
        compiler.is_measured,
    )


class _Compiler:
    def __init__(self, bases: Mapping[str, Basis], measures: Measures) -> None:
        self.bases = bases
        self.measures = measures
        self.rules: dict[str, Rule] = {}
        self.is_measured = False
        self._names: set[str] = set()

    def names(self, condition: Condition) -> None:
        """Learn which events are asked for: of the others nothing has to be looked up."""
        for inner in (*condition.get("all", ()), *condition.get("any", ())):
            self.names(inner)
        if "not" in condition:
            self.names(condition["not"])
        if "event" in condition:
            self._names.add(condition["event"])
        if "computed" in condition:
            self._names.update(events_asked(condition))
            self.is_measured |= condition["computed"] in MEASURED

    def rule(self, condition: Condition) -> tuple[int, Rule]:
        """(roughly what it costs, the rule)."""
        if "all" in condition:
            return self._branch(condition["all"], decides=False)
        if "any" in condition:
            return self._branch(condition["any"], decides=True)
        if "not" in condition:
            cost, inner = self.rule(condition["not"])
            return cost, _negated(inner)
        if "event" in condition:
            return 10, self._event(condition)
        if "computed" in condition:
            return computed_rule(condition, self._names, self.measures)
        if "trait" in condition:
            return 2, trait_rule(condition)
        if "consent" in condition:
            return 4, self._consent(condition["consent"])
        return 8, self._segment(condition["segment"])

    def _branch(self, conditions: Sequence[Condition], *, decides: bool) -> tuple[int, Rule]:
        inner = sorted((self.rule(each) for each in conditions), key=lambda each: each[0])
        rules = tuple(rule for _, rule in inner)

        def branch(look: Look) -> Answer:
            until_ms = NEVER
            for rule in rules:
                answer = rule(look)
                if answer[0] is decides:
                    return answer
                if answer[1] < until_ms:
                    until_ms = answer[1]
            return not decides, until_ms

        return sum(cost for cost, _ in inner), branch

    def member(self, id_: str, rule: Rule) -> Rule:
        """`rule` asked once an evaluation, however many segments build on it."""

        def member(look: Look) -> Answer:
            answer = look.found.get(id_)
            if answer is None:
                answer = look.found[id_] = rule(look)
            return answer

        return member

    def _segment(self, id_: str) -> Rule:
        rules = self.rules
        return lambda look: rules[id_](look)

    def _event(self, leaf: Condition) -> Rule:
        name, names = leaf["event"], self._names
        length_ms = window_ms(leaf)
        low, high = bounds_of(leaf, default_low=1)
        where = leaf.get("where", {})
        category, product, campaign = (
            _texts(where.get(key)) for key in ("category", "product_id", "campaign")
        )
        is_any = not where

        def event(look: Look) -> Answer:
            entries = entries_of(look, names).get(name)
            if entries is None:
                return low == 0, NEVER
            since_ms = look.now_ms - length_ms
            if is_any:
                times, first = entries[0], bisect_right(entries[0], since_ms)
            else:
                first = 0
                times = [
                    entry.occurred_at_ms
                    for entry in entries[1]
                    if entry.occurred_at_ms > since_ms
                    and (category is None or entry.category in category)
                    and (product is None or entry.product in product)
                    and (campaign is None or entry.campaign in campaign)
                ]
            return count_in_window(times, first, low, high, length_ms)

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


def _negated(inner: Rule) -> Rule:
    def negated(look: Look) -> Answer:
        holds, until_ms = inner(look)
        return not holds, until_ms

    return negated


def _texts(value: Any) -> frozenset[str] | None:
    if value is None:
        return None
    return frozenset((value,) if isinstance(value, str) else value)
