"""Which pointers are kept, which are released, and which are over."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import PARKED
from schemas.subjects import Consent
from streams.rules.gate import ANALYTICS, ANALYTICS_REFUSED, ANALYTICS_UNKNOWN, Gate
from streams.rules.outcomes import ERASED
from streams.rules.parking import MOST_A_PERSON, Parking
from streams.rules.person import Person
from tests.stream_log import make_event

LIMIT_MS = 1_000
PID = b"p" * 16
GATE = Gate(counts=False, profiles=True, late_grant_ms=LIMIT_MS)


def parked(*received_ms: int) -> Parking:
    """Events of one person, an offset each."""
    parking = Parking(1, LIMIT_MS)
    for offset, at_ms in enumerate(received_ms):
        event = make_event(occurred_at_ms=at_ms, received_at_ms=at_ms)
        parking.park(PID, event, offset, ANALYTICS_UNKNOWN)
    return parking


def granted(valid_from_ms: int, recorded_at_ms: int) -> Consent:
    return Consent(ANALYTICS, "granted", valid_from_ms, None, recorded_at_ms)


def agreed(*decisions: Consent) -> Person:
    person = Person(PID)
    person.consents = list(decisions)
    return person


def offsets(parking: Parking, person: Person) -> list[int]:
    return [each.offset for each in parking.released(person, GATE)]


def restored(parking: Parking, generation: int = 1, limit_ms: int = LIMIT_MS) -> Parking:
    """What the next owner knows."""
    again = Parking(generation, limit_ms)
    for pid, left in parking.take_changed():
        if left is not None:
            again.restore(pid, PARKED.decode(PARKED.encode(left)))
    return again


def test_grant_releases_what_it_allows_and_was_recorded_in_time_for() -> None:
    parking = parked(100, 200, 300)
    assert offsets(parking, agreed(granted(150, 1_250))) == [2]
    assert offsets(parking, agreed(granted(150, 1_200))) == [1, 2]
    assert offsets(parking, agreed(granted(0, 1_301))) == []
    assert offsets(parking, Person(PID)) == []


def test_basis_that_was_changed_releases_nothing_without_a_grant() -> None:
    parking, other = parked(100), Consent("purpose/sale", "granted", 0, None, 0)
    gate = Gate(counts=True, profiles=True, late_grant_ms=LIMIT_MS)
    assert parking.released(agreed(other), gate) == []


def test_what_is_taken_is_parked_no_more() -> None:
    parking, person = parked(100, 200), agreed(granted(0, 300))
    for pointer in parking.released(person, GATE):
        parking.take(PID, pointer)
    assert offsets(parking, person) == []
    assert list(parking.take_changed()) == [(PID, None)]
    assert list(parking.take_changed()) == []


def test_nothing_is_parked_of_erased_people_or_without_a_limit() -> None:
    parking = Parking(1, LIMIT_MS)
    parking.park(PID, make_event(), 1, ERASED)
    assert not len(parking)
    parking = Parking(1, 0)
    parking.park(PID, make_event(), 1, ANALYTICS_REFUSED)
    assert not len(parking)
    assert not list(parking.take_changed())


def test_of_many_events_of_one_person_the_newest_stay() -> None:
    parking = parked(*range(MOST_A_PERSON + 5))
    assert offsets(parking, agreed(granted(0, 0))) == list(range(5, MOST_A_PERSON + 5))


def test_next_owner_knows_the_same_and_looks_at_all_of_it() -> None:
    again = restored(parked(100, 200))
    assert list(again.due) == [PID]
    assert offsets(again, agreed(granted(150, 300))) == [1]
    assert again.expire(1_101) == 1
    assert offsets(again, agreed(granted(0, 300))) == [1]


def test_pointers_of_an_older_generation_or_without_a_limit_are_taken_away() -> None:
    for again in (restored(parked(100), generation=2), restored(parked(100), limit_ms=0)):
        assert not again.due
        assert list(again.take_changed()) == [(PID, None)]


def test_refused_and_unknown_are_told_apart() -> None:
    parking = parked(100)
    refused = make_event(occurred_at_ms=150, received_at_ms=150)
    parking.park(PID, refused, 7, ANALYTICS_REFUSED)
    found = restored(parking).released(agreed(granted(0, 200)), GATE)
    assert [each.counted_as for each in found] == [ANALYTICS_UNKNOWN, ANALYTICS_REFUSED]


def test_erased_person_releases_nothing() -> None:
    parking, person = parked(100), agreed(granted(0, 200))
    parking.look_at(PID)
    person.erase(300)
    parking.forget(PID)
    assert not parking.due
    assert offsets(parking, person) == []
    assert list(parking.take_changed()) == [(PID, None)]


@given(st.lists(st.integers(0, 3_000), max_size=40), st.integers(0, 5_000))
def test_no_pointer_is_over_before_its_time_and_each_is_at_last(
    received_ms: list[int], now_ms: int
) -> None:
    parking = parked(*received_ms)
    everything = Gate(counts=True, profiles=True, late_grant_ms=10**9)
    parking.expire(now_ms)
    left = {each.offset for each in parking.released(agreed(granted(0, 0)), everything)}
    in_time = {at for at, ms in enumerate(received_ms) if ms + LIMIT_MS >= now_ms}
    assert in_time <= left
    assert parking.expire(3_001 + LIMIT_MS) == len(left)
    assert not len(parking)
