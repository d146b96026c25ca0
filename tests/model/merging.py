"""Which pids should be one person when all is over, and are they?

From the claims that arrived and the records that lanes left, by a few lines that share no code with
the product. Order never matters: whatever was told when and by whom, in the end each pid belongs to
whom the claims name, each root holds what the lanes of its members hold, and everybody knows what
the others decided.
"""

import random
from collections.abc import Iterable, Mapping

import msgspec

from schemas.codec import SUBJECT
from schemas.consent import Basis, allows
from schemas.events import Collected
from schemas.moves import Claimed, Linked
from schemas.subjects import Consent, Subject
from schemas.touches import unpack_touches
from tests.stream_log import START_MS

ERASABLE = 2
"""So many pids of each partition may be erased, and only they belong to those who may be."""


def rank_of(pid: bytes) -> int:
    """By the number that the pid is made of."""
    return 3 if pid[0] % 3 == 0 else 2


def _is_higher(pid: bytes, other: bytes) -> bool:
    return (-rank_of(pid), pid) < (-rank_of(other), other)


def make_claim(
    chance: random.Random, pid: bytes, pids: Iterable[bytes], erasable: set[bytes], now_ms: int
) -> Claimed | None:
    """A claim on `pid` by somebody of higher rank, or a decision by hand; None if nobody may."""
    claimants = [
        each for each in pids if _is_higher(each, pid) and (each not in erasable or pid in erasable)
    ]
    if not claimants:
        return None
    cause = chance.choices(("identify", "alias", "linked", "revoked"), (8, 2, 1, 3))[0]
    claimant = chance.choice((claimants[0], claimants[-1], claimants[-1]))
    at_ms = START_MS + chance.randrange(100)
    return Claimed(pid, claimant, rank_of(claimant), at_ms, chance.randbytes(16), cause, now_ms)


def belongs_to(claims: list[Claimed]) -> bytes | None:
    """Whom the pid of these claims belongs to."""
    by_hand: dict[bytes, Claimed] = {}
    for each in sorted(claims, key=_stamp):
        if each.cause in ("linked", "revoked"):
            by_hand[each.claimant] = each
    linked = [each for each in by_hand.values() if each.cause == "linked"]
    if linked:
        return max(linked, key=_stamp).claimant
    calls = [
        each
        for each in claims
        if each.cause in ("identify", "alias") and each.claimant not in by_hand
    ]
    return min(calls, key=lambda each: (-each.rank, *_stamp(each))).claimant if calls else None


def disputes(claims: list[Claimed]) -> set[bytes]:
    """Who claims the pid in vain against an equal, and nobody said so by hand."""
    owner = belongs_to(claims)
    if owner is None:
        return set()
    revoked = {each.claimant for each in claims if each.cause == "revoked"}
    return {
        each.claimant
        for each in claims
        if each.cause in ("identify", "alias")
        and each.claimant not in revoked | {owner}
        and each.rank >= rank_of(owner)
    }


def _stamp(claim: Claimed) -> tuple[int, bytes, bytes]:
    return claim.occurred_at_ms, claim.event_id, claim.claimant


def related(claims: Iterable[Claimed], pid: bytes) -> set[bytes]:
    """All pids that a path of claims, whatever became of them, leads to."""
    found, waiting = {pid}, [pid]
    pairs = [(each.pid, each.claimant) for each in claims]
    while waiting:
        at = waiting.pop()
        near = {b for a, b in pairs if a == at} | {a for a, b in pairs if b == at}
        waiting += near - found
        found |= near
    return found


def persons(claims: Iterable[Claimed], erased: set[bytes]) -> dict[bytes, bytes]:
    """Pid -> root, of the pids that were claimed or claim and are not `erased`."""
    by_pid: dict[bytes, list[Claimed]] = {}
    for each in claims:
        by_pid.setdefault(each.pid, []).append(each)
        by_pid.setdefault(each.claimant, [])
    above = {
        pid: owner
        for pid, of in by_pid.items()
        if pid not in erased and (owner := belongs_to(of)) is not None
    }
    roots = {}
    for pid in by_pid.keys() - erased:
        root = pid
        while root in above:
            root = above[root]
        roots[pid] = root
    return roots


def wrong_merges(
    claims: list[Claimed], people: Mapping[bytes, Subject], linked: Iterable[Linked]
) -> set[str]:
    """What is not as the claims say; `linked` in the order of each partition."""
    found: set[str] = set()
    stubs = {pid for pid, of in people.items() if of.erased_at_ms is not None}
    roots = persons(claims, stubs)
    for pid in roots:
        owner = belongs_to([each for each in claims if each.pid == pid])
        known = people.get(pid)
        if owner in stubs:
            found.add("belongs to an erased person")
        elif (known.moved_to if known is not None else None) != owner:
            found.add("belongs to somebody else")
    if found:
        return found
    for pid in roots:
        known = people.get(pid)
        held = {} if known is None else {each.pid: each for each in known.members}
        below = {each for each in roots if each != pid and pid in _above(claims, each)}
        if held.keys() != below or (known is not None and len(known.members) != len(held)):
            found.add("members are others")
        elif any(SUBJECT.decode(held[each].subject) != _own(people[each]) for each in below):
            found.add("a member is not as its lane knows it")
        found |= _wrong_kin(pid, roots, people)
    said = {(each.pid, each.root): each.is_linked for each in linked}
    told = {at for at, is_linked in said.items() if is_linked}
    if told != {(pid, root) for pid, root in roots.items() if pid != root}:
        found.add("who counts people is told otherwise")
    return found


def _above(claims: list[Claimed], pid: bytes) -> set[bytes]:
    found: set[bytes] = set()
    at: bytes | None = pid
    while (at := belongs_to([each for each in claims if each.pid == at])) is not None:
        found.add(at)
    return found


def _own(subject: Subject) -> Subject:
    return msgspec.structs.replace(
        subject, segments=[], wake_at_ms=0, claims=[], moved_to=None, members=[], kin=[]
    )


def _wrong_kin(
    pid: bytes, roots: Mapping[bytes, bytes], people: Mapping[bytes, Subject]
) -> set[str]:
    root, known = roots[pid], people.get(pid)
    kin = [] if known is None else known.kin
    if pid == root:
        return {"told by nobody of the person"} if kin else set()
    others = [people[each].consents for each in roots if each != pid and roots[each] == root]
    wanted = {tuple(each) for each in others if each}
    heard = {tuple(group.decisions) for each in kin for group in each.groups}
    if heard != wanted or any(each.root != root for each in kin):
        return {"does not know what others of the person decided"}
    theirs = [people[each] for each in roots if each != pid and roots[each] == root]
    touched = {touch for of in theirs for touch in unpack_touches(of.touch_campaigns, of.touches)}
    told = {touch for of in kin for touch in unpack_touches(of.touch_campaigns, of.touches)}
    return {"does not know what touched others of the person"} if told != touched else set()


def refused_by_kin(
    call: Collected,
    roots: Mapping[bytes, bytes],
    decisions: Mapping[bytes, list[Consent]],
    late_grant_ms: int,
) -> bool:
    """True if another pid of the person refuses what `call` is about."""
    root = roots.get(call.pid)
    times = (call.occurred_at_ms, call.received_at_ms, late_grant_ms)
    return root is not None and any(
        not allows("legitimate_interest", decisions[pid], *times)
        for pid in roots
        if roots[pid] == root and pid != call.pid and decisions.get(pid)
    )


def may_be_granted(
    call: Collected,
    kin: set[bytes],
    decisions: Mapping[bytes, list[Consent]],
    basis: Basis,
    late_grant_ms: int,
) -> bool:
    """True if any pid that was ever one with the call's allows it."""
    times = (call.occurred_at_ms, call.received_at_ms, late_grant_ms)
    return any(allows(basis, decisions.get(pid, []), *times) for pid in kin)
