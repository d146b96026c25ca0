"""Are hours and days those of the person's own clock, also when clocks are put forward or back?"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consumers.rules.local_time import (
    Quiet,
    day_began_ms,
    instants_ms,
    quiet_until_ms,
    week_began_ms,
    zone_of,
)
from runtime.time_zones import is_zone, zones_by_country

PRAGUE, SAO_PAULO, NEW_YORK = "Europe/Prague", "America/Sao_Paulo", "America/New_York"
NIGHT = Quiet(22 * 60, 8 * 60)
MINUTE_MS, HOUR_MS = 60_000, 3_600_000

# Midday before the clocks are put forward and back: in March and October, in Brazil (until 2019)
# at midnight in November and February.
CHANGES = (
    (PRAGUE, "2026-03-28T12:00Z"),
    (PRAGUE, "2026-10-24T12:00Z"),
    (SAO_PAULO, "2018-11-03T12:00Z"),
    (SAO_PAULO, "2019-02-16T12:00Z"),
    (NEW_YORK, "2026-03-07T12:00Z"),
    (NEW_YORK, "2026-10-31T12:00Z"),
)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def text(at_ms: int | None) -> str | None:
    if at_ms is None:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%MZ")


def wall(at_ms: int, zone: str) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, ZoneInfo(zone))


@pytest.mark.parametrize(
    ("zone", "now", "until"),
    [
        # Plain nights: 22:00 is quiet, 08:00 no more.
        (PRAGUE, "2026-07-01T19:59Z", None),
        (PRAGUE, "2026-07-01T20:00Z", "2026-07-02T06:00Z"),
        (PRAGUE, "2026-07-02T05:59Z", "2026-07-02T06:00Z"),
        (PRAGUE, "2026-07-02T06:00Z", None),
        (SAO_PAULO, "2026-07-02T02:00Z", "2026-07-02T11:00Z"),
        (NEW_YORK, "2026-01-02T04:00Z", "2026-01-02T13:00Z"),
        # The night is an hour shorter, or longer.
        (PRAGUE, "2026-03-28T21:30Z", "2026-03-29T06:00Z"),
        (PRAGUE, "2026-10-24T20:30Z", "2026-10-25T07:00Z"),
        (PRAGUE, "2026-10-25T00:30Z", "2026-10-25T07:00Z"),
        (PRAGUE, "2026-10-25T01:30Z", "2026-10-25T07:00Z"),
        (NEW_YORK, "2026-03-08T03:30Z", "2026-03-08T12:00Z"),
        (NEW_YORK, "2026-11-01T02:30Z", "2026-11-01T13:00Z"),
        # In Brazil midnight itself was skipped, and came twice.
        (SAO_PAULO, "2018-11-04T01:30Z", "2018-11-04T10:00Z"),
        (SAO_PAULO, "2019-02-17T00:30Z", "2019-02-17T11:00Z"),
        (SAO_PAULO, "2019-02-17T02:30Z", "2019-02-17T11:00Z"),
    ],
)
def test_a_night_ends_at_eight_by_the_persons_clock(zone: str, now: str, until: str | None) -> None:
    assert text(quiet_until_ms(ms(now), ZoneInfo(zone), NIGHT)) == until


@pytest.mark.parametrize(
    ("zone", "quiet", "now", "until"),
    [
        # 02:30 is skipped: it is over when the clocks show 03:00 instead of 02:00.
        (PRAGUE, Quiet(22 * 60, 150), "2026-03-28T23:30Z", "2026-03-29T01:00Z"),
        (NEW_YORK, Quiet(22 * 60, 150), "2026-03-08T06:59Z", "2026-03-08T07:00Z"),
        (SAO_PAULO, Quiet(20 * 60, 0), "2018-11-04T01:00Z", "2018-11-04T03:00Z"),
        # 02:30 comes twice: it is over at the first, and for the half hour until the second not.
        (PRAGUE, Quiet(22 * 60, 150), "2026-10-25T00:10Z", "2026-10-25T00:30Z"),
        (PRAGUE, Quiet(22 * 60, 150), "2026-10-25T00:30Z", None),
        (PRAGUE, Quiet(22 * 60, 150), "2026-10-25T01:10Z", "2026-10-25T01:30Z"),
        (PRAGUE, Quiet(22 * 60, 150), "2026-10-25T01:30Z", None),
        (NEW_YORK, Quiet(22 * 60, 90), "2026-11-01T06:10Z", "2026-11-01T06:30Z"),
        (SAO_PAULO, Quiet(20 * 60, 1410), "2019-02-17T02:10Z", "2019-02-17T02:30Z"),
        # No quiet hours.
        (PRAGUE, Quiet(480, 480), "2026-03-28T23:30Z", None),
    ],
)
def test_an_end_that_is_skipped_or_comes_twice_is_where_the_clocks_say(
    zone: str, quiet: Quiet, now: str, until: str | None
) -> None:
    assert text(quiet_until_ms(ms(now), ZoneInfo(zone), quiet)) == until


@pytest.mark.parametrize(("zone", "from_"), CHANGES)
def test_a_walk_minute_by_minute_over_a_change_finds_the_same_end(zone: str, from_: str) -> None:
    began_ms = ms(from_)
    minutes = [began_ms + n * MINUTE_MS for n in range(36 * 60)]
    is_quiet = {at: not 8 <= wall(at, zone).hour < 22 for at in minutes}
    awake_ms = 0
    for at in reversed(minutes):
        if not is_quiet[at]:
            awake_ms = at
            assert quiet_until_ms(at, ZoneInfo(zone), NIGHT) is None
        elif awake_ms:
            assert quiet_until_ms(at, ZoneInfo(zone), NIGHT) == awake_ms


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        (PRAGUE, "2026-03-29", 23),
        (PRAGUE, "2026-10-25", 25),
        (NEW_YORK, "2026-03-08", 23),
        (NEW_YORK, "2026-11-01", 25),
        (SAO_PAULO, "2018-11-04", 23),
        (SAO_PAULO, "2019-02-16", 25),
        (PRAGUE, "2026-06-01", 24),
    ],
)
def test_a_calendar_day_has_as_many_hours_as_its_clocks_say(
    zone: str, day: str, hours: int
) -> None:
    date = datetime.fromisoformat(day).date()
    began = instants_ms(date, 0, ZoneInfo(zone))[0]
    ended = instants_ms(date + timedelta(days=1), 0, ZoneInfo(zone))[0]
    assert ended - began == hours * HOUR_MS
    for at in (began, began + HOUR_MS, ended - 1):
        assert day_began_ms(at, ZoneInfo(zone)) == began
    assert day_began_ms(ended, ZoneInfo(zone)) == ended
    assert day_began_ms(began - 1, ZoneInfo(zone)) < began


def test_a_week_with_a_change_has_an_hour_less_or_more() -> None:
    for zone, monday, hours in (
        (PRAGUE, "2026-03-22T23:00Z", 167),
        (PRAGUE, "2026-10-18T22:00Z", 169),
        (SAO_PAULO, "2018-10-29T03:00Z", 167),
        (NEW_YORK, "2026-10-26T04:00Z", 169),
    ):
        began, ended = ms(monday), ms(monday) + hours * HOUR_MS
        assert week_began_ms(began, ZoneInfo(zone)) == began
        assert week_began_ms(ended - 1, ZoneInfo(zone)) == began
        assert week_began_ms(ended, ZoneInfo(zone)) == ended


@given(
    zone=st.sampled_from((PRAGUE, SAO_PAULO, NEW_YORK, "Australia/Lord_Howe", "Asia/Kolkata")),
    now_ms=st.integers(ms("2017-01-01T00:00Z"), ms("2027-01-01T00:00Z")),
    from_minute=st.integers(0, 1439),
    to_minute=st.integers(0, 1439),
)
@example(SAO_PAULO, ms("2019-02-17T02:30Z"), 1320, 480)
@example(PRAGUE, ms("2026-10-25T01:29Z"), 1320, 150)
def test_when_quiet_hours_end_it_is_not_quiet_any_more(
    zone: str, now_ms: int, from_minute: int, to_minute: int
) -> None:
    quiet = Quiet(from_minute, to_minute)
    until = quiet_until_ms(now_ms, ZoneInfo(zone), quiet)
    if until is None:
        local = wall(now_ms, zone)
        assert not quiet.covers(local.hour * 60 + local.minute)
        return
    assert now_ms < until <= now_ms + 25 * HOUR_MS
    assert quiet_until_ms(until, ZoneInfo(zone), quiet) is None
    # As late as that was needed: a minute before it still was quiet.
    assert quiet_until_ms(max(now_ms, until - MINUTE_MS), ZoneInfo(zone), quiet) is not None


@pytest.mark.parametrize(
    ("trait", "country", "expected"),
    [
        ("America/New_York", "CZ", ("America/New_York", "trait")),
        (None, "CZ", ("Europe/Prague", "country")),
        ("", "DE", ("Europe/Berlin", "country")),
        ("Europe", "CZ", ("Europe/Prague", "country")),
        ("../../etc/passwd", "CZ", ("Europe/Prague", "country")),
        ("Mars/Olympus\0", "CZ", ("Europe/Prague", "country")),
        ("a/" * 5000, "CZ", ("Europe/Prague", "country")),
        ("a/" * 300 + "b", "CZ", ("Europe/Prague", "country")),
        (60, "CZ", ("Europe/Prague", "country")),
        (["Europe/Prague"], None, ("Asia/Tokyo", "configuration")),
        # Several zones, each with many people: nobody knows.
        (None, "US", ("Asia/Tokyo", "configuration")),
        (None, "BR", ("Asia/Tokyo", "configuration")),
        (None, "XX", ("Asia/Tokyo", "configuration")),
    ],
)
def test_the_zone_is_what_the_person_says_else_their_country_else_the_configuration(
    trait: object, country: str | None, expected: tuple[str, str]
) -> None:
    found = zone_of(trait, None, country, zones_by_country(), "Asia/Tokyo")
    assert (found.name, found.known_by) == expected


@pytest.mark.parametrize(
    ("trait", "seen", "expected"),
    [
        ("Europe/Rome", "Asia/Seoul", ("Europe/Rome", "trait")),
        ("nowhere", "Asia/Seoul", ("Asia/Seoul", "last_seen")),
        (None, "Asia/Seoul", ("Asia/Seoul", "last_seen")),
        (None, "Asia/", ("Europe/Prague", "country")),
    ],
)
def test_where_they_were_last_seen_stands_between_what_they_say_and_their_country(
    trait: object, seen: str, expected: tuple[str, str]
) -> None:
    found = zone_of(trait, seen, "CZ", zones_by_country(), "Asia/Tokyo")
    assert (found.name, found.known_by) == expected


def test_every_countrys_zone_is_one_of_the_database() -> None:
    assert len(zones_by_country()) > 200
    assert all(map(is_zone, zones_by_country().values()))
