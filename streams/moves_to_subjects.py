"""How does a lane learn that its pids and others are one person?

Three kinds of record, told apart by their schema. A claim says whose an identifier is: the set of
claims decides where its pid belongs. What is known under a pid that belongs to one of ours replaces
what was said of it before. What was decided under the others of a person joins what its own pid
decided: what one of them refuses is refused. What touched the others touched it. All of them may
come in any order and more than once.
"""

from collections.abc import Sequence
from typing import Any

from schemas.codec import CLAIMED, HEADER_BYTES, KIN, MOVED, SUBJECT, Malformed
from schemas.consent import decisions_on
from schemas.identity import standing, weightiest, with_claim
from schemas.moves import Claimed, Kin, Moved
from schemas.subjects import Consent, KinOf, Member
from streams.lane import Lane
from streams.rules.attribute import move_by_course
from streams.rules.capacity import FULL
from streams.rules.claiming import TAKEN, check_claim, newly_taken
from streams.rules.course import deciding
from streams.rules.gate import ANALYTICS, groups_of, may_take_back
from streams.rules.kinship import MOST_CLAIMS, Kinship, has_room_for
from streams.rules.outcomes import ERASED, Refused
from streams.rules.person import Person
from streams.rules.touches import Touches
from streams.subjects_to_moves import ask_to_erase, tell_links

_CODECS = {header: codec for codec in (CLAIMED, MOVED, KIN) for header in codec.headers}
CIRCLE = Refused(
    "$.substates",
    "circle",
    "expected nobody to belong to one who belongs to them: claims go to the higher in rank only",
)


def apply_moves(lane: Lane, records: Sequence[Any]) -> None:
    """Every record has taken effect, or is rejected; an erased person takes none."""
    topic = lane.settings.topics.moves
    for record in records:
        codec = _CODECS.get(record.value[:HEADER_BYTES], CLAIMED) if record.value else CLAIMED
        try:
            said: Claimed | Moved | Kin = codec.decode(record.value)
        except Malformed as error:
            lane.reject(Refused("$", error.reason, error.expected), topic, record.offset, None)
            continue
        refused = lane.misplaced(said.pid, record.key)
        if refused is None:
            if isinstance(said, Claimed):
                refused = _apply_claim(lane, said, record.offset)
            elif isinstance(said, Moved):
                refused = _apply_moved(lane, said, record.offset)
            else:
                _apply_kin(lane, said, record.offset)
        if refused is not None:
            lane.reject(refused, topic, record.offset, None)


def _apply_claim(lane: Lane, claimed: Claimed, offset: int) -> Refused | None:
    claim = check_claim(claimed)
    if isinstance(claim, Refused):
        return claim
    person = lane.person(claimed.pid)
    if person.erased_at_ms is not None:
        lane.withhold(ERASED)
        return None
    kinship = person.kinship or Kinship()
    before, linked = kinship.claims, kinship.linked
    after = weightiest(with_claim(before, claim), MOST_CLAIMS)
    if after == before:
        return None
    kinship.claims = after
    stands = standing(after)
    belongs_to = stands.claimant if stands is not None else None
    if belongs_to != kinship.moved_to:
        if kinship.moved_to is not None:
            kinship.left.add(kinship.moved_to)
        kinship.moved_to = belongs_to
        tell_links(lane, person.pid, linked, kinship.linked, offset)
    _change(lane, person, kinship)
    for _ in newly_taken(before, after):
        lane.reject(TAKEN, lane.settings.topics.moves, offset, None)
    return None


def _apply_moved(lane: Lane, moved: Moved, offset: int) -> Refused | None:
    pids = {each.pid for each in moved.substates}
    if moved.pid in pids:
        return CIRCLE
    person = lane.person(moved.pid)
    if person.erased_at_ms is not None:
        ask_to_erase(lane, moved.pid, person.erased_at_ms, pids)
        return None
    try:
        told = {each.pid: SUBJECT.decode(each.subject) for each in moved.substates}
    except Malformed as error:
        return Refused("$.substates", error.reason, error.expected)
    kinship = person.kinship or Kinship()
    added = [Member(each.pid, moved.member, b"", each.subject) for each in moved.substates]
    if not has_room_for(kinship, moved.member, added):
        return FULL
    linked, before = kinship.linked, groups_of(person)
    deeds, course = kinship.deeds, deciding(person)
    if not kinship.take(moved.member, told, added):
        return None
    tell_links(lane, person.pid, linked, kinship.linked, offset)
    _change(lane, person, kinship)
    if kinship.deeds != deeds:
        kinship.course = None
        _heed_deeds(lane, person, course, offset)
    _heed(lane, person, before, offset)
    return None


def _apply_kin(lane: Lane, kin: Kin, offset: int) -> None:
    person = lane.people.get(kin.pid)
    if person is None or person.erased_at_ms is not None:
        return  # forgotten since: what others decided is nothing of theirs
    kinship = person.kinship or Kinship()
    said = KinOf(kin.root, kin.groups, kin.touch_campaigns, kin.touches, kin.orders)
    is_any = bool(kin.groups or kin.touches or kin.orders)
    if kinship.kin.get(kin.root) == (said if is_any else None):
        return
    before, deeds, course = groups_of(person), kinship.deeds, deciding(person)
    if is_any:
        kinship.kin[kin.root] = said
    else:
        del kinship.kin[kin.root]
    _change(lane, person, kinship)
    if kinship.deeds != deeds:
        kinship.course = None
        _heed_deeds(lane, person, course, offset)
    _heed(lane, person, before, offset)


def _change(lane: Lane, person: Person, kinship: Kinship) -> None:
    person.kinship = kinship
    person.rare = person.decided = None
    lane.changed[person.pid] = person


def _heed_deeds(lane: Lane, person: Person, before: Touches | None, offset: int) -> None:
    """What touched other pids of the person, and not only what did `before`, decides the campaigns
    of its events; so do orders of others those of its refunds."""
    moved = move_by_course(person, before, lane.settings.rules.attribution_ms)
    if moved is not None:
        lane.reattribute(person.pid, moved, lane.settings.topics.moves, offset)


def _heed(lane: Lane, person: Person, before: list[list[Consent]], offset: int) -> None:
    """What others of the person decided, and was not known `before`, holds for its events: those
    that it refuses count no more, those that it allows may be released."""
    newest_ms = lane.memory.newest_received_at_ms
    lane.parking.look_at(person.pid)
    for group in groups_of(person):
        if group in before:
            continue
        decisions = decisions_on(ANALYTICS, group)
        if any(may_take_back(person, each, newest_ms) for each in decisions):
            lane.retract(person.pid, decisions, lane.settings.topics.moves, offset, of_kin=True)
