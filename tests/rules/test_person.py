"""Is a person written, read and written again the same, whatever happened to them?"""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.carts import CartChange, CartLine, JourneyState
from schemas.circumstances import NAMES
from schemas.codec import SUBJECT
from schemas.subjects import ClearTrait, Consent, Purchase, Trait
from schemas.touches import Touch
from streams.rules.admit import Rules, admit
from streams.rules.deduplicate import Memory
from streams.rules.gate import Gate
from streams.rules.journeys import Journey
from streams.rules.outcomes import Admitted
from streams.rules.person import (
    Person,
    Visit,
    person_to_subject,
    read_person,
    subject_to_person,
)
from streams.rules.touches import Touches
from streams.rules.written_person import write_person
from tests.rules.test_fold import events
from tests.stream_log import GAP_MS, START_MS

CARTS = Journey("carts", 1, (), 1, 1, 1)
RULES = Rules(Gate(counts=True, profiles=True), GAP_MS, journeys=(CARTS,))
LONGS = st.integers(-(2**63), 2**63 - 1)
IDS = st.binary(min_size=16, max_size=16)
KEYS = st.binary(min_size=8, max_size=8)
TEXTS = st.text(max_size=30)
VISITS = st.builds(Visit, LONGS, LONGS, IDS, TEXTS)
TRAITS = st.builds(Trait, KEYS, LONGS, IDS, st.binary(max_size=100))
ENTRIES = st.tuples(LONGS, IDS, TEXTS, TEXTS, TEXTS, TEXTS, st.integers(0, 255))
PURCHASES = st.builds(Purchase, KEYS, KEYS, LONGS, LONGS, TEXTS, TEXTS, st.booleans(), LONGS)
TOUCHES = st.builds(Touch, LONGS, KEYS, LONGS, TEXTS)
INTS = st.integers(-(2**31), 2**31 - 1)
LINES = st.builds(
    CartLine, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, TEXTS, LONGS, st.none() | LONGS, TEXTS
)
CHANGES = st.builds(CartChange, LONGS, KEYS, INTS, st.lists(LINES, max_size=2))
STATES = st.builds(JourneyState, TEXTS, LONGS, INTS, INTS, LONGS, LONGS)
CONSENTS = st.builds(Consent, TEXTS, TEXTS, LONGS, st.none() | LONGS, LONGS)
CIRCUMSTANCES = st.dictionaries(st.sampled_from(NAMES), st.tuples(LONGS, KEYS, TEXTS), max_size=4)
AMOUNTS = st.dictionaries(TEXTS, LONGS, max_size=3)


@st.composite
def people(draw: st.DrawFn) -> Person:
    """Any person that a record can hold."""
    person = Person(draw(IDS))
    if draw(st.integers(0, 9)) == 0:
        person.erase(draw(LONGS))
        return person
    for name in ("first_seen_ms", "last_seen_ms", "events", "orders", "refunds"):
        setattr(person, name, draw(LONGS))
    person.spent, person.refunded = draw(AMOUNTS), draw(AMOUNTS)
    person.segments = tuple(draw(st.lists(TEXTS, max_size=3)))
    person.traits = {trait.key: trait for trait in draw(st.lists(TRAITS, max_size=4))}
    person.consents = draw(st.lists(CONSENTS, max_size=3))
    person.order_keys = draw(st.sets(KEYS, max_size=5))
    person.visits = draw(st.lists(VISITS, max_size=6))
    for entry in draw(st.lists(ENTRIES, max_size=40)):
        person.activity.add(*entry)
    for touch in draw(st.lists(TOUCHES, max_size=5)):
        person.touches = person.touches or Touches()
        person.touches.add(touch, GAP_MS)
    person.purchases = draw(st.lists(PURCHASES, max_size=3))
    person.cart = tuple(draw(st.lists(CHANGES, max_size=3)))
    person.journeys = tuple(draw(st.lists(STATES, max_size=2)))
    person.circumstances = draw(CIRCUMSTANCES)
    person.wake_at_ms = draw(LONGS)
    person.clear_traits = {
        name: ClearTrait(name, draw(LONGS), b"e" * 16, b'"x"')
        for name in draw(st.lists(TEXTS, max_size=2))
    }
    person.bought = person.rare = None
    return person


KEPT = ("settled", "bought", "bought_count", "rare", "size", "activity_since_ms", "wake_entry_ms")


def facts(person: Person) -> dict[str, Any]:
    """All that a person is, but for what is kept of its record."""
    known = {name: getattr(person, name) for name in Person.__slots__ if name not in KEPT}
    known["visits"] = [
        tuple(getattr(visit, name) for name in Visit.__struct_fields__) for visit in person.visits
    ]
    return known


@settings(deadline=None)
@given(people())
def test_written_person_equals_the_encoded_record(person: Person) -> None:
    expected = SUBJECT.encode(person_to_subject(person))
    assert write_person(person) == expected
    assert write_person(person) == expected  # from what was kept of the first time


@settings(deadline=None)
@given(people())
def test_person_is_read_back_as_written(person: Person) -> None:
    record = write_person(person)
    again = read_person(record)
    assert facts(again) == facts(person)
    assert write_person(again) == record
    assert person_to_subject(subject_to_person(person_to_subject(person))) == person_to_subject(
        person
    )


@settings(deadline=None)
@given(events(), st.lists(st.sampled_from(["write", "restart", "erase", "nothing"])))
def test_record_is_current_after_any_mix_of_events(arriving: Any, between: list[str]) -> None:
    """Parts kept from an earlier writing are never stale."""
    person, memory = Person(b"p" * 16), Memory(10**9)
    plan = iter(between)
    for event in arriving:
        admit(event, person, memory, RULES)
        match next(plan, "write"):
            case "restart":
                person = read_person(write_person(person))
            case "erase" if len(between) % 4 == 0:
                person.erase(START_MS)
            case "write":
                assert write_person(person) == SUBJECT.encode(person_to_subject(person))
    assert write_person(person) == SUBJECT.encode(person_to_subject(person))
    assert facts(read_person(write_person(person))) == facts(person)


def test_persons_of_many_campaigns_keep_each_visits_campaign() -> None:
    person = Person(b"p" * 16)
    person.visits = [Visit(at, at, bytes(16), f"c{at % 300}") for at in range(1_000)]
    again = read_person(write_person(person))
    assert [visit.campaign_id for visit in again.visits] == [f"c{at % 300}" for at in range(1_000)]


def test_admission_is_not_slowed_by_what_is_not_due() -> None:
    """An event of a known person that changes nothing settled leaves the kept bytes in place."""
    from tests.stream_log import make_event

    person, memory = Person(b"p" * 16), Memory(10**9)
    assert isinstance(admit(make_event(), person, memory, RULES), Admitted)
    write_person(person)
    kept = person.settled
    assert kept is not None
    assert isinstance(admit(make_event(), person, memory, RULES), Admitted)
    assert person.settled is kept
