"""Who else is the person that a pid belongs to, as far as its lane knows?

Three things beside a pid's own facts, each from somebody else: the claims on it, from calls; what
is known under the pids that belong to it, from their lanes; and what was decided under the others
of its person, and what touched these, from the lane of the one that stands for all. Each is kept
apart by who said it and replaced when they say it anew, so their order never matters (ADR 0018).
Most people have none.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from schemas.codec import SUBJECT
from schemas.identity import Claim
from schemas.subjects import Consent, KinOf, Member, Purchase, Subject
from streams.rules.touches import Touches

MOST_CLAIMS = 1_000
"""On one pid. Of more those are kept that would stand first: a kiosk is claimed by everybody."""
MOST_MEMBERS = 1_000
MOST_MEMBER_BYTES = 4 * 1_048_576
"""Of what is known under all of them: with the most that is a pid's own it fits one record."""
_UNKNOWN = b"?"  # no digest of anything
MEMBER_BYTES = 48  # beside what is known of it

Packed = tuple[list[str], bytes]
"""Touches as a record has them: campaigns, and what points into these."""


class Kinship:
    """Of one pid. Whoever changes it says so of its person (`Person.rare`, the lane's `changed`).

    `members` by (through, pid): one that has just moved from one member to another is told of by
    both for a moment. `told` are digests of what the lanes of members were last told (Kin), by pid.
    Below them is what lives within a transaction: `left` are pids that it belonged to before and
    that are not told yet; `sent` is the digest of what the one it belongs to was told; `whole`, and
    `course`, all touches of the person, are kept as long as nothing changes.
    """

    __slots__ = (
        "claims",
        "consents",
        "course",
        "kin",
        "left",
        "members",
        "moved_to",
        "purchases",
        "sent",
        "told",
        "touches",
        "whole",
    )

    def __init__(self) -> None:
        self.claims: list[Claim] = []
        self.moved_to: bytes | None = None
        self.members: dict[tuple[bytes, bytes], Member] = {}
        self.consents: dict[tuple[bytes, bytes], list[Consent]] = {}  # of members who decided
        self.touches: dict[tuple[bytes, bytes], Packed] = {}  # of members whom a campaign touched
        self.purchases: dict[tuple[bytes, bytes], list[Purchase]] = {}  # of members who bought
        self.told: dict[bytes, bytes] = {}
        self.kin: dict[bytes, KinOf] = {}
        self.left: set[bytes] = set()
        self.sent: bytes | None = None
        self.whole: Any = None  # the Person made of all (streams/rules/whole.py), or None
        self.course: Touches | None = None

    @property
    def linked(self) -> set[bytes]:
        """The pids whose person this one stands for; none while it belongs to another itself."""
        return {pid for _, pid in self.members} if self.moved_to is None else set()

    @property
    def decisions(self) -> list[list[Consent]]:
        """Of the other pids of the person, those of each apart, equal ones once."""
        told = [group.decisions for kin in self.kin.values() for group in kin.groups]
        groups = (*self.consents.values(), *told)
        found = {msgspec.msgpack.encode(group): group for group in groups}
        return [found[name] for name in sorted(found)]

    @property
    def touches_of_others(self) -> list[Packed]:
        """Of the other pids of the person, however often they are told."""
        told = [(each.touch_campaigns, each.touches) for each in self.kin.values() if each.touches]
        return [*self.touches.values(), *told]

    @property
    def deeds(self) -> tuple[Any, ...]:
        """All by which others of the person decide to which campaigns the pid's events belong."""
        orders = [each.orders for each in self.kin.values()]
        return self.touches_of_others, list(self.purchases.values()), orders

    def take(
        self, through: bytes, told: Mapping[bytes, Subject], records: Iterable[Member]
    ) -> bool:
        """`records` are all that belongs to this pid through that member, and `told` what they say;
        False if that was known."""
        members = {at: each for at, each in self.members.items() if each.through != through}
        consents = {at: each for at, each in self.consents.items() if at in members}
        touches = {at: each for at, each in self.touches.items() if at in members}
        purchases = {at: each for at, each in self.purchases.items() if at in members}
        for record in records:
            at, subject = (through, record.pid), told[record.pid]
            members[at] = record
            if subject.consents:
                consents[at] = subject.consents
            if subject.touches:
                touches[at] = subject.touch_campaigns, subject.touches
            if subject.purchases:
                purchases[at] = subject.purchases
        is_new = members != self.members
        self.members, self.consents = members, consents
        self.touches, self.purchases = touches, purchases
        return is_new

    @property
    def size(self) -> int:
        """Bytes of what is known of members."""
        return sum(len(each.subject) + MEMBER_BYTES for each in self.members.values())

    def members_written(self) -> list[Member]:
        """As a record has them: equal kinships are written equally."""
        return [
            Member(pid, through, self.told.get(pid, b""), each.subject)
            for (through, pid), each in sorted(self.members.items())
        ]

    def kin_written(self) -> list[KinOf]:
        """As a record has it."""
        return [each for _, each in sorted(self.kin.items())]


def read_kinship(
    claims: Iterable[Claim], moved_to: bytes | None, members: Iterable[Member], kin: Iterable[KinOf]
) -> Kinship | None:
    """What a record says; None where it says nothing, as of most people."""
    found = Kinship()
    found.claims = list(claims)
    found.moved_to = moved_to
    for each in members:
        found.members[each.through, each.pid] = each
        subject = SUBJECT.decode(each.subject)
        if subject.consents:
            found.consents[each.through, each.pid] = subject.consents
        if subject.touches:
            found.touches[each.through, each.pid] = subject.touch_campaigns, subject.touches
        if subject.purchases:
            found.purchases[each.through, each.pid] = subject.purchases
        if each.told:
            found.told[each.pid] = each.told
    found.kin = {each.root: each for each in kin}
    is_any = found.claims or found.members or found.kin
    return found if is_any else None


def forget_told(kinship: Kinship) -> None:
    """Whoever was told something will be told again."""
    kinship.told = dict.fromkeys(kinship.told, _UNKNOWN)
    kinship.sent = None


def has_room_for(kinship: Kinship, through: bytes, added: Iterable[Member]) -> bool:
    """True if `added` fit, in the place of all that came through that member before."""
    others = [each for each in kinship.members.values() if each.through != through]
    both = [*others, *added]
    size = sum(len(each.subject) + MEMBER_BYTES for each in both)
    return len(both) <= MOST_MEMBERS and size <= MOST_MEMBER_BYTES
