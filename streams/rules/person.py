"""What does a lane hold in memory of one person?

`Person` is the working form of a `Subject` record: the same facts in the shapes that the rules
change quickly. A rule may change the person it was handed, in place, and nothing else.
"""

from typing import NamedTuple

import msgspec

from schemas.carts import CartChange, JourneyState
from schemas.codec import SUBJECT
from schemas.persons import ORDER_KEY_BYTES, VISIT
from schemas.subjects import ClearTrait, Consent, Money, Purchase, Subject, Trait
from streams.rules.activity import Activity
from streams.rules.circumstances import (
    Seen,
    list_circumstances,
    read_circumstances,
)
from streams.rules.kinship import Kinship, read_kinship
from streams.rules.touches import Touches

VISIT_BYTES = VISIT.size
_NOTHING_RARE = bytes(7)


class Visit(msgspec.Struct, gc=False):  # made often: a third of a class's cost
    """Events of one person with less than the gap between neighbours; times in UTC ms.

    `first_id` and `campaign_id` are those of its first event by (occurred_at, event_id).
    """

    started_at_ms: int
    ended_at_ms: int
    first_id: bytes
    campaign_id: str


class Decided(NamedTuple):
    """A person's decisions by what they are on, those of each of their pids apart."""

    analytics: list[list[Consent]]
    personalisation: list[list[Consent]]


class Person:
    """One person's facts while a lane works on them. Amounts in millionths of the currency."""

    __slots__ = (
        "activity",
        "activity_since_ms",
        "bought",
        "bought_count",
        "cart",
        "circumstances",
        "clear_traits",
        "consents",
        "decided",
        "erased_at_ms",
        "events",
        "first_seen_ms",
        "journeys",
        "kinship",
        "last_seen_ms",
        "order_keys",
        "orders",
        "pid",
        "purchases",
        "rare",
        "refunded",
        "refunds",
        "segments",
        "settled",
        "size",
        "spent",
        "touches",
        "traits",
        "visits",
        "wake_at_ms",
        "wake_entry_ms",
    )

    def __init__(self, pid: bytes) -> None:
        self.pid = pid
        self.erased_at_ms: int | None = None
        self.first_seen_ms = 0
        self.last_seen_ms = 0
        self.events = 0
        self.orders = 0
        self.refunds = 0
        self.spent: dict[str, int] = {}
        self.refunded: dict[str, int] = {}
        self.segments: tuple[str, ...] = ()
        self.traits: dict[bytes, Trait] = {}
        self.consents: list[Consent] = []
        self.decided: Decided | None = None  # of `consents`; None until needed, and after a change
        self.order_keys: set[bytes] = set()
        self.visits: list[Visit] = []  # by start; neighbours are at least the gap apart
        self.activity = Activity()
        self.activity_since_ms = 0  # nothing of the activity is older; 0: not known
        self.touches: Touches | None = None  # of one whom a campaign touched ever
        self.purchases: list[Purchase] = []
        self.circumstances: dict[str, Seen] = {}  # by name
        self.clear_traits: dict[str, ClearTrait] = {}
        self.cart: tuple[CartChange, ...] = ()  # see streams/rules/cart.py
        self.journeys: tuple[JourneyState, ...] = ()
        self.wake_at_ms = 0  # when to look at the person although nothing happens; 0: never
        self.wake_entry_ms = 0  # when the lane looks next (streams/rules/wakes.py)
        self.kinship: Kinship | None = None  # who else is the same person; of most people nobody
        # What streams/rules/written_person.py keeps: the bytes of what most events leave alone
        # (orders to order_keys), None after a change; of the first so many purchases, None after a
        # change of one of them; of what few people have (claims to journeys), None after a change.
        self.settled: bytes | None = None
        self.bought: bytes | None = b""
        self.bought_count = 0
        self.rare: bytes | None = _NOTHING_RARE
        self.size = 0  # bytes of its last record, and at most what was added since

    @property
    def visits_ms(self) -> list[int]:
        """When each visit began, in order."""
        return [visit.started_at_ms for visit in self.visits]

    @property
    def packed_activity(self) -> bytes:
        """The recent events, as they are written."""
        return bytes(self.activity.packed)

    def erase(self, at_ms: int) -> None:
        """Leave the stub that keeps later events of this pid out, and nothing else."""
        pid = self.pid
        self.__init__(pid)  # type: ignore[misc]
        self.erased_at_ms = at_ms


def read_person(record: bytes) -> Person:
    """The person that `write_person` (streams/rules/written_person.py) wrote. Raises Malformed."""
    person = subject_to_person(SUBJECT.decode(record))
    person.size = len(record)
    if person.kinship is not None:
        person.size -= person.kinship.size
    return person


def pack_visits(visits: list[Visit]) -> tuple[list[str], bytes]:
    """The campaigns of `visits`, each once, and the visits packed with the places of theirs."""
    campaigns: dict[str, int] = {}
    pack = VISIT.pack
    packed = b"".join(
        [
            pack(
                visit.started_at_ms,
                visit.ended_at_ms,
                visit.first_id,
                campaigns.setdefault(visit.campaign_id, len(campaigns)),
            )
            for visit in visits
        ]
    )
    return list(campaigns), packed


def person_to_subject(person: Person) -> Subject:
    """The record that says all of `person`; `subject_to_person` gives an equal one back."""
    visit_campaigns, visits = pack_visits(person.visits)
    return msgspec.structs.replace(
        subject_of(person),
        visit_campaigns=visit_campaigns,
        visits=visits,
        activity=bytes(person.activity.packed),
        touch_campaigns=[] if person.touches is None else person.touches.campaigns,
        touches=b"" if person.touches is None else bytes(person.touches.packed),
        purchases=person.purchases,
        circumstances=list_circumstances(person.circumstances),
    )


def subject_of(person: Person) -> Subject:
    """The record without what is written in other ways."""
    kinship = person.kinship
    return Subject(
        person.pid,
        person.erased_at_ms,
        person.first_seen_ms,
        person.last_seen_ms,
        person.events,
        person.orders,
        person.refunds,
        [Money(*item) for item in person.spent.items()] if person.spent else [],
        [Money(*item) for item in person.refunded.items()] if person.refunded else [],
        list(person.segments),
        list(person.traits.values()),
        person.consents,
        b"".join(sorted(person.order_keys)) if person.order_keys else b"",
        [],
        b"",
        wake_at_ms=person.wake_at_ms,
        claims=kinship.claims if kinship is not None else [],
        moved_to=kinship.moved_to if kinship is not None else None,
        members=kinship.members_written() if kinship is not None else [],
        kin=kinship.kin_written() if kinship is not None else [],
        clear_traits=list(person.clear_traits.values()),
        cart=list(person.cart),
        journeys=list(person.journeys),
    )


def subject_to_person(subject: Subject) -> Person:
    """The working form of a record."""
    person = Person(subject.pid)
    person.erased_at_ms = subject.erased_at_ms
    person.first_seen_ms = subject.first_seen_ms
    person.last_seen_ms = subject.last_seen_ms
    person.events = subject.events
    person.orders = subject.orders
    person.refunds = subject.refunds
    person.spent = {money.currency: money.amount_micro for money in subject.spent}
    person.refunded = {money.currency: money.amount_micro for money in subject.refunded}
    person.segments = tuple(subject.segments)
    person.traits = {trait.key: trait for trait in subject.traits}
    person.consents = list(subject.consents)
    keys = subject.order_keys
    person.order_keys = {
        keys[at : at + ORDER_KEY_BYTES] for at in range(0, len(keys), ORDER_KEY_BYTES)
    }
    person.visits = [
        Visit(started_at_ms, ended_at_ms, first_id, subject.visit_campaigns[campaign])
        for started_at_ms, ended_at_ms, first_id, campaign in VISIT.iter_unpack(subject.visits)
    ]
    person.activity = Activity(subject.activity)
    person.activity_since_ms = 1  # of unknown age: looked at when it is settled next
    if subject.touches:
        person.touches = Touches(list(subject.touch_campaigns), subject.touches)
    person.purchases = list(subject.purchases)
    person.circumstances = read_circumstances(subject.circumstances)
    person.wake_at_ms = subject.wake_at_ms
    person.kinship = read_kinship(subject.claims, subject.moved_to, subject.members, subject.kin)
    person.clear_traits = {trait.name: trait for trait in subject.clear_traits}
    person.cart = tuple(subject.cart)
    person.journeys = tuple(subject.journeys)
    person.bought = person.rare = None
    return person
