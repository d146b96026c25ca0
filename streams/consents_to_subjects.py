"""How do consent decisions reach the person they are about?

Each is kept with its times, in the order they were recorded; the gate decides by them. A refusal
that comes later than events that it disallows takes them back: what was accepted is told so, in
the same transaction (`Retracted`). A grant that comes a little later than an event that it allows
releases it (streams/parked_to_accepted.py). A child's own yes changes nothing (schemas/minors.py).
"""

from collections.abc import Sequence
from typing import Any

from schemas.codec import CONSENT_CHANGED, Malformed
from schemas.consent import decisions_on
from schemas.minors import is_void
from schemas.subjects import Consent
from streams.lane import Lane
from streams.rules.capacity import FULL, MOST_DECISIONS
from streams.rules.gate import ANALYTICS, may_take_back
from streams.rules.outcomes import ERASED, Refused


def apply_consents(lane: Lane, records: Sequence[Any]) -> None:
    """Every decision is in its person's record once, or rejected; an erased person takes none."""
    topic = lane.settings.topics.consents
    for record in records:
        try:
            change = CONSENT_CHANGED.decode(record.value)
        except Malformed as error:
            lane.reject(Refused("$", error.reason, error.expected), topic, record.offset, None)
            continue
        misplaced = lane.misplaced(change.pid, record.key)
        if misplaced is not None:
            lane.reject(misplaced, topic, record.offset, change.source)
            continue
        if is_void(change):
            continue
        person = lane.person(change.pid)
        if person.erased_at_ms is not None:
            lane.withhold(ERASED)
            continue
        about = (
            f"purpose/{change.purpose}"
            if change.purpose is not None
            else f"{change.channel}/{change.topic}"
        )
        consent = Consent(
            about,
            change.status,
            change.valid_from_ms,
            change.valid_to_ms,
            change.recorded_at_ms,
        )
        if consent in person.consents:
            continue
        if len(person.consents) >= MOST_DECISIONS:
            lane.reject(FULL, topic, record.offset, change.source)
            continue
        person.consents.append(consent)
        person.consents.sort(key=_order_of)
        person.settled = person.decided = None
        lane.changed[change.pid] = person
        lane.parking.look_at(change.pid)
        if may_take_back(person, consent, lane.memory.newest_received_at_ms):
            decisions = decisions_on(ANALYTICS, person.consents)
            of_kin = person.kinship is not None
            lane.retract(change.pid, decisions, topic, record.offset, of_kin=of_kin)


def _order_of(consent: Consent) -> tuple[int, str, str, int, int]:
    """By recorded_at_ms; of one time the same for any order of arrival, for several pids alike."""
    of = consent
    return of.recorded_at_ms, of.subject_of, of.status, of.valid_from_ms, of.valid_to_ms or 0
