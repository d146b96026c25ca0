"""What does a campaign look like to the people who run it?

Counts, money by currency and the rates of CONTRACT's table, from plain sums. Amounts are whole
millionths inside and decimal strings outside: no double ever holds money.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from schemas.counters import COUNTS, MICRO, MONEY, PEOPLE, RATES

Money = dict[str, str]
"""`{"currency": "EUR", "amount": "12.5"}`."""

Rate = float | None


@dataclass(slots=True)
class Sums:
    """One campaign's sums; what never happened is missing. Money in millionths by currency."""

    numbers: dict[str, int] = field(default_factory=dict)
    money: dict[str, dict[str, int]] = field(default_factory=dict)
    orders_in: dict[str, int] = field(default_factory=dict)
    """Orders by currency; needed only where there are several."""
    has_people: bool = True
    """False where facts went with age that tell who they were."""


@dataclass(frozen=True, slots=True)
class CampaignView:
    """One campaign as it is answered."""

    campaign_id: str
    counters: Mapping[str, int | None]
    rates: Mapping[str, Rate | list[Money]]
    revenue: list[Money]
    refunded: list[Money]


def sum_up(
    counted: Iterable[tuple[str, str, str, int]], people: Iterable[tuple[str, str, int]]
) -> dict[str, Sums]:
    """Sums by campaign, from (campaign, metric, currency, value) and (campaign, metric, people)."""
    sums: dict[str, Sums] = {}
    for campaign_id, metric, currency, value in counted:
        of = sums.setdefault(campaign_id, Sums())
        if metric in MONEY:
            amounts = of.money.setdefault(metric, {})
            amounts[currency] = amounts.get(currency, 0) + value
        else:
            of.numbers[metric] = of.numbers.get(metric, 0) + value
    for campaign_id, metric, distinct in people:
        sums.setdefault(campaign_id, Sums()).numbers[metric] = distinct
    return sums


def view_campaigns(sums: Mapping[str, Sums]) -> list[CampaignView]:
    """Every campaign with every counter, by campaign id: 0 for what never happened, None for people
    that nobody can count any more."""
    return [_view(campaign_id, sums[campaign_id]) for campaign_id in sorted(sums)]


def _view(campaign_id: str, of: Sums) -> CampaignView:
    numbers = {metric: of.numbers.get(metric, 0) for metric in (*COUNTS, *PEOPLE)}
    counters: dict[str, int | None] = {
        metric: None if metric in PEOPLE and not of.has_people else value
        for metric, value in numbers.items()
    }
    revenue = of.money.get("revenue", {})
    rates: dict[str, Rate | list[Money]] = {
        rate: share(counters[dividend], counters[divisor])
        for rate, (dividend, divisor) in RATES.items()
    }
    rates["aov"] = _average_order(revenue, numbers["orders"], of.orders_in)
    return CampaignView(
        campaign_id,
        counters,
        rates,
        revenue=list_money(revenue),
        refunded=list_money(of.money.get("refunded", {})),
    )


def share(dividend: int | None, divisor: int | None) -> Rate:
    """The quotient; None when there is nothing to divide, or to divide by."""
    return dividend / divisor if divisor and dividend is not None else None


def _average_order(
    revenue: Mapping[str, int], orders: int, orders_in: Mapping[str, int]
) -> list[Money] | None:
    # An order in one currency does not make the average of another one smaller.
    divisors = orders_in if len(revenue) > 1 else dict.fromkeys(revenue, orders)
    if not orders:
        return None
    return list_money(
        {
            currency: mean(micro, divisors[currency])
            for currency, micro in revenue.items()
            if divisors.get(currency)
        }
    )


def mean(micro: int, count: int) -> int:
    """The sum by `count` to the nearest millionth, half to even."""
    quotient, rest = divmod(micro, count)
    is_above = 2 * rest > count or (2 * rest == count and quotient % 2 == 1)
    return quotient + is_above


def list_money(sums_micro: Mapping[str, int]) -> list[Money]:
    """Amounts by currency, in the order of the currency's code."""
    return [
        {"currency": currency, "amount": decimal_text(sums_micro[currency])}
        for currency in sorted(sums_micro)
    ]


def decimal_text(micro: int) -> str:
    """Millionths as a plain decimal: 12_500_000 is '12.5', 3_000_000 is '3', -1 is '-0.000001'."""
    units, rest = divmod(abs(micro), MICRO)
    text = f"{units}.{rest:06d}".rstrip("0").rstrip(".")
    return f"-{text}" if micro < 0 else text
