"""Does what a person's events add up to fit, and until when?

The leaves that ask for a computed trait (docs/traits.md). A profile works the same numbers out
(schemas/traits.py); a segment has to know besides when time alone changes them: an event leaves its
window, a day fills, a score of recency falls, another category becomes the favourite.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain

from schemas.segment_facts import (
    ANY,
    DAY_MS,
    MICRO,
    NEVER,
    Answer,
    Facts,
    Look,
    Rule,
    bounds_of,
    count_in_window,
    entries_of,
    window_ms,
)
from schemas.segment_leaves import AMOUNTS, COUNTS, IN_WINDOWS, SCORES, TEXTS, WINDOWS
from schemas.segments import Condition
from schemas.traits import (
    ADDED,
    BEST,
    LIKES,
    VIEWED,
    WORST,
    Measures,
    favourite_of,
    liked_times,
    paid_by_currency,
    rank_of,
)

_FAVOURITE = "favourite_category"
_EVENT_OF = {"events": ANY, "product_views": VIEWED, "cart_adds": ADDED}


def events_asked(leaf: Condition) -> Iterable[str]:
    """The names of the events that have to be looked up for a computed leaf."""
    name = leaf["computed"]
    if name == _FAVOURITE:
        return LIKES
    return (_EVENT_OF[name],) if _is_in_window(leaf) and name in _EVENT_OF else ()


def computed_rule(leaf: Condition, names: Collection[str], measures: Measures) -> tuple[int, Rule]:
    """(roughly what it costs, the rule). `names`: of all events that any condition asks for."""
    name: str = leaf["computed"]
    if name in TEXTS:
        values = frozenset(leaf["in"] if "in" in leaf else [leaf["is"]])
        if name == _FAVOURITE:
            return 12, _favourite(values, names, measures.history_days * DAY_MS)
        return 2, _circumstance(name, values)
    if name in AMOUNTS:
        return 3, _average(leaf["currency"], *bounds_of(leaf, factor=MICRO))
    low, high = bounds_of(leaf)
    if name in SCORES:
        return 3, _score(name, leaf.get("currency", ""), low, high, measures)
    if name in IN_WINDOWS and _is_in_window(leaf):
        length_ms = window_ms(leaf)
        if name in _EVENT_OF:
            return 10, _events_lately(_EVENT_OF[name], low, high, length_ms, names)
        return 6, _lately(_TIMES_OF[name], low, high, length_ms)
    if name in COUNTS:
        return 1, _count(name, low, high)
    return 3, _age(SINCE[name], low, high)


def _is_in_window(leaf: Condition) -> bool:
    return any(key in leaf for key in WINDOWS)


def _count(name: str, low: int, high: int) -> Rule:
    if name == "visits":
        return lambda look: (low <= len(look.facts.visits_ms) <= high, NEVER)

    def count(look: Look) -> Answer:
        return low <= getattr(look.facts, name) <= high, NEVER

    return count


def _age(since: Callable[[Facts], int | None], low: int, high: int) -> Rule:
    """Whole days that have passed; of what never was, no comparison is true."""

    def age(look: Look) -> Answer:
        at_ms = since(look.facts)
        if at_ms is None:
            return False, NEVER
        days = max(0, (look.now_ms - at_ms) // DAY_MS)  # an event's clock may be ahead of ours
        if days < low:
            return False, at_ms + low * DAY_MS if low <= high else NEVER
        if days > high:
            return False, NEVER
        return True, NEVER if high == NEVER else at_ms + (high + 1) * DAY_MS

    return age


def amount_of(name: str, currency: str) -> Callable[[Facts], int | None]:
    """What was `spent` or `refunded`; None of a currency that was never used."""
    if name == "spent":
        return lambda facts: facts.spent.get(currency)
    return lambda facts: facts.refunded.get(currency)


def _average(currency: str, low: int, high: int) -> Rule:
    """No comparison is true of an average without an order."""

    def average(look: Look) -> Answer:
        facts = look.facts
        orders = [each for each in facts.purchases if not each.is_refund]
        paid = paid_by_currency(facts.orders, facts.spent, orders)
        if paid is None or currency not in paid:
            return False, NEVER
        total, count = paid[currency]
        return low * count <= total <= high * count, NEVER

    return average


def _score(name: str, currency: str, low: int, high: int, measures: Measures) -> Rule:
    """Scores are steps of what they measure, so a range of scores is a range of that."""
    steps = measures.thresholds
    if name == "recency":  # the fewer days, the better
        days = steps.recency_days
        return _age(
            _last_order_ms,
            days[BEST - 1 - high] + 1 if high < BEST else 0,
            days[BEST - low] if low > WORST else NEVER,
        )
    if name == "frequency":
        least, most = _amounts_scoring(steps.orders, low, high)

        def frequency(look: Look) -> Answer:
            facts = look.facts
            return least <= facts.orders <= most and _last_order_ms(facts) is not None, NEVER

        return frequency
    if currency not in steps.spent_micro:
        return lambda _look: (False, NEVER)
    least, most = _amounts_scoring(steps.spent_micro[currency], low, high)

    def monetary(look: Look) -> Answer:
        facts = look.facts
        spent = facts.spent.get(currency)
        if spent is None or _last_order_ms(facts) is None:
            return False, NEVER
        return least <= max(0, spent - facts.refunded.get(currency, 0)) <= most, NEVER

    return monetary


def _amounts_scoring(steps: Sequence[int], low: int, high: int) -> tuple[int, int]:
    """The least and the most that score `low` to `high`; `steps` as in Thresholds."""
    return (
        steps[BEST - low] if low > WORST else 0,
        steps[BEST - 1 - high] - 1 if high < BEST else NEVER,
    )


def _events_lately(event: str, low: int, high: int, length_ms: int, names: Collection[str]) -> Rule:
    def lately(look: Look) -> Answer:
        entries = entries_of(look, names).get(event)
        times: Sequence[int] = () if entries is None else entries[0]
        first = bisect_right(times, look.now_ms - length_ms)
        return count_in_window(times, first, low, high, length_ms)

    return lately


def _lately(
    times_of: Callable[[Facts], Sequence[int]], low: int, high: int, length_ms: int
) -> Rule:
    def lately(look: Look) -> Answer:
        times = times_of(look.facts)
        first = bisect_right(times, look.now_ms - length_ms)
        return count_in_window(times, first, low, high, length_ms)

    return lately


def _circumstance(name: str, values: frozenset[str]) -> Rule:
    def circumstance(look: Look) -> Answer:
        seen = look.facts.circumstances.get(name)
        return seen is not None and seen[2] in values, NEVER

    return circumstance


def _favourite(values: frozenset[str], names: Collection[str], kept_ms: int) -> Rule:
    def favourite(look: Look) -> Answer:
        found = look.favourite
        if found is None:
            by_name = entries_of(look, names)
            liked = chain.from_iterable(by_name[name][1] for name in LIKES if name in by_name)
            found = look.favourite = _favourite_until(
                liked_times(liked, look.now_ms - kept_ms), kept_ms
            )
        return found[0] in values, found[1]

    return favourite


def _favourite_until(liked: Mapping[str, list[int]], kept_ms: int) -> tuple[str | None, int]:
    """The favourite, and a time before which no other takes its place: what is known of it has
    to be forgotten `kept_ms` later, one by one, until another is met as often."""
    name = favourite_of(liked)
    if name is None:
        return None, NEVER
    own = sorted(liked[name])
    gone = len(own)
    for other, times in liked.items():
        if other != name:
            # At as many of both, the one that was met last is it, and then the first by name.
            is_first = rank_of(name, own)[1:] < rank_of(other, times)[1:]
            gone = min(gone, len(own) - len(times) + is_first)
    return name, own[gone - 1] + kept_ms


def _last_order_ms(facts: Facts) -> int | None:
    newest_ms = None
    for each in facts.purchases:
        if not each.is_refund and (newest_ms is None or each.occurred_at_ms > newest_ms):
            newest_ms = each.occurred_at_ms
    return newest_ms


SINCE: Mapping[str, Callable[[Facts], int | None]] = {
    "days_since_first_seen": lambda facts: facts.first_seen_ms if facts.events else None,
    "days_since_last_seen": lambda facts: facts.last_seen_ms if facts.events else None,
    "days_since_last_order": _last_order_ms,
}

_TIMES_OF: Mapping[str, Callable[[Facts], Sequence[int]]] = {
    "visits": lambda facts: facts.visits_ms,
    "orders": lambda facts: sorted(
        each.occurred_at_ms for each in facts.purchases if not each.is_refund
    ),
}
