"""How does a lane forget a person?

`subjects` keeps a stub that says only when: a bare tombstone would let the next late event bring
the person back. Later events of the pid are dropped and counted. In the same transaction an
`Erased` record follows the person's events in events.accepted, so that whoever reads them there
knows that all have passed. Once no event can come out of the log any more the role `erasure` asks
for the stub to go too, and a tombstone takes its place. Stores, vault and certificate are the
role's part.
"""

import secrets
from collections.abc import Sequence
from typing import Any

from schemas.codec import ERASED, ERASURE_REQUESTED, Malformed
from schemas.requests import FORGET, Erased, ErasureRequested
from streams.lane import Lane
from streams.rules.outcomes import Refused
from streams.subjects_to_moves import leave

SALT_BYTES = 16


def apply_erasures(lane: Lane, records: Sequence[Any]) -> None:
    """Every person named is a stub from here on, or forgotten; asking again changes nothing."""
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
        if request.phase == FORGET:
            _forget(lane, request.pid)
            continue
        person = lane.person(request.pid)
        if person.erased_at_ms is None:
            leave(lane, person, request, record.offset)
            if person.segments:
                lane.put_into(person, (), lane.settings.clock_ms())
            person.erase(request.requested_at_ms)
            lane.parking.forget(request.pid)
            lane.changed[request.pid] = person
            _tell(lane, request, record.offset)


def _tell(lane: Lane, request: ErasureRequested, offset: int) -> None:
    """Behind the person's last event stands that it was the last."""
    settings = lane.settings
    erased = Erased(
        request.erasure_id,
        request.pid,
        request.requested_at_ms,
        # Of a transaction that is done again it is another one, and only one of them is ever read.
        secrets.token_bytes(SALT_BYTES),
        settings.generation,
        lane.p,
        lane.seq,
        settings.topics.erasures,
        lane.p,
        offset,
        lane.index,
    )
    lane.index += 1
    lane.producer.send(settings.topics.accepted, ERASED.encode(erased), request.pid, lane.p)


def _forget(lane: Lane, pid: bytes) -> None:
    """The stub is gone; nobody who was not erased is ever forgotten."""
    person = lane.people.get(pid)
    if person is not None and person.erased_at_ms is not None:
        del lane.people[pid]
        lane.changed.pop(pid, None)
        lane.producer.send(lane.settings.topics.subjects, None, pid, lane.p)
