"""What do a person's events add up to, as a tool for messages would ask?

Pure sums and counts of what is known of one whole person at a moment: worked out when they are
asked for, so none of them can be stale, and the same whatever order the events arrived in. Amounts
stay by currency: euros and dollars are never added. Definitions for operators: docs/traits.md.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from schemas.activity import MAY_PROFILE, Entry, unpack
from schemas.persons import VISIT
from schemas.subjects import Purchase, Subject

DAY_MS: Final = 86_400_000
WINDOW_DAYS: Final = (1, 7, 30)
BEST, WORST = 5, 1
"""Scores."""

VIEWED, ADDED, ORDERED = "Product Viewed", "Product Added", "Order Completed"
LIKES: Final = frozenset({VIEWED, ADDED, ORDERED})
"""The events whose category somebody seems to like."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one whole person. Amounts in millionths, times in UTC ms of the events.

    `activity` is that of the last days; `visits_ms` are the starts of visits.
    """

    orders: int
    spent: Mapping[str, int]
    refunded: Mapping[str, int]
    purchases: Sequence[Purchase]
    activity: Sequence[Entry]
    visits_ms: Sequence[int]


def facts_of(subject: Subject) -> Facts:
    """The facts in a record; of several pids, in what `whole_subject` made of them."""
    return Facts(
        subject.orders,
        {money.currency: money.amount_micro for money in subject.spent},
        {money.currency: money.amount_micro for money in subject.refunded},
        subject.purchases,
        list(unpack(subject.activity)),
        [visit[0] for visit in VISIT.iter_unpack(subject.visits)],
    )


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where a score becomes another one, from 5 downwards; below the last it is 1.

    Fixed and not quintiles of everybody: those would need everybody, and one person's score would
    change by what others do. `recency_days` at most, `orders` and `spent_micro` (by currency) at
    least.
    """

    recency_days: Sequence[int]
    orders: Sequence[int]
    spent_micro: Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Measures:
    """By what scores and favourites are told. Activity counts for `history_days`."""

    thresholds: Thresholds
    history_days: int

    def written(self) -> str:
        """As JSON: equal text is the same."""
        return json.dumps(asdict(self), sort_keys=True)


def _millions(*amounts: int) -> tuple[int, ...]:
    return tuple(each * 1_000_000 for each in amounts)


SHIPPED: Final = Measures(
    Thresholds(
        (7, 30, 90, 180),
        (16, 8, 4, 2),
        {
            "EUR": _millions(1500, 500, 150, 50),
            "USD": _millions(1500, 500, 150, 50),
            "GBP": _millions(1250, 420, 125, 42),
            "CZK": _millions(37500, 12500, 3750, 1250),
        },
    ),
    30,
)
"""Where nothing is configured (runtime/settings_traits.py)."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Recency, frequency and monetary value of somebody's orders, each 5 (best) to 1. `monetary`
    only for the currencies that have thresholds."""

    recency: int
    frequency: int
    monetary: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Counts:
    """What happened in a window that ends now."""

    events: int
    visits: int
    product_views: int
    cart_adds: int
    orders: int


@dataclass(frozen=True, slots=True)
class Computed:
    """What `compute` found. `paid` is by currency the sum and the number of orders, whose quotient
    is the average order; None where that is not known. `windows` by days; None where activity is
    not kept so long."""

    paid: Mapping[str, tuple[int, int]] | None
    days_since_last_order: int | None
    scores: Scores | None
    favourite_category: str | None
    windows: Mapping[int, Counts | None]


def compute(facts: Facts, thresholds: Thresholds, now_ms: int, history_days: int) -> Computed:
    """The traits at `now_ms`; activity is kept for `history_days`.

    What somebody viewed and did counts only where they allowed it for personalisation when it
    happened; orders and sums are kept for the counters and count all.
    """
    orders = [each for each in facts.purchases if not each.is_refund]
    allowed = [entry for entry in facts.activity if entry.flags & MAY_PROFILE]
    last_ms = max((each.occurred_at_ms for each in orders), default=None)
    days = None if last_ms is None else max(0, (now_ms - last_ms) // DAY_MS)
    return Computed(
        paid_by_currency(facts.orders, facts.spent, orders),
        days,
        None if days is None else _scores(facts, days, thresholds),
        favourite_of(liked_times(allowed, now_ms - history_days * DAY_MS)),
        {
            each: _counts(allowed, facts.visits_ms, orders, now_ms - each * DAY_MS)
            if each <= history_days
            else None
            for each in WINDOW_DAYS
        },
    )


def paid_by_currency(
    count: int, spent: Mapping[str, int], orders: Sequence[Purchase]
) -> Mapping[str, tuple[int, int]] | None:
    """The sum and the number of the orders of each currency; None where that is not known.

    `orders` are those of the `count` that were kept one by one.
    """
    if not count:
        return None
    if len(orders) < count:
        # Some are from before orders were kept one by one: their sums alone are known.
        if len(spent) != 1:
            return None
        return {currency: (micro, count) for currency, micro in spent.items()}
    paid: dict[str, tuple[int, int]] = {}
    for each in orders:
        if each.currency:
            micro, count = paid.get(each.currency, (0, 0))
            paid[each.currency] = (micro + each.amount_micro, count + 1)
    return paid


def _scores(facts: Facts, days: int, thresholds: Thresholds) -> Scores:
    kept = {
        currency: max(0, micro - facts.refunded.get(currency, 0))
        for currency, micro in sorted(facts.spent.items())
    }
    return Scores(
        BEST - sum(days > most for most in thresholds.recency_days),
        BEST - sum(facts.orders < least for least in thresholds.orders),
        {
            currency: BEST - sum(micro < least for least in thresholds.spent_micro[currency])
            for currency, micro in kept.items()
            if currency in thresholds.spent_micro
        },
    )


Rank = tuple[int, int, str]
"""Of two categories the lesser is liked more."""


def liked_times(activity: Iterable[Entry], since_ms: int) -> dict[str, list[int]]:
    """When each category was met after `since_ms`, in views, additions and orders."""
    found: dict[str, list[int]] = {}
    for entry in activity:
        if entry.category and entry.name in LIKES and entry.occurred_at_ms > since_ms:
            found.setdefault(entry.category, []).append(entry.occurred_at_ms)
    return found


def favourite_of(liked: Mapping[str, Sequence[int]]) -> str | None:
    """The category that was met most often; of several the one that was met last, and of these
    the first by name."""
    return min(liked, key=lambda name: rank_of(name, liked[name]), default=None)


def rank_of(name: str, times_ms: Sequence[int]) -> Rank:
    """Where a category stands that was met at these times."""
    return -len(times_ms), -max(times_ms), name


def _counts(
    activity: Sequence[Entry],
    visits_ms: Sequence[int],
    orders: Sequence[Purchase],
    since_ms: int,
) -> Counts:
    """What happened later than `since_ms`: something exactly a window ago has left it."""
    names = [entry.name for entry in activity if entry.occurred_at_ms > since_ms]
    return Counts(
        len(names),
        sum(at_ms > since_ms for at_ms in visits_ms),
        names.count(VIEWED),
        names.count(ADDED),
        sum(each.occurred_at_ms > since_ms for each in orders),
    )
