"""How does a withheld event that a late grant allows become an accepted one?

It is read again where it lies, in the lane's own partition of the input, and goes through the same
chain as any other but for the memory of ids, which knows it already. Its pointer goes in the same
transaction, so it is released once or not at all. Its coordinates are of the transaction that
released it; its source is where it lies, before that of its neighbours.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from runtime.changes import Change
from runtime.logs import get_logger
from runtime.metrics import counter
from schemas.codec import ACCEPTED, COLLECTED, Malformed
from schemas.errors import StoreUnavailable
from schemas.events import Accepted, Collected
from streams.catch_up import ASK_AGAIN_S, Work
from streams.outputs import Outputs
from streams.rules.admit import admit
from streams.rules.outcomes import Admitted, Refused
from streams.rules.parking import NEVER_SEEN, Pointer

MOST_AT_ONCE = 1_000
"""Events are read again in so many at most: each may have a megabyte."""


Released = list[tuple[bytes, Pointer]]
"""(pid, where the event lies), by offset."""


async def release_due(
    lane: Outputs,
    *,
    in_thread: Callable[[Work[Any]], Awaitable[Any]],
    pick: Callable[[str, Sequence[int]], dict[int, Change]],
    on_wait: Callable[[], Awaitable[None]],
    is_closing: Callable[[], bool],
) -> None:
    """All that decisions have released is accepted; if the lane closes, by its next owner.

    `on_wait` is called before each pause while the broker does not answer.
    """
    topic = lane.settings.topics.collected
    while lane.parking.due and not is_closing():
        released = _take_due(lane)
        if not released:
            continue
        offsets = [pointer.offset for _, pointer in released]
        try:
            records = await in_thread(lambda offsets=offsets: pick(topic, offsets))  # type: ignore[misc]
        except StoreUnavailable as error:
            get_logger().warning("withheld events cannot be read again", why=str(error))
            lane.parking.due |= dict.fromkeys(pid for pid, _ in released)
            await on_wait()
            await asyncio.sleep(ASK_AGAIN_S)
        else:
            lane.is_touched = True
            _apply(lane, released, records)


def _take_due(lane: Outputs) -> Released:
    """Of the people of whom decisions came, what may be released now; they are due no more."""
    found: Released = []
    due, gate = lane.parking.due, lane.settings.rules.gate
    while due and len(found) < MOST_AT_ONCE:
        pid, _ = due.popitem()
        person = lane.people.get(pid)
        if person is not None:
            found += [(pid, each) for each in lane.parking.released(person, gate)]
    return sorted(found, key=lambda each: each[1].offset)


def _apply(lane: Outputs, released: Released, records: Mapping[int, Change]) -> None:
    """Each of `released` is accepted, or set aside, and parked no more.

    `records` are those that the log still has: what retention took stays withheld.
    """
    settings = lane.settings
    topic, rules = settings.topics.collected, settings.rules
    parked = counter("headwater_parked_events_total")
    for pid, pointer in released:
        lane.parking.take(pid, pointer)
        event = _event_at(pid, pointer, records)
        if event is None:
            parked.labels("lost").inc()
            continue
        person = lane.people[pid]
        outcome = admit(event, person, NEVER_SEEN, rules)
        if isinstance(outcome, Admitted):
            lane.changed[pid] = person
            _accept(lane, event, outcome, pointer.offset)
            parked.labels("released").inc()
        elif isinstance(outcome, Refused):
            lane.reject(outcome, topic, pointer.offset, event.source)
            parked.labels("rejected").inc()
        else:
            raise AssertionError("what the stamps allow is withheld by the gate")
        lane.withheld[pointer.counted_as] -= 1


def _event_at(pid: bytes, pointer: Pointer, records: Mapping[int, Change]) -> Collected | None:
    """The event itself; None if something else lies there, or nothing."""
    record = records.get(pointer.offset)
    if record is None:
        return None
    try:
        event = COLLECTED.decode(record.value)
    except Malformed:
        return None
    found = (event.pid, event.occurred_at_ms, event.received_at_ms)
    return event if found == (pid, pointer.occurred_at_ms, pointer.received_at_ms) else None


def _accept(lane: Outputs, event: Collected, outcome: Admitted, offset: int) -> None:
    settings = lane.settings
    accepted = Accepted(
        **msgspec.structs.asdict(event),
        generation=settings.generation,
        lane=lane.p,
        seq=lane.seq,
        source_topic=settings.topics.collected,
        source_partition=lane.p,
        source_offset=offset,
        index=lane.index,
        campaign_id=outcome.campaign_id,
        is_repeat_order=outcome.is_repeat_order,
        amount_micro=outcome.amount_micro,
        currency=outcome.currency,
        visit_changes=outcome.visit_changes,
        attributed_by=outcome.attributed_by,
    )
    lane.index += 1
    lane.producer.send(settings.topics.accepted, ACCEPTED.encode(accepted), event.pid, lane.p)
    if outcome.moved is not None:
        lane.reattribute(event.pid, outcome.moved, settings.topics.collected, offset)
