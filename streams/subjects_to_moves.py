"""How does a lane tell others of a person whose pids lie in several?

At the barrier, once for all that happened in it: the lane of a pid that belongs to another tells
that one's what is known under it, and under all that belong to it; the lane of the pid that stands
for the person tells every other what was decided under the rest of them, and what touched these,
because each gates and attributes its own events. Nobody is told the same twice in a row, so what is
said ends when nothing changes.
"""

import secrets
from hashlib import blake2b

import msgspec

from schemas.codec import ERASURE_REQUESTED, KIN, LINKED, MOVED, SUBJECT
from schemas.moves import Kin, Linked, Moved, Substate
from schemas.partitioning import partition_of
from schemas.persons import groups_for
from schemas.requests import IDLE, MERGED, ErasureRequested, merged_erasure_id
from streams.outputs import Outputs
from streams.rules.course import orders_for, touches_for
from streams.rules.kinship import Kinship
from streams.rules.person import Person, person_to_subject

DIGEST_BYTES = 8
SALT_BYTES = 16


def tell_others(lane: Outputs, person: Person) -> None:
    """Every lane that needs to know of `person` was told what it is now."""
    kinship = person.kinship
    if kinship is None:
        return
    if kinship.left:
        for pid in sorted(kinship.left - {kinship.moved_to}):
            _tell_moved(lane, pid, person.pid, [])
        kinship.left.clear()
        kinship.sent = None  # who is told that it left, and has it again later, is told anew
    if kinship.moved_to is not None:
        substates = substates_of(person, kinship)
        digest = _digest(b"".join((kinship.moved_to, *(each.subject for each in substates))))
        if digest != kinship.sent:
            kinship.sent = digest
            _tell_moved(lane, kinship.moved_to, person.pid, substates)
    _tell_kin(lane, person, kinship)


def substates_of(person: Person, kinship: Kinship) -> list[Substate]:
    """What is known under the pid alone, then under each that belongs to it."""
    own = msgspec.structs.replace(
        person_to_subject(person),
        segments=[],
        wake_at_ms=0,
        claims=[],
        moved_to=None,
        members=[],
        kin=[],
    )
    members = {pid: each.subject for (_, pid), each in sorted(kinship.members.items())}
    told = [Substate(pid, subject) for pid, subject in sorted(members.items())]
    return [Substate(person.pid, SUBJECT.encode(own)), *told]


def tell_links(
    lane: Outputs, pid: bytes, before: set[bytes], after: set[bytes], offset: int
) -> None:
    """Who counts people hears who has become one with `pid`, and who no more, because of the record
    at `offset` of what lanes tell each other."""
    _tell_links(lane, pid, before, after, lane.settings.topics.moves, offset)


def leave(lane: Outputs, person: Person, request: ErasureRequested, offset: int) -> None:
    """`person`, who is about to be erased because of the request at `offset`, is nobody's member,
    and their members will be erased too: of nobody's request if that was nobody's."""
    kinship = person.kinship
    if kinship is None:
        return
    told = kinship.left if kinship.moved_to is None else kinship.left | {kinship.moved_to}
    for pid in sorted(told):
        _tell_moved(lane, pid, person.pid, [])
    _tell_links(lane, person.pid, kinship.linked, set(), lane.settings.topics.erasures, offset)
    pids = {pid for _, pid in kinship.members}
    reason = IDLE if request.reason == IDLE else MERGED
    ask_to_erase(lane, person.pid, request.requested_at_ms, pids, reason)


def ask_to_erase(
    lane: Outputs, erased: bytes, erased_at_ms: int, pids: set[bytes], reason: str = MERGED
) -> None:
    """Those who belong to an `erased` pid will be erased as well: nothing of it comes back."""
    topic = lane.settings.topics.erasures
    for pid in sorted(pids):
        request = ErasureRequested(merged_erasure_id(erased, pid), pid, erased_at_ms, reason)
        _send(lane, topic, ERASURE_REQUESTED.encode(request), pid)


def _tell_kin(lane: Outputs, person: Person, kinship: Kinship) -> None:
    """Each member knows what was decided under the others, and what touched these; while the pid
    belongs to another itself, that one tells them."""
    pids = kinship.linked
    if not pids and not kinship.told:
        return
    decided = {pid: each for (_, pid), each in sorted(kinship.consents.items())}
    groups = groups_for(pids, decided | {person.pid: person.consents})
    touches = touches_for(person, pids, lane.settings.rules.attribution_ms)
    orders = orders_for(person, pids)
    for pid in sorted(pids | kinship.told.keys()):
        said, (campaigns, packed) = groups.get(pid, []), touches.get(pid, ([], b""))
        of_refunds = orders.get(pid, [])
        about = (said, campaigns, packed, of_refunds)
        digest = _digest(msgspec.msgpack.encode(about)) if any(about) else b""
        if digest == kinship.told.get(pid, b""):
            continue
        kin = Kin(
            pid, person.pid, said, lane.settings.generation, lane.p, lane.seq, lane.index,
            campaigns, packed, of_refunds,
        )  # fmt: skip
        lane.index += 1
        _send(lane, lane.settings.topics.moves, KIN.encode(kin), pid)
        person.rare = None
        if digest:
            kinship.told[pid] = digest
        else:
            del kinship.told[pid]


def _tell_links(
    lane: Outputs, root: bytes, before: set[bytes], after: set[bytes], topic: str, offset: int
) -> None:
    settings = lane.settings
    for pid in sorted(before ^ after):
        linked = Linked(
            pid, root, pid in after, settings.generation, lane.p, lane.seq, topic, lane.p, offset,
            lane.index, secrets.token_bytes(SALT_BYTES),
        )  # fmt: skip
        lane.index += 1
        lane.producer.send(settings.topics.accepted, LINKED.encode(linked), root, lane.p)


def _tell_moved(lane: Outputs, pid: bytes, member: bytes, substates: list[Substate]) -> None:
    moved = Moved(pid, member, substates, lane.settings.generation, lane.p, lane.seq, lane.index)
    lane.index += 1
    _send(lane, lane.settings.topics.moves, MOVED.encode(moved), pid)


def _send(lane: Outputs, topic: str, record: bytes, key: bytes) -> None:
    lane.producer.send(topic, record, key, partition_of(key, lane.settings.partitions))


def _digest(said: bytes) -> bytes:
    return blake2b(said, digest_size=DIGEST_BYTES).digest()
