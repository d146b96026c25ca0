"""What do lanes tell each other of people who are one?

A pid that belongs to another by the claim that stands (schemas/identity.py) keeps its own lane,
which deduplicates and counts its events as before. That lane tells the other's what is known under
the pid, by records keyed with whoever is told: each replaces what the same teller said before, so
they may be said twice, and nothing is ever added up (ADR 0018).
"""

import msgspec

from schemas.subjects import Group, Purchase


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """Somebody says whose the identifier of a pid is; see claimed.avsc."""

    pid: bytes
    claimant: bytes
    rank: int
    occurred_at_ms: int
    event_id: bytes
    cause: str
    received_at_ms: int


class Substate(msgspec.Struct, frozen=True, gc=False):
    """What is known under one pid alone: `subject` is a framed Subject record."""

    pid: bytes
    subject: bytes


class Moved(msgspec.Struct, frozen=True, gc=False):
    """All that is known under `member` and whoever belongs to it, for the lane of `pid`; see
    moved.avsc."""

    pid: bytes
    member: bytes
    substates: list[Substate]
    generation: int
    lane: int
    seq: int
    index: int


class Kin(msgspec.Struct, frozen=True, gc=False):
    """What was decided under the other pids of the person that `root` stands for, which campaigns
    touched these, and what they ordered that was refunded under this one; see kin.avsc."""

    pid: bytes
    root: bytes
    groups: list[Group]
    generation: int
    lane: int
    seq: int
    index: int
    touch_campaigns: list[str] = []
    touches: bytes = b""
    orders: list[Purchase] = []


class Linked(msgspec.Struct, frozen=True, gc=False):
    """`pid` is one of the person that `root` stands for, or no more; see linked.avsc."""

    pid: bytes
    root: bytes
    is_linked: bool
    generation: int
    lane: int
    seq: int
    source_topic: str
    source_partition: int
    source_offset: int
    index: int
    salt: bytes
