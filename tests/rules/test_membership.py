"""Is everybody looked at once definitions change, whatever happens in between?"""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from consumers.rules.segment_preview import segments_of_subject
from schemas.codec import SEGMENT_CHANGED, SUBJECT
from schemas.consent import Basis
from schemas.segment_records import SegmentChanged, SegmentsDefined, SegmentsInForce
from schemas.segment_rules import compile_segments
from schemas.segments import REPEAT_BUYERS, SegmentsInvalid, parse_segments
from schemas.subjects import Member
from schemas.traits import SHIPPED, Measures
from streams.outputs import Outputs
from streams.rules import membership
from streams.rules.enrich import visit_with
from streams.rules.kinship import Kinship
from streams.rules.membership import Membership
from streams.rules.person import Person, person_to_subject, subject_to_person
from tests.lane_log import TOPICS
from tests.stream_log import START_MS

MINUTE_MS, HOUR_MS = 60_000, 3_600_000
BASES: dict[str, Basis] = {"personalisation": "legitimate_interest"}
SEEN: dict[str, object] = {"id": "seen", "condition": {"computed": "events", "at_least": 1}}


def defined(*segments: dict[str, object], version: int = 1) -> SegmentsDefined:
    return SegmentsDefined(version, 5, json.dumps(segments))


def people(count: int) -> dict[bytes, Person]:
    """People with one event each."""
    found = {}
    for number in range(count):
        person = Person(number.to_bytes(16, "big"))
        person.events = 1
        found[person.pid] = person
    return found


def restarted(force: SegmentsInForce | None, known: dict[bytes, Person]) -> Membership:
    made = Membership(BASES, force)
    made.look_at(known)
    return made


def test_everybody_is_looked_at_in_slices_and_that_is_known_at_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(membership, "PEOPLE_A_SLICE", 2)
    known, lane = people(5), Membership(BASES)
    assert lane.switch(defined(SEEN), known)
    written = lane.take_fresh()
    assert written is not None and not written.is_filled
    looked_at: set[bytes] = set()
    while lane.is_waiting:
        assert lane.take_fresh() is None
        looked_at |= {each.pid for each in lane.slice(known, 0, 1)}
    assert looked_at == set(known)
    written = lane.take_fresh()
    assert written is not None and written.is_filled
    assert not restarted(written, known).is_waiting


def test_after_a_crash_in_between_everybody_is_looked_at_again_and_nothing_changes_twice() -> None:
    known, lane = people(3), Membership(BASES)
    lane.switch(defined(SEEN), known)
    written = lane.take_fresh()
    done = known[bytes(15) + b"\x01"]
    done.segments, _ = lane.evaluate(done, 0)
    again = restarted(written, known)
    assert again.is_waiting and again.version == 1
    assert {each.pid for each in again.slice(known, 0, 1)} == set(known) - {done.pid}


def test_definitions_that_are_in_force_are_no_switch_and_wrong_ones_change_nothing() -> None:
    lane = Membership(BASES)
    assert lane.switch(defined(SEEN), [])
    assert not lane.switch(defined(SEEN), [])
    with pytest.raises(SegmentsInvalid):
        lane.switch(defined({"id": "x", "condition": {}}, version=2), [])
    with pytest.raises(ValueError, match="Expecting"):
        lane.switch(SegmentsDefined(2, 5, "["), [])
    assert lane.version == 1
    # A log that was lost begins to count anew.
    assert lane.switch(defined(version=1), [])


def test_another_legal_basis_has_everybody_looked_at() -> None:
    known = people(1)
    lane = Membership(BASES)
    lane.switch(defined(SEEN), [])
    written = lane.take_fresh()
    bases: dict[str, Basis] = {"personalisation": "consent"}
    stricter = Membership(bases, written)
    stricter.look_at(known)
    known[bytes(16)].segments = ("seen",)
    assert [each.pid for each in stricter.slice(known, 0, 1)] == [bytes(16)]


def test_another_threshold_has_everybody_looked_at_where_scores_are_asked_for() -> None:
    known = people(1)
    other = Measures(replace(SHIPPED.thresholds, recency_days=(1, 2, 3, 4)), 30)
    recent: dict[str, object] = {
        "id": "recent",
        "condition": {"computed": "recency", "at_least": 4},
    }
    for segment, is_asked in ((SEEN, False), (recent, True)):
        lane = Membership(BASES)
        lane.switch(defined(segment), [])
        written = lane.take_fresh()
        again = Membership(BASES, written, other)
        again.look_at(known)
        assert again.is_waiting is is_asked


def test_a_lane_of_before_there_were_definitions_lists_its_members_anew() -> None:
    known = people(2)
    buyer = known[bytes(16)]
    buyer.orders, buyer.segments = 2, (REPEAT_BUYERS,)
    assert restarted(None, known).slice(known, 0, 1) == [buyer]


def test_who_belongs_to_another_is_in_none() -> None:
    lane = Membership(BASES)
    (person,) = people(1).values()
    person.orders = 2
    assert lane.evaluate(person, 0) == ((REPEAT_BUYERS,), None)
    person.kinship = Kinship()
    assert lane.evaluate(person, 0) == ((REPEAT_BUYERS,), None)
    person.kinship.moved_to = b"r" * 16
    assert lane.evaluate(person, 0) == ((), None)


def test_visits_of_a_whole_person_are_apart_by_the_gap_that_is_configured() -> None:
    """Also when the person is looked at as the lane starts, before anybody was settled."""
    rare: dict[str, object] = {"id": "rare", "condition": {"computed": "visits", "exactly": 1}}
    parts = []
    for number in (1, 2):
        part = Person(bytes([number]) * 16)
        visit_with(part, START_MS + number * 40 * MINUTE_MS, bytes([number]) * 16, "a", HOUR_MS)
        parts.append(person_to_subject(part))
    root, other = parts
    kin = [Member(other.pid, other.pid, b"", SUBJECT.encode(other))]
    whole = msgspec.structs.replace(root, members=kin)
    for gap_ms, segments in ((HOUR_MS, ("rare",)), (30 * MINUTE_MS, ())):
        lane = Membership(BASES, None, SHIPPED, gap_ms)
        lane.switch(defined(rare), [])
        assert lane.evaluate(subject_to_person(whole), START_MS)[0] == segments
        compiled = compile_segments(parse_segments([rare]), BASES)
        assert segments_of_subject(compiled, whole, START_MS, gap_ms) == set(segments)


class Recorder:
    """A lane's producer that sends to nobody."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes, bytes, int]] = []

    def send(self, topic: str, value: bytes, key: bytes, partition: int) -> None:
        self.sent.append((topic, value, key, partition))


def test_each_change_is_told_as_its_record_says() -> None:
    outputs: Any = Outputs()
    outputs.p, outputs.seq, outputs.index = 3, 70_000, 127
    outputs.producer, outputs.membership = Recorder(), Membership({})
    outputs.settings = SimpleNamespace(topics=TOPICS, generation=2)
    person = Person(b"p" * 16)
    person.segments, person.settled = ("b", "c"), b"kept"
    outputs.put_into(person, ("a", "b"), START_MS)
    told = [
        SegmentChanged(person.pid, "a", 0, True, START_MS, 2, 3, 70_000, 127),
        SegmentChanged(person.pid, "c", 0, False, START_MS, 2, 3, 70_000, 128),
    ]
    assert outputs.producer.sent == [
        (TOPICS.segments_changed, SEGMENT_CHANGED.encode(each), person.pid, 3) for each in told
    ]
    assert (person.segments, outputs.index) == (("a", "b"), 129)
    kept: object = person.settled
    assert kept is None
