"""What does a lane remember, of each person and of itself?

Four kinds of record share the topic `subjects`, told apart by their key: 16 bytes are a person's
pid, `@cursor` is where the lane stands, `@seen` and eight bytes are the event ids of one
transaction, `@parked` and a pid are withheld events that may still be released (ADR 0013). A lane
writes all of them in the transaction that wrote the outputs they explain. In
trial mode there is `@writer` too: the transactional id of whoever opened the lane last, written
before anything else of theirs.
"""

import msgspec

from schemas.carts import CartChange, JourneyState
from schemas.identity import Claim

CURSOR_KEY = b"@cursor"
SEEN_PREFIX = b"@seen"
PARKED_PREFIX = b"@parked"
SEGMENTS_KEY = b"@segments"
WRITER_KEY = b"@writer"
PID_BYTES = 16
NOT_BY_TOUCH = -1
"""In the place of a time: no touch decides the campaign."""


def seen_key(seq: int) -> bytes:
    """The key of the event ids of one transaction."""
    return SEEN_PREFIX + seq.to_bytes(8, "big")


def applied_key(prefix: str, topic: str, partition: int) -> str:
    """The key in Redis of where a lane stood when everything up to there was written there."""
    return f"{prefix}applied:{topic}:{partition}"


def parked_key(pid: bytes) -> bytes:
    """The key of what is parked of one person."""
    return PARKED_PREFIX + pid


class Money(msgspec.Struct, frozen=True, gc=False):
    """An amount of one currency, in millionths."""

    currency: str
    amount_micro: int


class Trait(msgspec.Struct, frozen=True, gc=False):
    """The newest value of one trait, sealed, with the call that set it."""

    key: bytes
    occurred_at_ms: int
    event_id: bytes
    sealed: bytes


class Consent(msgspec.Struct, frozen=True, gc=False):
    """One decision that was recorded for the person."""

    subject_of: str
    status: str
    valid_from_ms: int
    valid_to_ms: int | None
    recorded_at_ms: int


class ClearTrait(msgspec.Struct, frozen=True, gc=False):
    """The newest value of a trait that may be read, as JSON, with the call that set it."""

    name: str
    occurred_at_ms: int
    event_id: bytes
    value: bytes


class Purchase(msgspec.Struct, frozen=True, gc=False):
    """An order, once for each order_id, or a refund.

    `key` is the hash of its order_id, or the first 8 bytes of the event_id where it names none;
    `tie` are these in any case. The amount is in millionths, 0 where none was said (then without a
    currency); `campaign` is the one that it belongs to, by the last touch at `touched_at_ms` or
    NOT_BY_TOUCH.
    """

    key: bytes
    tie: bytes
    occurred_at_ms: int
    amount_micro: int
    currency: str
    campaign: str
    is_refund: bool
    touched_at_ms: int = NOT_BY_TOUCH


class Group(msgspec.Struct, frozen=True, gc=False):
    """The decisions that were made under one pid of a person, or equal ones under several."""

    decisions: list[Consent]


class KinOf(msgspec.Struct, frozen=True, gc=False):
    """What the lane of `root` told of the other pids' decisions, touches and refunded orders."""

    root: bytes
    groups: list[Group]
    touch_campaigns: list[str] = []
    touches: bytes = b""
    orders: list[Purchase] = []


class Member(msgspec.Struct, frozen=True, gc=False):
    """A pid that belongs to another: `through` is the one that told of it, `told` the digest of
    what it was told last, `subject` the framed record of what is its own."""

    pid: bytes
    through: bytes
    told: bytes
    subject: bytes


class Circumstance(msgspec.Struct, frozen=True, gc=False):
    """Where, on what or how somebody was last seen: `value` is a word of schemas/circumstances.py,
    `tie` the first bytes of the event_id of the event that said so."""

    name: str
    value: str
    occurred_at_ms: int
    tie: bytes


class Subject(msgspec.Struct, frozen=True, gc=False):
    """One person as the log knows them; see subjects.avsc."""

    pid: bytes
    erased_at_ms: int | None
    first_seen_ms: int
    last_seen_ms: int
    events: int
    orders: int
    refunds: int
    spent: list[Money]
    refunded: list[Money]
    segments: list[str]
    traits: list[Trait]
    consents: list[Consent]
    order_keys: bytes
    visit_campaigns: list[str]
    visits: bytes
    activity: bytes = b""
    touch_campaigns: list[str] = []
    touches: bytes = b""
    purchases: list[Purchase] = []
    circumstances: list[Circumstance] = []
    wake_at_ms: int = 0
    claims: list[Claim] = []
    moved_to: bytes | None = None
    members: list[Member] = []
    kin: list[KinOf] = []
    clear_traits: list[ClearTrait] = []
    cart: list[CartChange] = []
    journeys: list[JourneyState] = []


class Position(msgspec.Struct, frozen=True, gc=False):
    """First offset of an input topic, in the lane's partition, that is not yet applied."""

    topic: str
    next_offset: int


class Withheld(msgspec.Struct, frozen=True, gc=False):
    """How many events a lane withheld for one purpose and reason, and did not release since."""

    purpose: str
    count: int
    reason: str = ""


class Cursor(msgspec.Struct, frozen=True, gc=False):
    """Where a lane stands; the last record of each of its transactions. See cursor.avsc."""

    generation: int
    seq: int
    positions: list[Position]
    timers_at_ms: int
    newest_received_at_ms: int
    transactional_id: str
    withheld: list[Withheld]


class Sightings(msgspec.Struct, frozen=True, gc=False):
    """Event ids of one transaction, packed 28 bytes each; see sightings.avsc."""

    newest_received_at_ms: int
    ids: bytes


class Parked(msgspec.Struct, frozen=True, gc=False):
    """Where withheld events of one person lie, packed 25 bytes each; see parked.avsc."""

    generation: int
    events: bytes
