"""Is a person left alone when they have heard enough, sleep, or bought meanwhile?"""

from collections import Counter
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from consumers.rules.local_time import Quiet, Zone
from consumers.rules.sending import (
    GO,
    Dropped,
    Held,
    Limits,
    decide_by_caps,
    decide_by_purchase,
    decide_by_sight,
    decide_by_time,
    retry_after_ms,
    window_of,
)
from runtime.settings import Settings
from schemas.consent import Basis
from schemas.subjects import Consent

HOUR_MS = 3_600_000
LIMITS = Limits(1, 3, Quiet(22 * 60, 8 * 60), 24 * HOUR_MS)
ZONES = ("Europe/Prague", "America/Sao_Paulo", "America/New_York")


def zone(name: str) -> Zone:
    return Zone(name, "trait", ZoneInfo(name))


def ms(text: str, name: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(name)).timestamp() * 1000)


def test_whoever_bought_since_hears_nothing_and_whoever_bought_before_does() -> None:
    assert decide_by_purchase(1000, [10, 999]) == GO
    found = decide_by_purchase(1000, [10, 1000, 2000])
    assert found == Dropped("purchase_since", {"ordered_at_ms": 2000, "since_ms": 1000})


def test_a_message_waits_for_the_morning_and_one_that_waited_too_long_is_dropped() -> None:
    prague = zone("Europe/Prague")
    due_ms = ms("2026-03-28T23:00", prague.name)
    morning_ms = ms("2026-03-29T08:00", prague.name)
    held = decide_by_time(due_ms, due_ms, prague, LIMITS)
    assert held == Held(
        morning_ms, "quiet_hours", {"timezone": "Europe/Prague", "timezone_by": "trait"}
    )
    assert decide_by_time(due_ms, morning_ms, prague, LIMITS) == GO
    # The next day has 23 hours: a day later is past the same time.
    late = decide_by_time(due_ms, due_ms + 24 * HOUR_MS + 1, prague, LIMITS)
    assert isinstance(late, Dropped) and late.rule == "too_late"


def test_a_second_message_on_a_long_day_is_one_too_many_and_on_the_next_is_not() -> None:
    prague = zone("Europe/Prague")
    # 2026-10-25 has 25 hours: more than 24 between two of its times.
    first = ms("2026-10-25T00:15", prague.name)
    again = first + 24 * HOUR_MS
    assert decide_by_caps([first], window_of(again, prague), prague, LIMITS) == Dropped(
        "day_cap", {"sent": 1, "most": 1, "timezone": "Europe/Prague", "timezone_by": "trait"}
    )
    # 2026-03-29 has 23: less than 24 to the same time on the next.
    first = ms("2026-03-29T00:15", prague.name)
    again = first + 23 * HOUR_MS
    assert decide_by_caps([first], window_of(again, prague), prague, LIMITS) == GO


@given(
    name=st.sampled_from(ZONES),
    year=st.sampled_from(((2018, 10), (2019, 2), (2026, 3), (2026, 10))),
    steps=st.lists(st.integers(1, 30 * HOUR_MS), max_size=60),
    most=st.tuples(st.integers(1, 2), st.integers(1, 4)),
)
def test_nobody_ever_gets_more_than_the_caps_in_a_calendar_day_or_week(
    name: str, year: tuple[int, int], steps: list[int], most: tuple[int, int]
) -> None:
    where = zone(name)
    limits = Limits(*most, Quiet(0, 0), 24 * HOUR_MS)
    now_ms = int(datetime(*year, 14, tzinfo=ZoneInfo(name)).timestamp() * 1000)
    sent: list[int] = []
    for step in steps:
        now_ms += step
        found = decide_by_caps(sent, window_of(now_ms, where), where, limits)
        # A reference that knows only the words of the promise, by the person's calendar.
        days, weeks = _by_calendar(sent, name)
        today = datetime.fromtimestamp(now_ms / 1000, ZoneInfo(name))
        is_free = days[today.date()] < most[0] and weeks[today.isocalendar()[:2]] < most[1]
        assert (found == GO) == is_free
        if is_free:
            sent.append(now_ms)
    days, weeks = _by_calendar(sent, name)
    assert all(count <= most[0] for count in days.values())
    assert all(count <= most[1] for count in weeks.values())


def _by_calendar(sent: list[int], name: str) -> tuple[Counter[object], Counter[object]]:
    walls = [datetime.fromtimestamp(at_ms / 1000, ZoneInfo(name)) for at_ms in sent]
    return Counter(at.date() for at in walls), Counter(at.isocalendar()[:2] for at in walls)


ANCHOR_MS, DUE_MS, MORNING_MS = 1_000, 2_000, 9_000


def said(
    status: str, recorded_ms: int, from_ms: int | None = None, to_ms: int | None = None
) -> Consent:
    begins_ms = recorded_ms if from_ms is None else from_ms
    return Consent("purpose/analytics", status, begins_ms, to_ms, recorded_ms)


@pytest.mark.parametrize(
    ("basis", "decided", "unseen_at_ms"),
    [
        ("legitimate_interest", [], None),
        ("consent", [], DUE_MS),
        ("legitimate_interest", [said("withdrawn", 800), said("granted", 900)], None),
        # The lane asked with all that was said until it came due.
        ("legitimate_interest", [said("granted", 1_500)], None),
        ("consent", [said("granted", 1_500)], None),
        ("legitimate_interest", [said("withdrawn", 3_000), said("granted", 4_000)], 3_000),
        ("legitimate_interest", [said("withdrawn", 1_000)], 1_000),
        # Recorded before, from a later time on; recorded since, of an earlier time.
        (
            "legitimate_interest",
            [said("withdrawn", 900, 3_000), said("granted", 950, 4_000)],
            2_000,
        ),
        ("legitimate_interest", [said("withdrawn", 3_000, 500), said("granted", 4_000)], 2_000),
        # All that the overlay keeps of somebody who withdrew and came back.
        ("legitimate_interest", [said("granted", 4_000)], 4_000),
        ("consent", [said("granted", 900, 900, 5_000)], 5_000),
        ("consent", [said("granted", 900, 900, 5_000), said("granted", 950, 6_000)], 5_000),
        ("consent", [said("granted", 900, 900, 5_000), said("granted", 950, 4_000)], None),
        ("legitimate_interest", [said("granted", 900, 900, 5_000)], None),
    ],
)
def test_who_was_out_for_any_time_may_have_bought(
    basis: Basis, decided: list[Consent], unseen_at_ms: int | None
) -> None:
    bases: dict[str, Basis] = {"analytics": basis, "personalisation": "legitimate_interest"}
    dropped = Dropped(
        "consent_interrupted",
        {"purpose": "analytics", "unseen_at_ms": unseen_at_ms or 0, "since_ms": ANCHOR_MS},
    )
    for of_pids in ([decided], [[], decided], [decided, decided]):
        found = decide_by_sight(ANCHOR_MS, DUE_MS, bases, of_pids, MORNING_MS)
        assert found == (GO if unseen_at_ms is None else dropped)


def test_carts_are_not_seen_without_personalisation() -> None:
    bases: dict[str, Basis] = dict.fromkeys(("analytics", "personalisation"), "legitimate_interest")
    refused = Consent("purpose/personalisation", "withdrawn", 3_000, None, 3_000)
    other = Consent("purpose/advertising", "withdrawn", 3_000, None, 3_000)
    found = decide_by_sight(ANCHOR_MS, DUE_MS, bases, [[refused, other]], MORNING_MS)
    assert isinstance(found, Dropped) and found.values["purpose"] == "personalisation"
    assert decide_by_sight(ANCHOR_MS, DUE_MS, bases, [[other]], MORNING_MS) == GO


@given(st.integers(1, 100), st.floats(0, 1))
def test_pauses_between_tries_double_up_to_an_hour_and_never_all_agree(
    tries: int, chance: float
) -> None:
    longest = min(5000 * 2 ** (tries - 1), HOUR_MS)
    assert longest // 2 <= retry_after_ms(tries, chance) <= longest
    assert retry_after_ms(tries, 0) < retry_after_ms(tries, 1)


def test_a_webhook_that_is_named_must_be_there_under_a_name_of_its_own() -> None:
    crm = {"name": "crm", "url": "https://crm.example", "secret_file": "s"}
    found = Settings.model_validate({"webhooks": [crm], "sending": {"segment_webhook": "crm"}})
    assert found.sending.segment_webhook == found.webhooks[0].name
    for url in (
        "",
        "http://127.0.0.1:8080",
        "http://[::1]:80/",
        "https://shop.example/consent-host/",
    ):
        assert Settings.model_validate({"consent": {"public_url": url}}).consent.public_url == url
    for wrong in (
        {"webhooks": [crm, crm]},
        {"webhooks": [crm | {"name": "email"}]},
        {"webhooks": [crm], "sending": {"segment_webhook": "cmr"}},
        {"sending": {"segment_webhook": "crm"}},
        {"webhooks": [crm | {"url": "ftp://crm.example"}]},
        {"webhooks": [crm | {"url": "https://user@crm.example"}]},
        {"sending": {"timezone": "Prague"}},
        {"sending": {"quiet_from": "24:00"}},
        # In a header these would end every mail, or begin another header.
        {"consent": {"public_url": "https://obchod.žofie.cz"}},
        {"consent": {"public_url": "https://shop.example\nBcc: a@b.cz"}},
        {"consent": {"public_url": "https://shop.example/\n"}},
        {"consent": {"public_url": "shop.example"}},
    ):
        with pytest.raises(ValidationError):
            Settings.model_validate(wrong)
