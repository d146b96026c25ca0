"""How does a lane forget a person?

`subjects` keeps a stub that says only when: a bare tombstone would let the next late event bring
the person back. Later events of the pid are dropped and counted. Stores, vault and certificate are
the erasure role's part.
"""

from collections.abc import Sequence
from typing import Any

from schemas.codec import ERASURE_REQUESTED, Malformed
from streams.lane import Lane
from streams.rules.outcomes import Refused


def apply_erasures(lane: Lane, records: Sequence[Any]) -> None:
    """Every person named is a stub from here on; asking again changes nothing."""
    topic = lane.settings.topics.erasures
    for record in records:
        try:
            request = ERASURE_REQUESTED.decode(record.value)
        except Malformed as error:
            lane.reject(Refused("$", error.reason, error.expected), topic, record.offset, None)
            continue
        misplaced = lane.misplaced(request.pid, record.key)
        if misplaced is not None:
            lane.reject(misplaced, topic, record.offset, None)
            continue
        person = lane.person(request.pid)
        if person.erased_at_ms is None:
            person.erase(request.requested_at_ms)
            lane.changed[request.pid] = person
