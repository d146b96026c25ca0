"""Are computed traits what somebody would count who has every event before them, in order?"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from runtime.settings import Settings
from runtime.settings_traits import Traits
from schemas.activity import MAY_PROFILE, Entry
from schemas.codec import SUBJECT
from schemas.events import Collected
from schemas.money import parse_micro
from schemas.persons import whole_subject
from schemas.subjects import Member, Purchase, Subject
from schemas.traits import (
    DAY_MS,
    SHIPPED,
    WINDOW_DAYS,
    Computed,
    Counts,
    Facts,
    Scores,
    Thresholds,
    compute,
    facts_of,
)
from streams.rules.admit import Rules, admit
from streams.rules.deduplicate import Memory
from streams.rules.gate import Gate
from streams.rules.outcomes import Admitted
from streams.rules.person import Person, person_to_subject
from tests.stream_log import GAP_MS, ORDER, START_MS, make_event

NOW_MS = START_MS + 60 * DAY_MS
RULES = Rules(Gate(counts=True, profiles=True), GAP_MS)
THRESHOLDS = Thresholds((7, 30, 90, 180), (16, 8, 4, 2), {"EUR": (400, 300, 200, 100)})
CURRENCIES = ("EUR", "JPY")


@st.composite
def lives(draw: st.DrawFn) -> list[Collected]:
    """Distinct events of one person over two months, among them orders that are stated twice."""
    made = []
    for number in draw(st.lists(st.integers(0, 255), unique=True, max_size=25)):
        name = draw(
            st.sampled_from(["", "Product Viewed", "Product Added", ORDER, "Order Refunded"])
        )
        properties: dict[str, object] = {}
        if name:
            properties["category"] = draw(st.sampled_from(["tea", "lamps", ""]))
        if name.startswith("Order"):
            order = draw(st.integers(1, 5))
            properties |= {"order_id": order, "total": 7 * order, "currency": CURRENCIES[order % 2]}
        # To the day, so that edges of windows are met, and a millisecond on both sides of them.
        at_ms = NOW_MS - draw(st.integers(0, 45)) * DAY_MS + draw(st.integers(-1, 1))
        made.append(
            make_event(
                event_id=bytes([number]) * 16,
                event=name,
                occurred_at_ms=at_ms,
                received_at_ms=NOW_MS,
                clear={"properties": properties},
            )
        )
    return made


def subject_of(arriving: Iterable[Collected], pid: bytes = b"p" * 16) -> Subject:
    person, memory = Person(pid), Memory(10**12)
    for event in arriving:
        assert isinstance(admit(event, person, memory, RULES), Admitted)
    return person_to_subject(person)


def traits_of(subject: Subject) -> Computed:
    return compute(facts_of(subject), THRESHOLDS, NOW_MS, 30)


def counted_by_hand(events: Sequence[Collected]) -> Computed:
    """The same from all events, the slow way."""
    told = [(each, orjson.loads(each.clear)["properties"]) for each in events]
    first: dict[Any, tuple[int, bytes, int, str]] = {}
    for each, said in told:
        if each.event == ORDER:
            micro = parse_micro(said["total"])
            assert micro is not None
            stated = (each.occurred_at_ms, each.event_id, micro, said["currency"])
            known = first.get(said["order_id"])
            first[said["order_id"]] = min(stated, known) if known else stated
    orders = list(first.values())
    paid: dict[str, tuple[int, int]] = {}
    for _, _, micro, currency in orders:
        total, count = paid.get(currency, (0, 0))
        paid[currency] = (total + micro, count + 1)
    days = min(((NOW_MS - at_ms) // DAY_MS for at_ms, *_ in orders), default=None)
    starts: list[int] = []
    before_ms = None
    for at_ms in sorted(each.occurred_at_ms for each in events):
        if before_ms is None or at_ms - before_ms >= GAP_MS:
            starts.append(at_ms)
        before_ms = at_ms
    liked = Counter(
        said["category"]
        for each, said in told
        if each.event in ("Product Viewed", "Product Added", ORDER)
        and said["category"]
        and NOW_MS - each.occurred_at_ms < 30 * DAY_MS
    )
    newest = {
        name: max(
            each.occurred_at_ms
            for each, said in told
            if said.get("category") == name and each.event != "Order Refunded"
        )
        for name in liked
    }
    favourite = None
    for name in sorted(liked):  # of equal ones the first stays
        if favourite is None or (liked[name], newest[name]) > (
            liked[favourite],
            newest[favourite],
        ):
            favourite = name
    scores = None
    if days is not None:
        refunded = sum(
            parse_micro(said["total"]) or 0
            for each, said in told
            if each.event == "Order Refunded" and said["currency"] == "EUR"
        )
        kept = max(0, paid["EUR"][0] - refunded) if "EUR" in paid else 0
        scores = Scores(
            recency=5 if days <= 7 else 4 if days <= 30 else 3,
            frequency=3 if len(orders) >= 4 else 2 if len(orders) >= 2 else 1,
            monetary={"EUR": 5 if kept >= 400 else 1} if "EUR" in paid else {},
        )

    def within(days: int, name: str | None) -> int:
        return sum(
            NOW_MS - each.occurred_at_ms < days * DAY_MS and name in (None, each.event)
            for each in events
        )

    return Computed(
        paid=paid or None,
        days_since_last_order=None if days is None else max(0, days),
        scores=scores,
        favourite_category=favourite,
        windows={
            each: Counts(
                events=within(each, None),
                visits=sum(NOW_MS - at_ms < each * DAY_MS for at_ms in starts),
                product_views=within(each, "Product Viewed"),
                cart_adds=within(each, "Product Added"),
                orders=sum(NOW_MS - at_ms < each * DAY_MS for at_ms, *_ in orders),
            )
            for each in WINDOW_DAYS
        },
    )


@settings(max_examples=50, deadline=None)
@given(lives(), st.randoms(use_true_random=False))
def test_traits_equal_a_count_over_all_events_in_any_order(
    events: list[Collected], chance: random.Random
) -> None:
    arriving = list(events)
    chance.shuffle(arriving)
    assert traits_of(subject_of(arriving)) == counted_by_hand(events)


@settings(max_examples=50, deadline=None)
@given(lives(), st.randoms(use_true_random=False))
def test_traits_of_somebody_with_two_pids_are_those_of_one(
    events: list[Collected], chance: random.Random
) -> None:
    mine: list[Collected] = []
    theirs: list[Collected] = []
    for event in events:
        (mine if chance.random() < 0.5 else theirs).append(event)
    root, other = subject_of(mine), subject_of(theirs, b"q" * 16)
    both = msgspec.structs.replace(
        root, members=[Member(other.pid, root.pid, b"", SUBJECT.encode(other))]
    )
    assert traits_of(whole_subject(both, GAP_MS)) == traits_of(subject_of(events))


def facts(**changes: Any) -> Facts:
    usual: dict[str, Any] = {
        "orders": 0,
        "spent": {},
        "refunded": {},
        "purchases": [],
        "activity": [],
        "visits_ms": [],
    }
    return Facts(**usual | changes)


def order(days_ago: float = 0, micro: int = 1, currency: str = "EUR") -> Purchase:
    key = random.randbytes(8)
    return Purchase(key, key, int(NOW_MS - days_ago * DAY_MS), micro, currency, "", False)


def entry(name: str, category: str = "", *, ago_ms: int = 0, flags: int = MAY_PROFILE) -> Entry:
    return Entry(NOW_MS - ago_ms, bytes(8), name, "", category, "", flags)


def found_in(**changes: Any) -> Computed:
    return compute(facts(**changes), THRESHOLDS, NOW_MS, 30)


@pytest.mark.parametrize("days", WINDOW_DAYS)
def test_what_is_exactly_a_window_ago_has_left_it(days: int) -> None:
    edge_ms = days * DAY_MS
    inside = found_in(activity=[entry("page", ago_ms=edge_ms - 1)]).windows[days]
    outside = found_in(activity=[entry("page", ago_ms=edge_ms)]).windows[days]
    assert inside is not None
    assert outside is not None
    assert (inside.events, outside.events) == (1, 0)


def test_a_window_longer_than_activity_is_kept_is_not_known() -> None:
    windows = compute(facts(activity=[entry("page")]), THRESHOLDS, NOW_MS, 7).windows
    assert windows[30] is None
    assert windows[7] is not None


def test_what_was_not_allowed_for_personalisation_is_in_no_count() -> None:
    found = found_in(activity=[entry("Product Viewed", "tea", flags=0)])
    assert found.favourite_category is None
    assert found.windows[1] == Counts(0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("seen", "favourite"),
    [
        ([("Product Viewed", "tea", 1), ("Product Viewed", "lamps", 0)], "lamps"),
        ([("Product Viewed", "tea", 1), ("Product Added", "tea", 2), (ORDER, "lamps", 0)], "tea"),
        ([("Product Viewed", "tea", 0), ("Product Viewed", "lamps", 0)], "lamps"),
        ([("Product Removed", "tea", 0)], None),
        ([("Product Viewed", "", 0)], None),
        ([("Product Viewed", "tea", 30 * DAY_MS)], None),
        ([("Product Viewed", "tea", 30 * DAY_MS - 1)], "tea"),
    ],
)
def test_favourite_is_met_most_then_last_then_first_by_name(
    seen: list[tuple[str, str, int]], favourite: str | None
) -> None:
    activity = [entry(name, category, ago_ms=ago_ms) for name, category, ago_ms in seen]
    assert found_in(activity=activity).favourite_category == favourite
    assert found_in(activity=activity[::-1]).favourite_category == favourite


@pytest.mark.parametrize(
    ("days_ago", "score"),
    [(0, 5), (7, 5), (7.999, 5), (8, 4), (30, 4), (31, 3), (90, 3), (91, 2), (180, 2), (181, 1)],
)
def test_recency_counts_whole_days(days_ago: float, score: int) -> None:
    scores = found_in(orders=1, purchases=[order(days_ago), order(400)]).scores
    assert scores is not None
    assert scores.recency == score


@pytest.mark.parametrize(
    ("orders", "score"), [(1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (15, 4), (16, 5)]
)
def test_frequency_is_the_number_of_orders(orders: int, score: int) -> None:
    scores = found_in(orders=orders, purchases=[order() for _ in range(orders)]).scores
    assert scores is not None
    assert scores.frequency == score


@pytest.mark.parametrize(
    ("spent", "refunded", "score"),
    [(99, 0, 1), (100, 0, 2), (200, 0, 3), (300, 0, 4), (400, 0, 5), (400, 1, 4), (5, 9, 1)],
)
def test_worth_is_what_was_paid_and_not_given_back(spent: int, refunded: int, score: int) -> None:
    scores = found_in(
        orders=1,
        purchases=[order()],
        spent={"EUR": spent, "JPY": 10**9},
        refunded={"EUR": refunded},
    ).scores
    assert scores is not None
    assert scores.monetary == {"EUR": score}, "a currency without thresholds has no score"


def test_average_orders_are_by_currency_and_never_mixed() -> None:
    bought = [order(micro=10), order(micro=20), order(micro=7, currency="JPY"), order(currency="")]
    assert found_in(orders=4, purchases=bought).paid == {"EUR": (30, 2), "JPY": (7, 1)}


def test_orders_of_before_they_were_kept_have_an_average_in_one_currency_only() -> None:
    assert found_in(orders=2, spent={"EUR": 30}).paid == {"EUR": (30, 2)}
    assert found_in(orders=2, spent={"EUR": 30, "USD": 1}).paid is None
    assert found_in(orders=2, spent={"EUR": 30}).scores is None


def test_nobody_has_nothing() -> None:
    nothing = Counts(0, 0, 0, 0, 0)
    assert found_in() == Computed(None, None, None, None, dict.fromkeys(WINDOW_DAYS, nothing))


def test_what_ships_is_what_is_in_force_where_nothing_is_configured() -> None:
    assert Settings().measures.written() == SHIPPED.written()


def test_thresholds_of_the_configuration_are_in_millionths() -> None:
    set_so = Traits(monetary={"JPY": (Decimal("3.5"), Decimal(3), Decimal(2), Decimal(1))})
    assert set_so.thresholds.spent_micro == {"JPY": [3_500_000, 3_000_000, 2_000_000, 1_000_000]}


@pytest.mark.parametrize(
    "wrong",
    [
        {"recency_days": [7, 30, 30, 180]},
        {"recency_days": [-1, 30, 90, 180]},
        {"recency_days": [7, 30, 90]},
        {"frequency_orders": [2, 4, 8, 16]},
        {"frequency_orders": [16, 8, 4, -1]},
        {"monetary": {"EUR": [50, 150, 500, 1500]}},
        {"monetary": {"EUR": ["NaN", 3, 2, 1]}},
        {"monetary": {"eur": [4, 3, 2, 1]}},
        {"quintiles": True},
    ],
)
def test_thresholds_that_are_no_steps_stop_the_start(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Traits.model_validate(wrong)
