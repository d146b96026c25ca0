"""How does an amount of money in JSON become a whole number that can be added exactly?

Shops write money as a JSON number (19.99) or as a decimal string ("19.99"). Sums of doubles drift,
so everything behind the collector counts whole millionths of the currency's unit: finer than any
currency needs, and 10^12 units still fit a signed 64-bit integer.
"""

import re
from decimal import ROUND_HALF_EVEN, Decimal

from schemas.counters import MICRO

UNITS_BELOW = 10**12
EXPECTED = "a number or decimal string from 0 to below 1,000,000,000,000"

_MILLIONTH = Decimal("0.000001")
_DECIMAL = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?", re.ASCII)
_EXACT_BELOW = 2**49  # below this many millionths a double names one decimal of six places


def parse_micro(value: object) -> int | None:
    """The amount in millionths, rounded half to even; None when it is not an amount.

    An amount is a JSON number or a plain decimal string ("12.50": no sign, exponent or blank),
    finite, at least 0 and below 10^12 units. A double means the shortest decimal that is written
    so: 19.99 is 19_990_000, not 19.98999...
    """
    if type(value) is float:
        if not 0 <= value < UNITS_BELOW:  # also false for NaN
            return None
        near = round(value * MICRO)
        if near < _EXACT_BELOW and near / MICRO == value:
            return near
        return _round(Decimal(repr(value)))
    if type(value) is int:
        return value * MICRO if 0 <= value < UNITS_BELOW else None
    if type(value) is str and _DECIMAL.fullmatch(value):
        return _round(Decimal(value))
    return None


def _round(value: Decimal) -> int | None:
    if value >= UNITS_BELOW:
        return None
    micro = int(value.quantize(_MILLIONTH, ROUND_HALF_EVEN).scaleb(6))
    return micro if micro < UNITS_BELOW * MICRO else None
