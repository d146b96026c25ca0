"""How is a moment written for people and tools? RFC 3339, UTC, to the millisecond."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE_S = 60


def rfc3339(at_ms: int) -> str:
    """UTC milliseconds as text: 0 is '1970-01-01T00:00:00.000Z'."""
    moment = _EPOCH + timedelta(milliseconds=at_ms)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def first_minute_s(moment: datetime) -> int:
    """UTC seconds of the first whole minute that begins at `moment` (aware) or later."""
    past_s = (moment - _EPOCH) // timedelta(microseconds=1)
    return -(-past_s // (MINUTE_S * 1_000_000)) * MINUTE_S
