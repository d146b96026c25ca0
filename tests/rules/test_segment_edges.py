"""Is somebody in a segment to the millisecond, at both ends of every window?

Everything happens, and is asked, on full hours or a millisecond beside them: windows end, days fill and
consents begin and end at the very moments at which something else happens. Clocks may be ahead.
"""

import random
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from schemas.segment_rules import compile_segments
from schemas.segments import Segment, parse_segments
from schemas.subjects import Consent
from streams.rules.admit import admit
from streams.rules.deduplicate import Memory
from streams.rules.outcomes import Admitted
from streams.rules.person import Person
from tests.rules import test_segment_rules as streams
from tests.rules.test_segment_rules import LaneOfOne, arrive, random_segments
from tests.segment_truth import BASES, DAY_MS, HOUR_MS, MEASURES, Happened, members
from tests.stream_log import START_MS

HOURS = 20 * 24
"""A stream lasts so long; it is asked for as long again."""


def on_the_hour(chance: random.Random, at_ms: int, taken: Collection[int]) -> int:
    """When an event of `at_ms` happened: no two at one time, whose order would be up to their ids."""
    while True:
        hours = chance.choice((0, 0, 5, 30, -24, -72, -25, -240, -chance.randrange(300)))
        found_ms = at_ms + hours * HOUR_MS + chance.choice((0, 0, 0, 0, -1, 1))
        if found_ms not in taken:
            return found_ms


@pytest.mark.parametrize("seed", range(30))
def test_membership_changes_at_its_moment_and_not_before(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    random_event, random_consent = streams.random_event, streams.random_consent
    taken: set[int] = set()

    def event_on_the_hour(chance: random.Random, at_ms: int) -> Happened:
        occurred_at_ms = on_the_hour(chance, at_ms, taken)
        taken.add(occurred_at_ms)
        return replace(random_event(chance, at_ms), occurred_at_ms=occurred_at_ms)

    def consent_on_the_hour(chance: random.Random, at_ms: int) -> Consent:
        made = random_consent(chance, at_ms)
        lasts_ms = HOUR_MS * chance.choice((-1, 0, 1, 24, 50))
        ends_ms = None if made.valid_to_ms is None else made.valid_from_ms + lasts_ms
        return Consent(made.subject_of, made.status, made.valid_from_ms, ends_ms, at_ms)

    monkeypatch.setattr(streams, "random_event", event_on_the_hour)
    monkeypatch.setattr(streams, "random_consent", consent_on_the_hour)
    segments = random_segments(chance)
    lane = LaneOfOne(
        compile_segments(segments, BASES, MEASURES), Person(b"p" * 16), Memory(30 * DAY_MS)
    )
    lane.look(START_MS)
    events: list[Happened] = []
    consents: list[Consent] = []
    sent: list[tuple[object, Happened]] = []

    def assert_is_what_all_facts_say(now_ms: int) -> None:
        expected = members(segments, events, consents, now_ms)
        assert lane.members == expected, (now_ms, list(map(Segment.to_json, segments)))

    arrivals = {START_MS + HOUR_MS * chance.randrange(HOURS) for _ in range(20)}
    asked = {
        START_MS + HOUR_MS * chance.randrange(2 * HOURS) + chance.choice((-1, 0, 1))
        for _ in range(80)
    }
    for at_ms in sorted(arrivals | asked):
        while lane.wake_at_ms is not None and lane.wake_at_ms <= at_ms:
            due_ms = lane.wake_at_ms
            assert_is_what_all_facts_say(due_ms - 1)
            lane.until(due_ms)
            assert_is_what_all_facts_say(due_ms)
        if at_ms in arrivals:
            arrive(chance, lane, events, consents, sent, at_ms)
        assert_is_what_all_facts_say(at_ms)


@pytest.mark.parametrize(
    "asked",
    [
        {"computed": "days_since_first_seen", "at_most": 0},
        {"computed": "days_since_last_seen", "exactly": 0},
        {"computed": "days_since_last_order", "at_least": 0, "at_most": 0},
        {"computed": "recency", "exactly": 5},
    ],
)
def test_what_a_clock_ahead_of_ours_told_happened_today(asked: dict[str, object]) -> None:
    compiled = compile_segments(parse_segments([{"id": "s", "condition": asked}]), BASES, MEASURES)
    person, ahead_ms = Person(b"p" * 16), START_MS + HOUR_MS
    order = Happened("Order Completed", ahead_ms, order_id=1, cents=5, currency="EUR")
    record: Any = streams.told(order, b"e" * 16, START_MS)
    assert isinstance(admit(record, person, Memory(DAY_MS), streams.RULES), Admitted)
    lasts_ms = (2 if asked["computed"] == "recency" else 1) * DAY_MS  # 5 up to one day
    assert compiled.evaluate(person, START_MS) == (frozenset({"s"}), ahead_ms + lasts_ms)
    assert compiled.evaluate(person, ahead_ms + lasts_ms - 1)[0] == {"s"}
    assert compiled.evaluate(person, ahead_ms + lasts_ms)[0] == set()
