"""How does a batch of collected events become accepted ones?

The hot loop of the whole system: decode, admit, write. An accepted event begins with the bytes of
the collected one (accepted.avsc starts with collected.avsc's fields), so those are copied, not
written again.
"""

from collections.abc import Sequence
from typing import Any

from runtime.metrics import counter
from schemas.codec import ACCEPTED, COLLECTED, HEADER_BYTES, Malformed
from schemas.events import BY_NAME, BY_ORDER, BY_TOUCH, VisitChange
from schemas.partitioning import partition_of
from schemas.varints import SHORT, WRITTEN, write_long, write_text, write_time
from streams.lane import Lane
from streams.rules.admit import admit
from streams.rules.outcomes import (
    WRONG_KEY,
    WRONG_PARTITION,
    Admitted,
    Duplicate,
    Refused,
    Withheld,
)
from streams.rules.person import Person


def apply_collected(lane: Lane, records: Sequence[Any]) -> None:
    """Every record has exactly one outcome: accepted, duplicate, withheld, or rejected."""
    settings = lane.settings
    topic, rules, memory = settings.topics.collected, settings.rules, lane.memory
    accepted_topic, send, p = settings.topics.accepted, lane.producer.send, lane.p
    produce = lane.producer.produce
    people, changed, partitions = lane.people, lane.changed, settings.partitions
    decode, collected_header, accepted_header = COLLECTED.decode, COLLECTED.header, ACCEPTED.header
    coordinates = _coordinates(lane, topic)
    duplicates = withheld = rejected = accepted = 0
    for record in records:
        value = record.value
        try:
            event = decode(value)
        except Malformed as error:
            rejected += 1
            refused = Refused("$", error.reason, error.expected)
            lane.reject(refused, topic, record.offset, None)
            continue
        pid = event.pid
        if pid != record.key:
            rejected += 1
            lane.reject(WRONG_KEY, topic, record.offset, event.source)
            continue
        person = people.get(pid)
        if person is None:
            if partition_of(pid, partitions) != p:
                rejected += 1
                lane.reject(WRONG_PARTITION, topic, record.offset, event.source)
                continue
            person = Person(pid)
        outcome = admit(event, person, memory, rules)
        if type(outcome) is Admitted:
            accepted += 1
            people[pid] = changed[pid] = person
            if value[:HEADER_BYTES] == collected_header:
                datum = value[HEADER_BYTES:]
            else:  # an older schema version: its bytes are not a prefix of today's
                datum = COLLECTED.write_datum(event)
            tail = _tail(outcome, coordinates, record.offset, lane.index)
            lane.index += 1
            out = b"".join((accepted_header, datum, tail))
            try:
                produce(accepted_topic, out, pid, p)
            except BufferError:
                send(accepted_topic, out, pid, p)
            if outcome.moved is not None:
                lane.reattribute(pid, outcome.moved, topic, record.offset)
        elif type(outcome) is Duplicate:
            duplicates += 1
        elif type(outcome) is Withheld:
            withheld += 1
            lane.withhold(outcome)
            lane.parking.park(pid, event, record.offset, outcome)
        else:
            assert type(outcome) is Refused
            rejected += 1
            lane.reject(outcome, topic, record.offset, event.source)
    applied = counter("headwater_applied_events_total")
    for name, count in (
        ("accepted", accepted),
        ("duplicate", duplicates),
        ("withheld", withheld),
        ("rejected", rejected),
    ):
        if count:
            applied.labels(name).inc(count)


def _coordinates(lane: Lane, topic: str) -> bytes:
    """generation, lane, seq, source_topic, source_partition: the same for the whole slice."""
    return b"".join(
        (
            write_long(lane.settings.generation),
            write_long(lane.p),
            write_long(lane.seq),
            write_text(topic),
            write_long(lane.p),
        )
    )


def _tail(outcome: Admitted, coordinates: bytes, offset: int, index: int) -> bytes:
    """The fields that Accepted has after Collected's, in the order of accepted.avsc.

    A test holds this equal to the compiled writer of the whole record.
    """
    amount_micro, visit_changes = outcome.amount_micro, outcome.visit_changes
    by = outcome.attributed_by
    campaign = WRITTEN[outcome.campaign_id]
    # An offset is, like a time, one more than the last one: its upper bits seldom change.
    at = write_time(offset)
    place = SHORT[index << 1] if index < _IS_SHORT else write_time(index)
    if amount_micro is None and not visit_changes and not outcome.is_repeat_order:
        return b"".join((coordinates, at, place, campaign, _NOTHING_ELSE[by]))
    return b"".join(
        (
            coordinates,
            at,
            place,
            campaign,
            b"\x01" if outcome.is_repeat_order else b"\x00",
            b"\x00" if amount_micro is None else b"\x02" + write_long(amount_micro),
            WRITTEN[outcome.currency],
            _changes(visit_changes) if visit_changes else b"\x00",
            SHORT[by << 1],
        )
    )


_IS_SHORT = len(SHORT) // 2
# No repeat order, money, currency or visit change; by `attributed_by`.
_NOTHING_ELSE = [b"\x00\x00\x00\x00" + write_long(by) for by in (0, BY_NAME, BY_TOUCH, BY_ORDER)]


def _changes(changes: list[VisitChange]) -> bytes:
    parts = [write_long(len(changes))]
    for change in changes:
        parts += (
            WRITTEN[change.campaign_id],
            write_time(change.started_at_ms),
            write_long(change.delta),
        )
    parts.append(b"\x00")
    return b"".join(parts)
