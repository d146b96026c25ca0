"""What does a lane write of its memory at a barrier?

Whoever changed, settled and whole; the ids of the events it saw for the first time; what is parked;
and last where it stands. All of it in the transaction of the outputs that it explains.
"""

from schemas.codec import CURSOR, PARKED, SEGMENTS_IN_FORCE, SIGHTINGS
from schemas.subjects import CURSOR_KEY, SEGMENTS_KEY, Cursor, Position, parked_key, seen_key
from schemas.subjects import Withheld as WithheldCount
from streams.outputs import Outputs
from streams.rules.written_person import write_person
from streams.settle import settle


def write_memory(lane: Outputs) -> None:
    """Everything that is not in `subjects` yet is produced; nobody counts as changed any more."""
    send, p, topic = lane.producer.send, lane.p, lane.settings.topics.subjects
    produce = lane.producer.produce
    now_ms = lane.settings.clock_ms()
    lane.known.note(lane.changed)
    while lane.changed:  # to settle one may change another
        changed, lane.changed = lane.changed, {}
        for pid, person in changed.items():
            settle(lane, person, now_ms)
            record = write_person(person)
            try:
                produce(topic, record, pid, p)
            except BufferError:
                send(topic, record, pid, p)
    lane.known.forget()
    sightings = lane.memory.take_fresh(lane.seq)
    if sightings is not None:
        send(topic, SIGHTINGS.encode(sightings), seen_key(lane.seq), p)
    for seq in lane.memory.forget_expired(now_ms):
        send(topic, None, seen_key(seq), p)
    lane.parking.expire(min(now_ms, lane.memory.newest_received_at_ms))
    for pid, parked in lane.parking.take_changed():
        send(topic, PARKED.encode(parked) if parked else None, parked_key(pid), p)
    force = lane.membership.take_fresh()
    if force is not None:
        send(topic, SEGMENTS_IN_FORCE.encode(force), SEGMENTS_KEY, p)
    cursor = Cursor(
        lane.settings.generation,
        lane.seq,
        [Position(*item) for item in sorted(lane.next_offsets.items())],
        now_ms,
        lane.memory.newest_received_at_ms,
        lane.producer.transactional_id,
        [WithheldCount(at.purpose, n, at.reason) for at, n in lane.withheld.items()],
    )
    send(topic, CURSOR.encode(cursor), CURSOR_KEY, p)
