"""What do a person's clock and calendar say?

Quiet hours and limits by day are promises in the person's own time, and clocks there are put
forward and back. So each question is asked of wall times, and answered with instants: a time that
the clocks skip stands for the instant at which they skip it, one that comes twice for its first
coming or, once that is over, its second. A calendar day has 23, 24 or 25 hours.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_SECOND_MS = 1000
_HOUR_MINUTES = 60
_DAY = timedelta(days=1)
_LONGEST_NAME = 64  # twice the longest of the database

KnownBy = Literal["trait", "last_seen", "country", "configuration"]


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone of the time zone database, and how we know that the person lives by it."""

    name: str
    known_by: KnownBy
    rules: tzinfo


@dataclass(frozen=True, slots=True)
class Quiet:
    """Hours in which nothing is sent, in minutes of the day; over midnight if they end before they
    begin, none at all if they end where they begin."""

    from_minute: int
    to_minute: int

    def covers(self, minute: int) -> bool:
        """True if the clock shows a quiet time. The end is not quiet any more."""
        if self.from_minute <= self.to_minute:
            return self.from_minute <= minute < self.to_minute
        return minute >= self.from_minute or minute < self.to_minute


def zone_of(
    trait: object,
    seen: str | None,
    country: str | None,
    by_country: Mapping[str, str],
    configured: str,
) -> Zone:
    """The zone that a person's trait names, else the one they were last seen in, else that of their
    country (ISO 3166) where it has one for nearly everybody, else the configured one. A trait that
    names no zone is as none."""
    named: tuple[tuple[object, KnownBy], ...] = (
        (trait, "trait"),
        (seen, "last_seen"),
        (by_country.get(country or ""), "country"),
    )
    for name, known_by in named:
        if isinstance(name, str) and (found := _named(name)) is not None:
            return Zone(name, known_by, found)
    return Zone(configured, "configuration", ZoneInfo(configured))


def _named(name: str) -> tzinfo | None:
    # Also a path out of the database or a directory of it; and a path of hundreds of directories,
    # which the search for it does not end well.
    if len(name) > _LONGEST_NAME:
        return None
    try:
        return ZoneInfo(name) if "/" in name or name == "UTC" else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def quiet_until_ms(now_ms: int, zone: tzinfo, quiet: Quiet) -> int | None:
    """When the quiet hours end in which it is now; None if it is in none."""
    local = _local(now_ms, zone)
    minute = local.hour * _HOUR_MINUTES + local.minute
    if not quiet.covers(minute):
        return None
    ends_on = local.date() + (_DAY if minute >= quiet.to_minute else timedelta())
    ends = instants_ms(ends_on, quiet.to_minute, zone)
    return next((at_ms for at_ms in ends if at_ms > now_ms), None)


def day_began_ms(now_ms: int, zone: tzinfo) -> int:
    """The first instant of the calendar day that it is now."""
    return instants_ms(_local(now_ms, zone).date(), 0, zone)[0]


def week_began_ms(now_ms: int, zone: tzinfo) -> int:
    """The first instant of the calendar week that it is now; weeks begin on Monday (ISO 8601)."""
    today = _local(now_ms, zone).date()
    return instants_ms(today - _DAY * today.weekday(), 0, zone)[0]


def instants_ms(day: date, minute: int, zone: tzinfo) -> list[int]:
    """When the clocks show that time on that day: once, or twice where they are put back over it.
    Where they are put forward over it, when they are."""
    wall = datetime(day.year, day.month, day.day, *divmod(minute, _HOUR_MINUTES), tzinfo=zone)
    first, second = (_ms(wall.replace(fold=fold)) for fold in (0, 1))
    if first == second:
        return [first]
    if first < second:
        return [first, second]
    return [_skipped_at_ms(second, first, zone)]


def _skipped_at_ms(before_ms: int, after_ms: int, zone: tzinfo) -> int:
    """When the clocks were put forward, between two instants."""
    old = _local(before_ms, zone).utcoffset()
    while after_ms - before_ms > _SECOND_MS:
        middle_ms = (before_ms + after_ms) // (2 * _SECOND_MS) * _SECOND_MS
        if _local(middle_ms, zone).utcoffset() == old:
            before_ms = middle_ms
        else:
            after_ms = middle_ms
    return after_ms


def _local(at_ms: int, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(at_ms // _SECOND_MS, UTC).astimezone(zone)


def _ms(wall: datetime) -> int:
    return int(wall.timestamp()) * _SECOND_MS
