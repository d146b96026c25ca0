"""Amounts of money: JSON to whole millionths."""

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.money import parse_micro


@pytest.mark.parametrize(
    ("value", "micro"),
    [
        (19.99, 19_990_000),
        (0, 0),
        (-0.0, 0),
        (7, 7_000_000),
        (0.1 + 0.2, 300_000),
        ("12.50", 12_500_000),
        ("007", 7_000_000),
        (0.0000005, 0),
        (0.0000015, 2),
        ("0.0000025", 2),
        (1e-9, 0),
        (999_999_999_999, 999_999_999_999_000_000),
        ("999999999999.999999", 999_999_999_999_999_999),
    ],
)
def test_amount_becomes_millionths(value: object, micro: int) -> None:
    assert parse_micro(value) == micro


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -0.01,
        -1,
        10**12,
        1e12,
        "999999999999.9999999",
        10**400,
        True,
        None,
        [],
        {},
        "",
        "NaN",
        "-1",
        "+1",
        "1e3",
        "12,50",
        " 1",
        "1\n",
        "٣",
        ".5",
        "1.",
        "9" * 31,
        "twelve",
    ],
)
def test_anything_else_is_no_amount(value: object) -> None:
    assert parse_micro(value) is None


@given(st.floats(min_value=0, max_value=1e12, exclude_max=True, allow_nan=False))
def test_double_means_its_shortest_decimal(value: float) -> None:
    rounded = Decimal(repr(value)).quantize(Decimal("0.000001"), ROUND_HALF_EVEN)
    assert parse_micro(value) == (int(rounded * 10**6) if rounded < 10**12 else None)


@given(st.decimals(min_value=0, max_value=10**11, places=6))
def test_number_and_string_agree_on_up_to_six_places(value: Decimal) -> None:
    assert parse_micro(f"{value:f}") == int(value * 10**6)
    if value < 10**8:
        assert parse_micro(float(value)) == int(value * 10**6)
