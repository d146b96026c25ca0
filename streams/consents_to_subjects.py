"""How do consent decisions reach the person they are about?

Each is kept with its times, in the order they were recorded. The gate does not read them yet: it
decides by the configured legal bases (see rules/gate.py), and no way in writes this topic.
"""

from collections.abc import Sequence
from typing import Any

from schemas.codec import CONSENT_CHANGED, Malformed
from schemas.subjects import Consent
from streams.lane import Lane
from streams.rules.outcomes import Refused


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
        person = lane.person(change.pid)
        if person.erased_at_ms is not None:
            lane.withhold("erased")
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
        if consent not in person.consents:
            person.consents.append(consent)
            person.consents.sort(key=lambda each: each.recorded_at_ms)
            person.settled = None
            lane.changed[change.pid] = person
