"""What can be set of the traits that are worked out of events?"""

from decimal import Decimal
from itertools import pairwise
from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from runtime.settings_sections import Section
from schemas.counters import MICRO
from schemas.traits import Thresholds

_MOST_AMOUNT = 10**12
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
Steps = tuple[int, int, int, int]
Amounts = tuple[Decimal, Decimal, Decimal, Decimal]


class Traits(Section):
    """`[traits]`: from where on an order's recency, frequency and worth score 5, 4, 3 and 2."""

    recency_days: Steps = Field((7, 30, 90, 180), description="since the last order, at most")
    frequency_orders: Steps = Field((16, 8, 4, 2), description="orders, at least")
    monetary: dict[Currency, Amounts] = Field(
        default_factory=lambda: {
            "EUR": _amounts("1500", "500", "150", "50"),
            "USD": _amounts("1500", "500", "150", "50"),
            "GBP": _amounts("1250", "420", "125", "42"),
            "CZK": _amounts("37500", "12500", "3750", "1250"),
        },
        description="paid and not refunded, at least, by currency",
    )

    @field_validator("recency_days")
    @classmethod
    def _rise(cls, days: Steps) -> Steps:
        if days[0] < 0 or any(each >= after for each, after in pairwise(days)):
            raise ValueError("expected four numbers of days, each larger than the one before")
        return days

    @field_validator("frequency_orders")
    @classmethod
    def _fall(cls, orders: Steps) -> Steps:
        if orders[-1] < 0 or any(each <= after for each, after in pairwise(orders)):
            raise ValueError("expected four numbers of orders, each smaller than the one before")
        return orders

    @field_validator("monetary")
    @classmethod
    def _all_fall(cls, monetary: dict[str, Amounts]) -> dict[str, Amounts]:
        for currency, amounts in monetary.items():
            finite = all(each.is_finite() and 0 <= each <= _MOST_AMOUNT for each in amounts)
            if not finite or any(each <= after for each, after in pairwise(amounts)):
                raise ValueError(
                    f"{currency}: expected four amounts, each smaller than the one before"
                )
        return monetary

    @property
    def thresholds(self) -> Thresholds:
        """The same in whole millionths."""
        return Thresholds(
            self.recency_days,
            self.frequency_orders,
            {
                currency: [int(each * MICRO) for each in amounts]
                for currency, amounts in self.monetary.items()
            },
        )


def _amounts(*written: str) -> Amounts:
    first, second, third, fourth = (Decimal(each) for each in written)
    return first, second, third, fourth
