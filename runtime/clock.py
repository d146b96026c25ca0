"""What time is it? Asked here and passed on, so that rules and tests need no real clock."""

import time
from collections.abc import Callable

ClockMs = Callable[[], int]
"""Gives UTC milliseconds since 1970."""


def now_ms() -> int:
    """UTC milliseconds since 1970, by this machine's clock."""
    return time.time_ns() // 1_000_000
