"""Are visits the same whatever order events arrive in, and do the counters add up to them?"""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.rules.enrich import visit_with
from streams.rules.person import Person

GAP_MS = 30 * 60_000
MINUTE_MS = 60_000

Sighting = tuple[int, bytes, str]
"""(occurred_at_ms, event_id, campaign_id)"""


def arrive(sightings: list[Sighting]) -> tuple[Person, Counter[tuple[str, int]]]:
    """The person after these, and the visits that the counters hold: (campaign, start) -> count."""
    person, counted = Person(b"p" * 16), Counter[tuple[str, int]]()
    for occurred_at_ms, event_id, campaign_id in sightings:
        for change in visit_with(person, occurred_at_ms, event_id, campaign_id, GAP_MS):
            counted[change.campaign_id, change.started_at_ms] += change.delta
    return person, counted


def recount(sightings: list[Sighting]) -> list[tuple[int, int, bytes, str]]:
    """The visits by going once through all events in the order of (time, id)."""
    visits: list[tuple[int, int, bytes, str]] = []
    for occurred_at_ms, event_id, campaign_id in sorted(sightings):
        if visits and occurred_at_ms - visits[-1][1] < GAP_MS:
            visits[-1] = (visits[-1][0], occurred_at_ms, *visits[-1][2:])
        else:
            visits.append((occurred_at_ms, occurred_at_ms, event_id, campaign_id))
    return visits


def visits_of(person: Person) -> list[tuple[int, int, bytes, str]]:
    return [
        (each.started_at_ms, each.ended_at_ms, each.first_id, each.campaign_id)
        for each in person.visits
    ]


# Times stand close to multiples of the gap, so that exact gaps, ties and joins are common.
times = st.builds(
    lambda gaps, minutes, ms: gaps * GAP_MS + minutes * MINUTE_MS + ms + 10 * GAP_MS,
    st.integers(0, 6),
    st.sampled_from([0, 0, 0, 1, 10, 29]),
    st.sampled_from([-1, 0, 0, 1]),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Sighting]:
    numbers = draw(st.lists(st.integers(0, 255), unique=True, max_size=25))
    return [
        (draw(times), bytes([number]) * 16, draw(st.sampled_from(["a", "b", "c"])))
        for number in numbers
    ]


@given(histories())
def test_visits_equal_a_recount(history: list[Sighting]) -> None:
    person, counted = arrive(history)
    expected = recount(history)
    assert visits_of(person) == expected
    assert +counted == Counter((campaign, start) for start, _, _, campaign in expected)
    assert not -counted


@given(histories(), st.randoms(use_true_random=False))
def test_order_of_arrival_changes_nothing(history: list[Sighting], chance: object) -> None:
    person, counted = arrive(history)
    chance.shuffle(history)  # type: ignore[attr-defined]
    other, other_counted = arrive(history)
    assert visits_of(person) == visits_of(other)
    assert +counted == +other_counted


@given(histories())
def test_same_event_again_changes_no_visit(history: list[Sighting]) -> None:
    """As after the deduplication window."""
    once, counted = arrive(history)
    twice, counted_again = arrive(history + history)
    assert visits_of(once) == visits_of(twice)
    assert +counted == +counted_again


@given(histories())
def test_neighbouring_visits_stand_at_least_the_gap_apart(history: list[Sighting]) -> None:
    visits = arrive(history)[0].visits
    for earlier, later in pairwise(visits):
        assert later.started_at_ms - earlier.ended_at_ms >= GAP_MS


def at(minutes: float, number: int = 0, campaign_id: str = "a") -> Sighting:
    return (int((1_000 + minutes) * MINUTE_MS), bytes([number]) * 16, campaign_id)


def start(minutes: float) -> int:
    return at(minutes)[0]


@pytest.mark.parametrize(("minutes", "visits"), [(29.999, 1), (30, 2), (30.001, 2)])
def test_exactly_thirty_minutes_begin_a_new_visit(minutes: float, visits: int) -> None:
    assert len(arrive([at(0), at(minutes)])[0].visits) == visits
    assert len(arrive([at(minutes), at(0)])[0].visits) == visits


def test_visit_goes_on_while_its_last_event_is_near() -> None:
    person, counted = arrive([at(0), at(20), at(40), at(60)])
    assert visits_of(person) == [(start(0), start(60), bytes(16), "a")]
    assert counted == {("a", start(0)): 1}


def test_late_event_joins_two_visits() -> None:
    person, counted = arrive([at(0, 1), at(40, 2, "b"), at(20, 3, "c")])
    assert visits_of(person) == [(start(0), start(40), b"\x01" * 16, "a")]
    assert +counted == {("a", start(0)): 1}


def test_late_event_exactly_the_gap_from_one_neighbour_joins_only_the_other() -> None:
    person, _ = arrive([at(0), at(50, 1), at(30, 2)])
    assert [(v.started_at_ms, v.ended_at_ms) for v in person.visits] == [
        (start(0), start(0)),
        (start(30), start(50)),
    ]


def test_late_event_moves_the_start_and_brings_its_campaign() -> None:
    person, counted = arrive([at(10, 1, "b"), at(0, 2, "a")])
    assert visits_of(person) == [(start(0), start(10), b"\x02" * 16, "a")]
    assert counted == {("b", start(10)): 0, ("a", start(0)): 1}


def test_tie_in_time_goes_to_the_smaller_id() -> None:
    for order in ([at(0, 1, "a"), at(0, 2, "b")], [at(0, 2, "b"), at(0, 1, "a")]):
        person, counted = arrive(order)
        assert visits_of(person) == [(start(0), start(0), b"\x01" * 16, "a")]
        assert +counted == {("a", start(0)): 1}
