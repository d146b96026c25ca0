"""The numbers that a campaign shows, from plain sums."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.rules.rates import decimal_text, list_money, mean, share, sum_up, view_campaigns
from schemas.counters import COUNTS, PEOPLE, RATES


def test_campaign_shows_every_counter_and_zero_for_what_never_happened() -> None:
    (view,) = view_campaigns(sum_up([("spring", "sent", "", 3)], []))
    assert set(view.counters) == {*COUNTS, *PEOPLE}
    assert view.counters["sent"] == 3
    assert sum(value or 0 for value in view.counters.values()) == 3
    assert view.revenue == view.refunded == []


def test_rates_divide_as_the_contract_says() -> None:
    counted = [
        ("spring", "sent", "", 10),
        ("spring", "delivered", "", 8),
        ("spring", "bounced", "", 2),
        ("spring", "unsubscribed", "", 1),
        ("spring", "orders", "", 3),
        ("spring", "revenue", "EUR", 100_000_000),
    ]
    people = [
        ("spring", "unique_opened", 4),
        ("spring", "unique_clicked", 2),
        ("spring", "buyers", 2),
    ]
    (view,) = view_campaigns(sum_up(counted, people))
    assert view.rates == {
        "open_rate": 0.5,
        "click_rate": 0.25,
        "click_to_open": 0.5,
        "bounce_rate": 0.2,
        "unsubscribe_rate": 0.125,
        "conversion_rate": 0.25,
        "aov": [{"currency": "EUR", "amount": "33.333333"}],
    }


def test_average_order_of_each_currency_is_of_the_orders_in_it() -> None:
    sums = sum_up(
        [
            ("spring", "orders", "", 4),
            ("spring", "revenue", "EUR", 30_000_000),
            ("spring", "revenue", "USD", 8_000_000),
        ],
        [],
    )
    sums["spring"].orders_in = {"EUR": 3, "USD": 1}
    (view,) = view_campaigns(sums)
    assert view.rates["aov"] == [
        {"currency": "EUR", "amount": "10"},
        {"currency": "USD", "amount": "8"},
    ]


def test_rates_are_null_when_there_is_nothing_to_divide_by() -> None:
    (view,) = view_campaigns(sum_up([("spring", "page_views", "", 1)], []))
    assert view.rates == dict.fromkeys((*RATES, "aov"))


def test_campaigns_come_in_the_order_of_their_ids_and_one_with_people_only_is_listed() -> None:
    views = view_campaigns(
        sum_up([("b", "sent", "", 1)], [("a", "visitors", 1), ("B", "buyers", 1)])
    )
    assert [view.campaign_id for view in views] == ["B", "a", "b"]


def test_currencies_are_never_added_to_each_other() -> None:
    rows = [("c", "revenue", "USD", 2), ("c", "revenue", "EUR", 1), ("c", "revenue", "USD", 3)]
    (view,) = view_campaigns(sum_up([*rows, ("c", "refunded", "USD", 5)], []))
    assert [money["currency"] for money in view.revenue] == ["EUR", "USD"]
    assert view.revenue[1]["amount"] == "0.000005"
    assert view.refunded == [{"currency": "USD", "amount": "0.000005"}]


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (0, "0"),
        (12_500_000, "12.5"),
        (3_000_000, "3"),
        (100_000_000, "100"),
        (1, "0.000001"),
        (-1, "-0.000001"),
        (-1_500_000, "-1.5"),
        (10**30, "1" + "0" * 24),
    ],
)
def test_amounts_are_plain_decimals(micro: int, text: str) -> None:
    assert decimal_text(micro) == text


@given(st.integers(-(2**127), 2**127 - 1))
def test_amount_in_text_is_the_amount(micro: int) -> None:
    text = decimal_text(micro)
    assert int(Decimal(text).scaleb(6).to_integral_value()) == micro or abs(micro) > 10**27
    assert "e" not in text.lower()
    assert not ("." in text and text.endswith("0"))


@given(st.integers(0, 10**15), st.integers(1, 10**6))
def test_mean_is_off_by_half_a_millionth_at_most(micro: int, count: int) -> None:
    assert 2 * abs(mean(micro, count) * count - micro) <= count


def test_nothing_divided_by_nothing_is_unknown() -> None:
    assert share(0, 0) is None
    assert list_money({}) == []
