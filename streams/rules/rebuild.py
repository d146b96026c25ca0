"""What did the owners of a lane before us leave in its partition of `subjects`?"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.codec import CURSOR, PARKED, SEGMENTS_IN_FORCE, SIGHTINGS
from schemas.errors import StoreRefused
from schemas.segment_records import SegmentsInForce
from schemas.subjects import (
    CURSOR_KEY,
    PARKED_PREFIX,
    PID_BYTES,
    SEEN_PREFIX,
    SEGMENTS_KEY,
    WRITER_KEY,
)
from streams.rules.deduplicate import Memory
from streams.rules.kinship import forget_told
from streams.rules.outcomes import Withheld
from streams.rules.parking import Parking
from streams.rules.person import Person, read_person


@dataclass(slots=True)
class Rebuilt:
    """A lane's memory as it was committed last; `seq` is the number of its next transaction."""

    people: dict[bytes, Person]
    memory: Memory
    parking: Parking
    withheld: dict[Withheld, int]
    next_offsets: dict[str, int]
    seq: int
    writer: str
    """The transactional id of who wrote last; empty where nobody did."""
    segments: SegmentsInForce | None = None
    """By what was decided who is in which segment; None where that was never written."""
    changed: dict[bytes, Person] = field(default_factory=dict)
    """Who is to be told of again: a log that begins anew may lack what lanes told each other."""


def rebuild(
    newest: Mapping[bytes, bytes], p: int, generation: int, window_ms: int, late_grant_ms: int
) -> Rebuilt:
    """The memory in `newest`, the newest value of each key of partition `p`.

    Positions of an older generation are left out. Raises StoreRefused when it is of a later one.
    """
    people: dict[bytes, Person] = {}
    memory = Memory(window_ms)
    parking = Parking(generation, late_grant_ms)
    seen: list[tuple[int, bytes]] = []
    for key, value in newest.items():
        if len(key) == PID_BYTES:
            people[key] = read_person(value)
        elif key.startswith(SEEN_PREFIX):
            seen.append((int.from_bytes(key[len(SEEN_PREFIX) :], "big"), value))
        elif key.startswith(PARKED_PREFIX):
            parking.restore(key[len(PARKED_PREFIX) :], PARKED.decode(value))
    for seq, value in sorted(seen):
        memory.restore(seq, SIGHTINGS.decode(value))
    cursor_value = newest.get(CURSOR_KEY)
    in_force = newest.get(SEGMENTS_KEY)
    segments = None if in_force is None else SEGMENTS_IN_FORCE.decode(in_force)
    writer = newest.get(WRITER_KEY, b"").decode()
    if cursor_value is None:
        return Rebuilt(people, memory, parking, {}, {}, 1, writer, segments)
    cursor = CURSOR.decode(cursor_value)
    if cursor.generation > generation:
        raise StoreRefused(
            f"lane {p} stands in generation {cursor.generation}, [kafka] generation says "
            f"{generation}; set it to {cursor.generation}"
        )
    memory.newest_received_at_ms = cursor.newest_received_at_ms
    withheld = {Withheld(each.purpose, each.reason): each.count for each in cursor.withheld}
    positions: dict[str, int] = {}
    if cursor.generation == generation:
        positions = {each.topic: each.next_offset for each in cursor.positions}
    writer = writer or cursor.transactional_id
    changed = {} if positions else _to_tell_anew(people)
    seq = cursor.seq + 1
    return Rebuilt(people, memory, parking, withheld, positions, seq, writer, segments, changed)


def _to_tell_anew(people: Mapping[bytes, Person]) -> dict[bytes, Person]:
    found = {pid: person for pid, person in people.items() if person.kinship is not None}
    for person in found.values():
        assert person.kinship is not None
        forget_told(person.kinship)
        person.rare = None
    return found
