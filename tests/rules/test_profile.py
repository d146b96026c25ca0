"""What is shown of one person, and when nothing is."""

from datetime import UTC, datetime
from typing import Any

import pytest

from consumers.rules import profile
from consumers.rules.profile import may_be_shown
from consumers.rules.times import first_minute_s, rfc3339
from runtime.settings import Settings
from schemas.subjects import Circumstance, Consent, Money, Subject
from schemas.traits import compute, facts_of

NOW_MS = 1_000_000
NOTHING = {"events": 0, "visits": 0, "product_views": 0, "cart_adds": 0, "orders": 0}


def decision(
    status: str,
    recorded_at_ms: int,
    *,
    of: str = "purpose/personalisation",
    until_ms: int | None = None,
) -> Consent:
    return Consent(of, status, recorded_at_ms, until_ms, recorded_at_ms)


@pytest.mark.parametrize(
    ("consents", "by_interest", "by_consent"),
    [
        ([], True, False),
        ([decision("granted", 1)], True, True),
        ([decision("withdrawn", 1)], False, False),
        ([decision("granted", 1), decision("withdrawn", 2)], False, False),
        ([decision("withdrawn", 2), decision("granted", 3)], True, True),
        ([decision("granted", 1, until_ms=NOW_MS)], True, False),
        ([decision("granted", NOW_MS + 1)], True, False),
        ([decision("denied", 1, of="purpose/advertising")], True, False),
        ([decision("unheard-of", 1)], False, False),
    ],
)
def test_newest_decision_in_force_wins_over_the_basis(
    consents: list[Consent], by_interest: bool, by_consent: bool
) -> None:
    assert may_be_shown("legitimate_interest", [consents], NOW_MS) is by_interest
    assert may_be_shown("consent", [consents], NOW_MS) is by_consent


def subject(**changes: object) -> Subject:
    fields: dict[str, object] = {
        "pid": bytes(16),
        "erased_at_ms": None,
        "first_seen_ms": 0,
        "last_seen_ms": 1500,
        "events": 7,
        "orders": 2,
        "refunds": 1,
        "spent": [Money("USD", 3), Money("EUR", 25_000_000)],
        "refunded": [Money("EUR", 1)],
        "segments": ["b", "a"],
        "traits": [],
        "consents": [decision("granted", 5), decision("pending", 6, of="email/newsletter")],
        "order_keys": b"",
        "visit_campaigns": [],
        "visits": bytes(2 * 34),
        "circumstances": [Circumstance("country", "CZ", 3, bytes(8))],
    }
    return Subject(**(fields | changes))  # type: ignore[arg-type]


def view_profile(who: str, known: Subject, traits: list[tuple[str, Any]]) -> dict[str, Any]:
    computed = compute(facts_of(known), Settings().traits.thresholds, NOW_MS, 30)
    return profile.view_profile(who, known, traits, computed)


def test_profile_shows_sums_by_currency_and_leaves_removed_traits_out() -> None:
    view = view_profile("user:42", subject(), [("plan", "pro"), ("old", None), ("age", 30)])
    assert view == {
        "subject": "user:42",
        "first_seen": "1970-01-01T00:00:00.000Z",
        "last_seen": "1970-01-01T00:00:01.500Z",
        "traits": {"age": 30, "plan": "pro"},
        "computed": {
            "events": 7,
            "visits": 2,
            "orders": 2,
            "refunds": 1,
            "spent": [
                {"currency": "EUR", "amount": "25"},
                {"currency": "USD", "amount": "0.000003"},
            ],
            "refunded": [{"currency": "EUR", "amount": "0.000001"}],
            "average_order_value": None,
            "days_since_last_order": None,
            "rfm": None,
            "favourite_category": None,
            "windows": {
                "1d": NOTHING | {"visits": 2},
                "7d": NOTHING | {"visits": 2},
                "30d": NOTHING | {"visits": 2},
            },
            "channel": None,
            "country": "CZ",
            "device": None,
            "timezone": None,
        },
        "segments": ["a", "b"],
        "consents": [
            {
                "purpose": "personalisation",
                "status": "granted",
                "valid_from": "1970-01-01T00:00:00.005Z",
                "valid_to": None,
                "recorded_at": "1970-01-01T00:00:00.005Z",
            },
            {
                "channel": "email",
                "topic": "newsletter",
                "status": "pending",
                "valid_from": "1970-01-01T00:00:00.006Z",
                "valid_to": None,
                "recorded_at": "1970-01-01T00:00:00.006Z",
            },
        ],
    }


def test_average_order_of_one_currency_is_told() -> None:
    view = view_profile("user:42", subject(spent=[Money("EUR", 25_000_000)]), [])
    assert view["computed"]["average_order_value"] == [{"currency": "EUR", "amount": "12.5"}]


def test_somebody_without_orders_has_no_average() -> None:
    view = view_profile("user:42", subject(orders=0, spent=[]), [])
    assert view["computed"]["average_order_value"] is None


def test_a_minute_counts_when_it_begins_in_the_span() -> None:
    assert first_minute_s(datetime(1970, 1, 1, 0, 1, tzinfo=UTC)) == 60
    assert first_minute_s(datetime(1970, 1, 1, 0, 1, 0, 1, tzinfo=UTC)) == 120
    assert first_minute_s(datetime(1969, 12, 31, 23, 59, 30, tzinfo=UTC)) == 0
    assert rfc3339(-1) == "1969-12-31T23:59:59.999Z"
