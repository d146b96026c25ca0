"""Does the shop send what its ledger says, in the disorder that it promises?

The recount below reads nothing but the bodies, as a collector would, and counts in SQL: it shares
no line and no idea with the ledger.
"""

import json
import sqlite3
import time
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from itertools import islice, pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.rules.shop_bodies import BROKEN_REASONS
from producers.rules.shop_ledger import COUNTERS, Ledger
from producers.rules.shop_traffic import ShopCall, shop_calls
from producers.shop import shop_batches

START_MS = 1_790_000_000_000
TYPES = {"track", "identify", "page", "screen", "group", "alias"}
MAIL = "('Email Sent','Email Delivered','Email Bounced','Email Marked as Spam','Email Suppressed','Email Opened','Email Link Clicked','Unsubscribed')"


def ledger_of(calls: Iterable[ShopCall]) -> Ledger:
    ledger = Ledger()
    for call in calls:
        ledger.note(call.note)
    return ledger


def identity(body: dict[str, Any]) -> str | None:
    for name in ("userId", "anonymousId"):
        if body.get(name):
            return f"{name}:{body[name]}"
    traits = body.get("traits") or body.get("context", {}).get("traits") or {}
    return f"email:{traits['email']}" if traits.get("email") else None


def money(properties: dict[str, Any]) -> Decimal | None:
    for name in ("total", "revenue", "value"):
        if name in properties:
            return Decimal(str(properties[name]))
    return None


def is_broken(body: dict[str, Any]) -> bool:
    try:
        amount = money(body.get("properties", {}))
        datetime.fromisoformat(body["timestamp"])
    except (InvalidOperation, ValueError):
        return True
    return (
        len(json.dumps(body)) > 32_768
        or body.get("type") not in TYPES
        or (body["type"] == "track" and not body.get("event"))
        or identity(body) is None
        or (amount is not None and (not amount.is_finite() or amount < 0))
    )


def at_ms(body: dict[str, Any]) -> int:
    at = datetime.fromisoformat(body["timestamp"])
    return int(at.timestamp()) * 1000 + at.microsecond // 1000


TO_CAMPAIGNS = """
create index of_who on e (who, at);
create index of_order on e (order_id);
create table touches as select who, at, camp from e where camp is not null;
create index of_touch on touches (who, at);
update e set camp = coalesce((select t.camp from touches t
    where t.who = e.who and t.at <= e.at and t.at > e.at - 5 * 86400000
    order by t.at desc limit 1), '(none)') where camp is null;
update e set camp = coalesce((select o.camp from e o
    where o.name = 'Order Completed' and o.order_id = e.order_id order by o.at limit 1), camp)
    where name = 'Order Refunded';
"""


def recount(bodies: list[dict[str, Any]]) -> dict[str, Any]:
    """The answer of `GET /v1/campaigns` to these bodies."""
    store = sqlite3.connect(":memory:")
    store.execute(
        "create table e(id text primary key, who text, name text, camp text, at int, machine int,"
        " order_id text, amount int, currency text)"
    )
    for body in bodies:
        if is_broken(body):
            continue
        properties, context = body.get("properties", {}), body["context"].get("campaign", {})
        name = body["event"] if body["type"] == "track" else body["type"]
        amount = money(properties) if name.startswith("Order ") else None
        store.execute(
            "insert or ignore into e values (?,?,?,?,?,?,?,?,?)",
            (
                body["messageId"],
                identity(body),
                name,
                properties.get("campaign_id")
                or context.get("id")
                or context.get("name")
                or properties.get("campaign_name"),
                at_ms(body),
                properties.get("machine") is True,
                properties.get("order_id"),
                None if amount is None else int(round(amount, 6).scaleb(6)),
                properties.get("currency"),
            ),
        )
    store.executescript(TO_CAMPAIGNS)
    counters: dict[str, dict[str, int]] = {
        campaign: {} for (campaign,) in store.execute("select distinct camp from e")
    }

    def take(counter: str, query: str) -> None:
        for campaign, value in store.execute(query):
            counters[campaign][counter] = value

    for counter, names in {
        "sent": "'Email Sent'",
        "delivered": "'Email Delivered'",
        "bounced": "'Email Bounced'",
        "spam_reported": "'Email Marked as Spam'",
        "suppressed": "'Email Suppressed'",
        "clicked": "'Email Link Clicked'",
        "unsubscribed": "'Unsubscribed'",
        "page_views": "'page','screen'",
        "product_views": "'Product Viewed'",
        "cart_adds": "'Product Added'",
        "checkouts": "'Checkout Started'",
        "refunds": "'Order Refunded'",
    }.items():
        take(counter, f"select camp, count(*) from e where name in ({names}) group by 1")
    opened = "from e where name='Email Opened' and machine=0 group by 1"
    take("opened", f"select camp, count(*) {opened}")
    take("unique_opened", f"select camp, count(distinct who) {opened}")
    take("machine_opened", "select camp, sum(machine) from e where name='Email Opened' group by 1")
    take(
        "unique_clicked",
        "select camp, count(distinct who) from e where name='Email Link Clicked' group by 1",
    )
    bought = "from e where name='Order Completed' group by 1"
    take("orders", f"select camp, count(distinct order_id) {bought}")
    take("buyers", f"select camp, count(distinct who) {bought}")
    take("visitors", f"select camp, count(distinct who) from e where name not in {MAIL} group by 1")
    take(
        "visits",
        "select camp, count(*) from (select camp, at - lag(at) over (partition by who order by at)"
        f" gap from e where name not in {MAIL}) where gap is null or gap >= 1800000 group by 1",
    )
    lists: dict[str, dict[str, list[dict[str, str]]]] = defaultdict(lambda: defaultdict(list))
    for money_list, query in {
        "revenue": "select distinct camp, order_id, amount, currency from e where name='Order Completed'",
        "refunded": "select camp, id, amount, currency from e where name='Order Refunded'",
    }.items():
        for campaign, currency, micros in store.execute(
            f"select camp, currency, sum(amount) from ({query}) group by 1, 2"
        ):
            summed = str(Decimal(micros).scaleb(-6))
            lists[campaign][money_list].append({"currency": currency, "amount": summed})
    return {
        "as_of": "2026-09-21T14:13:20Z",
        "campaigns": [
            {"campaign_id": campaign, "counters": found, "rates": {}, **lists[campaign]}
            for campaign, found in counters.items()
        ],
    }


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**9), events=st.integers(1, 900))
def test_recount_of_the_bodies_equals_the_ledger(seed: int, events: int) -> None:
    calls = list(shop_calls(seed, events, START_MS))
    ledger = ledger_of(calls)
    bodies = [orjson.loads(orjson.dumps(call.body)) for call in calls]
    assert ledger.differences(recount(bodies)) == []
    assert (ledger.sent, len(calls)) == (events, events)
    assert ledger.rejected_total == sum(map(is_broken, bodies))
    ids = Counter(body["messageId"] for body in bodies)
    assert ledger.duplicates == ids.total() - len(ids)
    assert ledger.accepted == events - ledger.duplicates - ledger.rejected_total


@pytest.fixture(scope="module")
def many() -> list[ShopCall]:
    return list(shop_calls(2, 20_000, START_MS))


def test_recount_of_twenty_thousand_equals_the_ledger_with_every_counter_in_use(
    many: list[ShopCall],
) -> None:
    ledger = ledger_of(many)
    assert ledger.differences(recount([call.body for call in many])) == []
    expected = ledger.expected()
    assert len(expected) == 7  # six campaigns and (none)
    for counter in COUNTERS:
        assert any(numbers.counters[counter] for numbers in expected.values()), counter
    assert len(expected["spring-sale"].money["revenue"]) > 2
    assert ledger.duplicates > 500
    assert set(ledger.rejected) == set(BROKEN_REASONS)


def test_equal_arguments_give_equal_bytes_and_others_give_others() -> None:
    def first(seed: int, start_ms: int) -> list[bytes]:
        return [batch.body for batch in shop_batches(shop_calls(seed, 300, start_ms))]

    assert first(5, START_MS) == first(5, START_MS)
    assert first(5, START_MS) != first(6, START_MS)
    ids = [
        {call.body["messageId"] for call in shop_calls(5, 300, start_ms)}
        for start_ms in (START_MS, START_MS + 1)
    ]
    assert ids[0].isdisjoint(ids[1])


def test_copies_are_the_same_call_in_the_same_batch_and_in_far_ones(many: list[ShopCall]) -> None:
    first: dict[str, tuple[int, bytes]] = {}
    distances = []
    for batch_number, batch in enumerate(shop_batches(many)):
        for call in batch.calls:
            body = orjson.dumps(call.body)
            before = first.setdefault(call.note.message_id, (batch_number, body))
            if before[1] is not body:
                assert before[1] == body
                distances.append(batch_number - before[0])
    assert sum(distance == 0 for distance in distances) > 50
    assert sum(distance > 2 for distance in distances) > 50


def test_some_orders_are_told_by_two_messages(many: list[ShopCall]) -> None:
    messages = defaultdict(set)
    for call in many:
        moment = call.note.moment
        if moment is not None and moment.name == "Order Completed":
            messages[moment.order_id].add(call.note.message_id)
    assert sum(len(told) == 2 for told in messages.values()) > 20


def test_events_lie_before_the_start_and_no_person_has_two_at_one_time(
    many: list[ShopCall],
) -> None:
    times: dict[str | None, dict[int, str]] = defaultdict(dict)
    ages_ms = []
    for call in many:
        if call.note.moment is None:
            continue
        occurred_at_ms = at_ms(call.body)
        assert occurred_at_ms == call.note.moment.occurred_at_ms
        ages_ms.append(START_MS - occurred_at_ms)
        message_id = str(call.body["messageId"])
        assert times[identity(call.body)].setdefault(occurred_at_ms, message_id) == message_id
    assert 0 < min(ages_ms) < 60_000
    assert sum(age > 24 * 3_600_000 for age in ages_ms) > 100
    assert sum(age > 300 * 24 * 3_600_000 for age in ages_ms) > 30
    assert sorted(ages_ms)[len(ages_ms) * 9 // 10] < 12 * 3_600_000


def test_late_events_start_join_and_move_visits(many: list[ShopCall]) -> None:
    """Count, event by event as they come, what each does to the visits seen before it."""
    seen: dict[str | None, list[tuple[int, str]]] = defaultdict(list)
    effects: Counter[str] = Counter()
    edges: Counter[int] = Counter()
    for call in many:
        moment = call.note.moment
        if moment is None or moment.name.startswith("Email") or moment.name == "Unsubscribed":
            continue
        known = seen[identity(call.body)]
        event = (moment.occurred_at_ms, moment.campaign or "(none)")
        if event in known:
            continue
        before = starts(known)
        known.append(event)
        after = starts(known)
        is_late = event[0] < max(known)[0]
        effects["joins"] += len(after) < len(before)
        effects["starts late"] += is_late and len(after) > len(before)
        effects["moves"] += len(after) == len(before) and after != before
    for known in seen.values():
        ordered = sorted(at for at, _ in known)
        edges.update(later - at for at, later in pairwise(ordered))
    assert effects["joins"] > 20
    assert effects["starts late"] > 20
    assert effects["moves"] > 20
    assert edges[1_799_999] > 3
    assert edges[1_800_000] > 3


def starts(events: list[tuple[int, str]]) -> list[tuple[int, str]]:
    ordered = sorted(events)
    return [
        event
        for event, previous in zip(ordered, [None, *ordered], strict=False)
        if previous is None or event[0] - previous[0] >= 1_800_000
    ]


def test_nobody_is_known_by_two_kinds_of_identifier(many: list[ShopCall]) -> None:
    for call in many:
        body: dict[str, Any] = call.body
        traits = body["context"].get("traits") or {}
        email_only = "email" in traits or (
            "email" in body.get("traits", {}) and "userId" not in body
        )
        kinds = ("userId" in body) + ("anonymousId" in body) + email_only
        assert kinds == (0 if call.note.broken_because == "no identifier" else 1)


def test_campaigns_are_named_in_all_four_places(many: list[ShopCall]) -> None:
    places: Counter[str] = Counter()
    for call in many:
        body: dict[str, Any] = call.body
        properties, campaign = body.get("properties", {}), body["context"].get("campaign", {})
        places["properties.campaign_id"] += "campaign_id" in properties
        places["context.campaign.id"] += "id" in campaign and "campaign_id" not in properties
        places["context.campaign.name"] += "name" in campaign and "id" not in campaign
        places["properties.campaign_name"] += "campaign_name" in properties and (
            not campaign and "campaign_id" not in properties
        )
    assert min(places.values()) > 300
    assert len(places) == 4


def test_only_the_oversized_are_oversized_and_every_body_fits(many: list[ShopCall]) -> None:
    for batch in shop_batches(many):
        assert len(batch.calls) <= 100
        assert len(batch.body) < 500_000
        assert len(orjson.loads(batch.body)["batch"]) == len(batch.calls)
    for call in many:
        too_large = len(orjson.dumps(call.body)) > 32_000
        assert too_large == (call.note.broken_because == "too large")


def test_twenty_thousand_calls_are_made_in_seconds() -> None:
    before_s = time.process_time()
    ledger_of(shop_calls(3, 20_000, START_MS))
    assert time.process_time() - before_s < 5


def test_an_endless_shop_follows_the_time_it_is_given_in_bounded_memory() -> None:
    now_ms = START_MS
    calls = shop_calls(4, None, START_MS, lambda: now_ms)
    ledger = Ledger()
    freshest_ms = 0
    tracemalloc.start()
    try:
        for round_number in range(6):
            for call in islice(calls, 2_000):
                ledger.note(call.note)
                if call.note.moment is not None:
                    freshest_ms = max(freshest_ms, call.note.moment.occurred_at_ms)
            assert now_ms - 120_000 < freshest_ms < now_ms
            now_ms += 60_000
            if round_number == 1:
                settled_bytes = tracemalloc.get_traced_memory()[0]
        assert tracemalloc.get_traced_memory()[0] < settled_bytes * 1.5 + 500_000
    finally:
        tracemalloc.stop()
    assert ledger.sent == 12_000


def test_an_endless_shop_without_a_clock_is_refused() -> None:
    with pytest.raises(ValueError, match="now_ms"):
        next(shop_calls(1, None, START_MS))
