"""When did a call happen, by which clock, and how sure are we?

A client writes `timestamp` when something happens and `sentAt` when it sends it, both by its own
clock; only `received_at` is ours. A clock that is far off shows in `sentAt`: then the difference is
taken out. Nothing has happened in the future, so what remains there is clamped to our clock.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from schemas.events import FLAG_CLAMPED, FLAG_SKEW_CORRECTED, FLAG_TIMESTAMP_MISSING

FIRST_MS = 0
LAST_MS = 2**32 * 1000 - 1  # 2106-02-07: the last second that ClickHouse's DateTime can hold
EXPECTED = "an RFC 3339 time such as 2026-01-31T12:00:00Z"
EXPECTED_SPAN = "a time from 1970 to 2106"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_LONGEST = 64


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """What is still believed: skew of a client's clock, and distance into the future; ms."""

    skew_ms: int
    future_ms: int


@dataclass(frozen=True, slots=True)
class When:
    """`occurred_at_ms` (UTC) with the FLAG_... bits that tell how it came about."""

    occurred_at_ms: int
    flags: int


def parse_time_ms(text: object) -> int | None:
    """UTC milliseconds since 1970 of an ISO 8601 time; None when it is not one.

    A time without a zone is read as UTC; digits beyond the millisecond are cut off.
    """
    if type(text) is not str or len(text) > _LONGEST:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return (at - _EPOCH) // _MILLISECOND


def decide_when(
    written_ms: int | None, sent_at_ms: int | None, received_at_ms: int, limits: TimeLimits
) -> When | None:
    """When a call happened; None when that lies outside 1970 to 2106.

    `written_ms` is the call's own timestamp, None when it has none.
    """
    if written_ms is None:
        return When(received_at_ms, FLAG_TIMESTAMP_MISSING)
    flags = 0
    if sent_at_ms is not None:
        skew_ms = received_at_ms - sent_at_ms
        if abs(skew_ms) > limits.skew_ms:
            written_ms += skew_ms
            flags = FLAG_SKEW_CORRECTED
    if not FIRST_MS <= written_ms <= LAST_MS:
        return None
    if written_ms > received_at_ms + limits.future_ms:
        return When(received_at_ms, flags | FLAG_CLAMPED)
    return When(written_ms, flags)
