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
from schemas.varints import write_long, write_text, write_time
from streams.rules.activity import Activity
from streams.rules.circumstances import (
    Seen,
    list_circumstances,
    read_circumstances,
    write_circumstances,
)
from streams.rules.kinship import Kinship, read_kinship

VISIT_BYTES = VISIT.size


class Visit:
    """Events of one person with less than the gap between neighbours; times in UTC ms.

    `first_id` and `campaign_id` are those of its first event by (occurred_at, event_id).
    """

    __slots__ = ("campaign_id", "ended_at_ms", "first_id", "started_at_ms")

    def __init__(
        self, started_at_ms: int, ended_at_ms: int, first_id: bytes, campaign_id: str
    ) -> None:
        self.started_at_ms = started_at_ms
        self.ended_at_ms = ended_at_ms
        self.first_id = first_id
        self.campaign_id = campaign_id


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
        self.purchases: list[Purchase] = []
        self.circumstances: dict[str, Seen] = {}  # by name
        self.clear_traits: dict[str, ClearTrait] = {}
        self.cart: tuple[CartChange, ...] = ()  # see streams/rules/cart.py
        self.journeys: tuple[JourneyState, ...] = ()
        self.wake_at_ms = 0  # when to look at the person although nothing happens; 0: never
        self.wake_entry_ms = 0  # when the lane looks next (streams/rules/wakes.py)
        self.kinship: Kinship | None = None  # who else is the same person; of most people nobody
        # The bytes of what most events leave alone (orders to order_keys), or None after a change;
        # of `purchases`, None too; and of what few people have (all after these).
        self.settled: bytes | None = None
        self.bought: bytes | None = _EMPTY
        self.rare: bytes | None = _NOTHING_RARE
        self.size = 0  # bytes of its last record, and at most what was added since

    @property
    def visits_ms(self) -> list[int]:
        """When each visit began, in order."""
        return [visit.started_at_ms for visit in self.visits]

    def erase(self, at_ms: int) -> None:
        """Leave the stub that keeps later events of this pid out, and nothing else."""
        pid = self.pid
        self.__init__(pid)  # type: ignore[misc]
        self.erased_at_ms = at_ms


_write_settled = SUBJECT.part_writer("orders", "order_keys")
_write_rare = SUBJECT.part_writer("wake_at_ms", "journeys")
_NOTHING_RARE = _write_rare(
    Subject(bytes(16), None, 0, 0, 0, 0, 0, [], [], [], [], [], b"", [], b"")
)
_pack_visit = VISIT.pack
_HEADER = SUBJECT.header
_NOT_ERASED = b"\x00"
_EMPTY = b"\x00"
# What stands around the one visit that most people have, by its campaign: campaigns repeat.
_around_one_visit: dict[str, bytes] = {}
_MOST_CAMPAIGNS = 10_000


def write_person(person: Person) -> bytes:
    """The framed record of `person`: equal to encoding `person_to_subject`, at a third of the cost.

    A lane writes every person it touched at every barrier, and most events change times, the
    number of events and the last visit only.
    """
    if person.erased_at_ms is not None:
        return SUBJECT.encode(person_to_subject(person))
    settled = person.settled
    if settled is None:
        settled = person.settled = _write_settled(_subject_of(person))
    visits = person.visits
    if len(visits) == 1:
        visit = visits[0]
        around = _around_one_visit.get(visit.campaign_id) or _around_visit_of(visit.campaign_id)
        seen = around + _pack_visit(visit.started_at_ms, visit.ended_at_ms, visit.first_id, 0)
    else:
        seen = _visits_as_written(visits)
    bought = person.bought
    if bought is None:
        bought = person.bought = _purchases_as_written(person.purchases)
    rare = person.rare
    if rare is None:
        rare = person.rare = _write_rare(_subject_of(person))
    activity = person.activity.packed
    record = b"".join(
        (
            _HEADER,
            person.pid,
            _NOT_ERASED,
            write_time(person.first_seen_ms),
            write_time(person.last_seen_ms),
            write_long(person.events),
            settled,
            seen,
            write_long(len(activity)),
            activity,
            bought,
            write_circumstances(person.circumstances),
            rare,
        )
    )
    person.size = len(record)
    if person.kinship is not None:
        person.size -= person.kinship.size  # there is a limit of their own for members
    return record


def _around_visit_of(campaign_id: str) -> bytes:
    """An array of one campaign, and the size of one packed visit."""
    around = b"".join(
        (write_long(1), write_text(campaign_id), write_long(0), write_long(VISIT_BYTES))
    )
    if len(_around_one_visit) >= _MOST_CAMPAIGNS:
        _around_one_visit.clear()
    _around_one_visit[campaign_id] = around
    return around


def _visits_as_written(visits: list[Visit]) -> bytes:
    campaigns, packed = _pack_visits(visits)
    names = [write_text(name) for name in campaigns]
    block = write_long(len(names)) + b"".join(names) if names else b""
    return b"".join((block, write_long(0), write_long(len(packed)), packed))


def _purchases_as_written(purchases: list[Purchase]) -> bytes:
    """An array of records: equal to the compiled writer's, at half the cost."""
    if not purchases:
        return _EMPTY
    parts = [write_long(len(purchases))]
    for each in purchases:
        parts += (
            each.key,
            each.tie,
            write_time(each.occurred_at_ms),
            write_long(each.amount_micro),
            write_text(each.currency),
            write_text(each.campaign),
            b"\x01" if each.is_refund else b"\x00",
        )
    parts.append(_EMPTY)
    return b"".join(parts)


def read_person(record: bytes) -> Person:
    """The person that `write_person` wrote. Raises Malformed."""
    person = subject_to_person(SUBJECT.decode(record))
    person.size = len(record)
    if person.kinship is not None:
        person.size -= person.kinship.size
    return person


def _pack_visits(visits: list[Visit]) -> tuple[list[str], bytes]:
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
    visit_campaigns, visits = _pack_visits(person.visits)
    return msgspec.structs.replace(
        _subject_of(person),
        visit_campaigns=visit_campaigns,
        visits=visits,
        activity=bytes(person.activity.packed),
        purchases=person.purchases,
        circumstances=list_circumstances(person.circumstances),
    )


def _subject_of(person: Person) -> Subject:
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
    person.purchases = list(subject.purchases)
    person.circumstances = read_circumstances(subject.circumstances)
    person.wake_at_ms = subject.wake_at_ms
    person.kinship = read_kinship(subject.claims, subject.moved_to, subject.members, subject.kin)
    person.clear_traits = {trait.name: trait for trait in subject.clear_traits}
    person.cart = tuple(subject.cart)
    person.journeys = tuple(subject.journeys)
    person.bought = person.rare = None
    return person
