"""What one accepted event leaves in `facts`, by the marketers' definitions (schemas/counters.py)."""

from typing import Any

import msgspec
import pytest

from schemas.events import Accepted, VisitChange
from sinks.rules.rows import FACT_COLUMNS, LAST_MS, additions, fact_rows, metric_of

AT_MS = 1_760_000_012_345
MINUTE_S = AT_MS // 60_000 * 60

EVENT = Accepted(
    event_id=b"e" * 16,
    pid=b"p" * 16,
    source="shop",
    type="track",
    event="Order Completed",
    occurred_at_ms=AT_MS,
    sent_at_ms=None,
    received_at_ms=AT_MS + 50,
    flags=0,
    body_digest=0,
    clear=b"{}",
    traits=[],
    key_version=1,
    sealed=b"",
    generation=3,
    lane=2,
    seq=7,
    source_topic="events.collected",
    source_partition=2,
    source_offset=99,
    index=4,
    campaign_id="spring",
    is_repeat_order=False,
    amount_micro=12_340_000,
    currency="EUR",
    visit_changes=[],
)


def event(**changes: Any) -> Accepted:
    return msgspec.structs.replace(EVENT, **changes)


def named(row: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(FACT_COLUMNS, row, strict=True))


@pytest.mark.parametrize(
    ("type_", "name", "clear", "metric"),
    [
        ("track", "Email Sent", b"{}", "sent"),
        ("track", "Email Delivered", b"{}", "delivered"),
        ("track", "Email Bounced", b"{}", "bounced"),
        ("track", "Email Marked as Spam", b"{}", "spam_reported"),
        ("track", "Email Suppressed", b"{}", "suppressed"),
        ("track", "Email Opened", b"{}", "opened"),
        ("track", "Email Opened", b'{"properties":{"machine":true}}', "machine_opened"),
        ("track", "Email Opened", b'{"properties":{"machine":false}}', "opened"),
        ("track", "Email Opened", b'{"properties":{"machine":"yes"}}', "opened"),
        ("track", "Email Opened", b'{"machine":true,"properties":null}', "opened"),
        ("track", "Email Link Clicked", b"{}", "clicked"),
        ("track", "Unsubscribed", b"{}", "unsubscribed"),
        ("track", "Product Viewed", b"{}", "product_views"),
        ("track", "Product Added", b"{}", "cart_adds"),
        ("track", "Checkout Started", b"{}", "checkouts"),
        ("track", "Order Completed", b"{}", "orders"),
        ("track", "Order Refunded", b"{}", "refunds"),
        ("track", "Something Else", b"{}", ""),
        ("page", "", b"{}", "page_views"),
        ("screen", "", b"{}", "page_views"),
        ("identify", "", b"{}", ""),
        ("alias", "", b"{}", ""),
        ("group", "", b"{}", ""),
    ],
)
def test_each_call_counts_as_the_table_says(
    type_: str, name: str, clear: bytes, metric: str
) -> None:
    assert metric_of(event(type=type_, event=name, clear=clear)) == metric


def test_an_order_adds_one_order_and_its_money_in_its_currency() -> None:
    (row,) = fact_rows(EVENT, 5, 1234)
    assert list(additions(row)) == [
        (("spring", "orders", "", MINUTE_S, 3), 1),
        (("spring", "revenue", "EUR", MINUTE_S, 3), 12_340_000),
    ]
    found = named(row)
    assert (found["kp"], found["off"], found["idx"]) == (5, 1234, 0)
    assert (found["src_topic"], found["src_partition"], found["src_offset"]) == (
        "events.collected",
        2,
        99,
    )
    assert (found["lane"], found["seq"], found["index"]) == (2, 7, 4)
    assert found["source"] == "shop"


def test_a_refund_adds_to_refunded() -> None:
    (row,) = fact_rows(event(event="Order Refunded"), 0, 0)
    assert [(key[1], added) for key, added in additions(row)] == [
        ("refunds", 1),
        ("refunded", 12_340_000),
    ]


def test_an_order_without_money_adds_no_revenue() -> None:
    (row,) = fact_rows(event(amount_micro=None, currency=""), 0, 0)
    assert [key[1] for key, _ in additions(row)] == ["orders"]


def test_a_repeated_order_counts_nothing_but_its_person_visits() -> None:
    (row,) = fact_rows(event(is_repeat_order=True), 0, 0)
    assert list(additions(row)) == []
    found = named(row)
    assert (found["metric"], found["amount_micro"], found["currency"]) == ("", 0, "")
    assert found["is_visitor"] == 1


def test_money_on_another_event_is_no_revenue() -> None:
    (row,) = fact_rows(event(event="Product Viewed"), 0, 0)
    assert [key[1] for key, _ in additions(row)] == ["product_views"]
    assert named(row)["amount_micro"] == 0


def test_mail_events_make_no_visitor_and_others_do() -> None:
    assert named(fact_rows(event(event="Email Opened"), 0, 0)[0])["is_visitor"] == 0
    assert named(fact_rows(event(event="Product Viewed"), 0, 0)[0])["is_visitor"] == 1
    assert named(fact_rows(event(type="identify", event=""), 0, 0)[0])["is_visitor"] == 1


def test_visits_count_at_their_own_campaign_and_minute() -> None:
    changes = [VisitChange("old", AT_MS - 3_600_000, -1), VisitChange("new", AT_MS - 60_000, 1)]
    rows = fact_rows(event(event="Product Viewed", visit_changes=changes), 1, 10)
    assert [named(row)["idx"] for row in rows] == [0, 1, 2]
    assert [entry for row in rows[1:] for entry in additions(row)] == [
        (("old", "visits", "", MINUTE_S - 3600, 3), -1),
        (("new", "visits", "", MINUTE_S - 60, 3), 1),
    ]
    assert [named(row)["is_visitor"] for row in rows[1:]] == [0, 0]


@pytest.mark.parametrize(
    ("at_ms", "minute_s"), [(-62_135_596_800_000, 0), (253_402_300_799_000, LAST_MS // 60_000 * 60)]
)
def test_a_time_that_no_store_holds_counts_at_the_nearest_minute(at_ms: int, minute_s: int) -> None:
    (row,) = fact_rows(event(occurred_at_ms=at_ms, received_at_ms=at_ms), 0, 0)
    ((key, _), _) = additions(row)
    assert key[3] == minute_s
    assert 0 <= named(row)["event_date"] < 2**16
