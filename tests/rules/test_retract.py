"""What a late decision takes back of a person's facts, and what is left of their visits."""

from collections import Counter
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import HEADER_BYTES, RETRACTED
from schemas.events import Accepted, Retracted
from schemas.subjects import Consent
from sinks.rules.counters import Prefix, people_to_look_up, plan_write, tally
from sinks.rules.retract import (
    KnownFact,
    facts_to_retract,
    person_from,
    settle_visits,
    visits_of,
)
from sinks.rules.rows import fact_rows
from sinks.rules.runs import split_into_runs
from sinks.rules.take_back import tally_retraction
from streams.rules.enrich import visit_with
from streams.rules.person import Person
from tests.rules.test_rows import EVENT

GAP_MS = 30 * 60_000
PID = EVENT.pid

SIGHTINGS = st.lists(
    st.tuples(
        st.builds(lambda gaps, ms: gaps * GAP_MS // 2 + ms, st.integers(0, 8), st.integers(-1, 1)),
        st.integers(0, 255).map(lambda number: bytes([number]) * 16),
        st.sampled_from("ab"),
    ),
    unique_by=lambda each: each[1],
    max_size=12,
)


@given(SIGHTINGS)
def test_visits_found_at_once_are_those_that_the_lane_finds_one_by_one(
    sightings: list[tuple[int, bytes, str]],
) -> None:
    person, counted = Person(PID), Counter[tuple[str, int]]()
    for at_ms, event_id, campaign_id in sightings:
        for change in visit_with(person, at_ms, event_id, campaign_id, GAP_MS):
            counted[change.campaign_id, change.started_at_ms] += change.delta
    assert visits_of(sightings, GAP_MS) == +counted


@given(SIGHTINGS, st.integers(0, 12))
def test_corrections_lead_from_the_visits_that_were_to_those_that_are_left(
    sightings: list[tuple[int, bytes, str]], kept: int
) -> None:
    person = person_from([], GAP_MS)
    person.events = list(sightings)
    settle_visits(person)
    counted = Counter(person.visits)
    person.events = person.events[:kept]
    for change in settle_visits(person):
        counted[change.campaign_id, change.started_at_ms] += change.delta
    assert +counted == counted == visits_of(sightings[:kept], GAP_MS)
    assert settle_visits(person) == []


def viewed(index: int, at_ms: int, campaign: str, **changes: Any) -> Accepted:
    fields = {
        "event": "Product Viewed",
        "event_id": index.to_bytes(16, "big"),
        "occurred_at_ms": at_ms,
        "received_at_ms": at_ms,
        "campaign_id": campaign,
        "index": index,
    }
    return msgspec.structs.replace(EVENT, **(fields | changes))


def retraction(index: int, *decisions: Consent) -> Retracted:
    return Retracted(
        PID, "analytics", "legitimate_interest", list(decisions), EVENT.generation, EVENT.lane,
        EVENT.seq, "consents.changed", EVENT.lane, 5, index,
    )  # fmt: skip


def withdrawn(from_ms: int, until_ms: int | None, recorded_at_ms: int) -> Consent:
    return Consent("purpose/analytics", "withdrawn", from_ms, until_ms, recorded_at_ms)


def live(prefix: Prefix) -> dict[tuple[str, str, int], int]:
    """(campaign, metric, minute) -> sum over generations."""
    totals: Counter[tuple[str, str, int]] = Counter()
    for (campaign, metric, _, minute_s, _), counter in prefix.counters.items():
        totals[campaign, metric, minute_s] += counter.value
    return {key: value for key, value in totals.items() if value}


def test_visit_whose_first_event_is_taken_back_begins_with_the_next() -> None:
    prefix, person = Prefix(0), Person(PID)
    events = [(10, viewed(1, 0, "spring")), (11, viewed(2, 60_000, "summer"))]
    for at, (offset, event) in enumerate(events):
        changes = visit_with(
            person, event.occurred_at_ms, event.event_id, event.campaign_id, GAP_MS
        )
        events[at] = (offset, msgspec.structs.replace(event, visit_changes=changes))
    plan = plan_write(prefix, tally(prefix, events, 12))
    stored = [KnownFact(fact) for fact in plan.facts]
    assert live(prefix)["spring", "visits", 0] == 1

    taken = tally_retraction(prefix, retraction(3, withdrawn(0, 1, 999_999)), 12, stored, GAP_MS)
    plan = plan_write(prefix, taken)
    assert [(fact[4], at) for fact, _, at in plan.marks] == [(10, 12)]
    assert live(prefix) == {
        ("summer", "product_views", 60): 1,
        ("summer", "visits", 60): 1,
    }
    # From now on the person's visits are found here, whatever the lane thinks.
    later = [(13, viewed(4, 120_000, "autumn"))]
    assert people_to_look_up(prefix, later) == set()
    plan_write(prefix, tally(prefix, later, 14))
    assert live(prefix)["summer", "visits", 60] == 1
    assert ("autumn", "visits", 120) not in live(prefix)


def test_needless_retraction_writes_nothing_and_marks_nobody() -> None:
    prefix = Prefix(0)
    plan = plan_write(prefix, tally(prefix, [(1, viewed(1, 0, "spring"))], 2))
    stored = [KnownFact(fact) for fact in plan.facts]
    needless = retraction(2, withdrawn(1, None, 1))
    plan = plan_write(prefix, tally_retraction(prefix, needless, 2, stored, GAP_MS))
    assert not plan.facts
    assert not plan.marks
    assert not plan.counters
    assert plan.progress.next_offset == 3
    assert not prefix.marked


def test_event_that_a_late_grant_released_is_kept_within_the_limit_that_was_told() -> None:
    stored = [KnownFact(fact) for fact in fact_rows(viewed(1, 5_000, "spring"), 0, 1)]
    granted = Consent("purpose/analytics", "granted", 5_000, None, 8_000)
    told = msgspec.structs.replace(retraction(2, withdrawn(0, None, 1), granted), late_grant_s=3)
    assert facts_to_retract(told, stored) == []
    assert facts_to_retract(msgspec.structs.replace(told, late_grant_s=2), stored)


def test_retraction_of_an_older_version_is_read_and_knows_no_late_grants() -> None:
    told = retraction(2, withdrawn(1, None, 1))
    older = RETRACTED.headers[0] + RETRACTED.encode(told)[HEADER_BYTES:-1]
    [run, _] = split_into_runs("accepted", 0, [(7, PID, older)], 8)
    assert run.other == told
    assert told.late_grant_s == 0


def test_thousand_decisions_travel_and_decide() -> None:
    changes = [withdrawn(2 * at, 2 * at + 1, 10**9 + at) for at in range(1_000)]
    told = RETRACTED.decode(RETRACTED.encode(retraction(2_001, *changes)))
    events = [viewed(at, at, "spring", received_at_ms=at) for at in range(1, 2_000)]
    prefix = Prefix(0)
    rows = [
        KnownFact(fact)
        for offset, event in enumerate(events)
        for fact in fact_rows(event, 0, offset)
    ]
    prefix.next_offset = len(events)
    taken = tally_retraction(prefix, told, len(events), rows, GAP_MS)
    assert [fact[8] for fact, _, _ in taken.marks] == list(range(2, 2_000, 2))
