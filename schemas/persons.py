"""What is known of a person whose pids are several?

The record of the pid that stands for the person holds its own facts and, beside them, the records
of the others. The whole is made of them by rules that know no order: sums, earliest and latest, the
newest trait, an order once whoever told of it. So it is the same whichever way the pids came
together, and taking one out again leaves what the others' own facts make.

Decisions are not made one: those under each pid are a group, and what one group refuses is refused
(schemas/consent.py). Each pid's traits are sealed under its own key: to open them, take `parts_of`.
"""

import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from schemas.activity import MOST_ENTRIES, packed, unpack
from schemas.carts import furthest, union
from schemas.codec import SUBJECT
from schemas.subjects import (
    Circumstance,
    ClearTrait,
    Consent,
    Group,
    KinOf,
    Money,
    Purchase,
    Subject,
    Trait,
)
from schemas.touches import packed_touches, unpack_touches

VISIT_GAP_MS: Final = 30 * 60_000
"""As shipped ([time] visit_gap_minutes)."""

VISIT: Final = struct.Struct(">qq16sH")
"""started_at_ms, ended_at_ms, event_id of the first event, place in the list of campaigns."""

ORDER_KEY_BYTES: Final = 8
MOST_VISITS: Final = 50_000
"""As of one pid's: of more the newest."""


def parts_of(subject: Subject) -> list[Subject]:
    """What is known under each pid alone: the one that stands for the person, then the others."""
    members = {each.pid: each.subject for each in subject.members}
    own = msgspec.structs.replace(subject, members=[])
    return [own, *(SUBJECT.decode(members[pid]) for pid in sorted(members))]


def whole_subject(subject: Subject, visit_gap_ms: int = VISIT_GAP_MS) -> Subject:
    """The person that `subject` stands for, as if all had happened under its pid.

    Its `consents` stay those of its own pid; what the others decided stands in `kin`.
    """
    if not subject.members:
        return subject
    parts = parts_of(subject)
    seen = [each for each in parts if each.events]
    purchases, repeated = _purchases(parts)
    keys = [key for each in parts for key in _order_keys(each.order_keys)]
    campaigns, visits = _visits(parts, visit_gap_ms)
    touch_campaigns, touches = packed_touches(
        sorted(
            touch for part in parts for touch in unpack_touches(part.touch_campaigns, part.touches)
        )
    )
    done = {entry for each in parts for entry in unpack(each.activity)}
    groups = [Group(each) for each in groups_of(subject)[1:]]
    return msgspec.structs.replace(
        subject,
        first_seen_ms=min((each.first_seen_ms for each in seen), default=0),
        last_seen_ms=max((each.last_seen_ms for each in seen), default=0),
        events=sum(each.events for each in parts),
        orders=sum(each.orders for each in parts) - (len(keys) - len(set(keys))),
        refunds=sum(each.refunds for each in parts),
        spent=_spent(parts, purchases, repeated),
        refunded=_sums((each.refunded for each in parts), ()),
        traits=_traits(parts),
        order_keys=b"".join(sorted(set(keys))),
        visit_campaigns=campaigns,
        visits=visits,
        activity=packed(sorted(done)[-MOST_ENTRIES:]),
        touch_campaigns=touch_campaigns,
        touches=touches,
        purchases=purchases,
        circumstances=_circumstances(parts),
        clear_traits=_clear_traits(parts),
        cart=list(union(*(each.cart for each in parts))),
        journeys=furthest(state for each in parts for state in each.journeys),
        members=[],
        kin=[KinOf(subject.pid, groups)] if groups else [],
    )


def groups_of(subject: Subject) -> list[list[Consent]]:
    """The decisions that hold for the pid: its own, then those of each other pid of the person."""
    told = [group.decisions for kin in subject.kin for group in kin.groups]
    members = [SUBJECT.decode(each.subject).consents for each in subject.members]
    return [subject.consents, *_distinct([*members, *told])]


def groups_for(
    pids: Iterable[bytes], decided: Mapping[bytes, list[Consent]]
) -> dict[bytes, list[Group]]:
    """What each of `pids` must know of what the others `decided`, by pid.

    Equal decisions of several pids are one group: one made for the person is under each of them.
    """
    names = {pid: msgspec.msgpack.encode(each) for pid, each in decided.items() if each}
    times = Counter(names.values())
    groups = {names[pid]: Group(decided[pid]) for pid in names}
    return {
        pid: [
            groups[name]
            for name in sorted(groups)
            if name != names.get(pid) or times[name] > 1  # what others decided as well
        ]
        for pid in pids
    }


def _distinct(groups: Iterable[list[Consent]]) -> list[list[Consent]]:
    found = {msgspec.msgpack.encode(group): group for group in groups if group}
    return [found[name] for name in sorted(found)]


def _order_keys(packed: bytes) -> list[bytes]:
    return [packed[at : at + ORDER_KEY_BYTES] for at in range(0, len(packed), ORDER_KEY_BYTES)]


def _purchases(parts: Iterable[Subject]) -> tuple[list[Purchase], list[Money]]:
    """Each order once, as it was first told, and every refund; what other tellings of it summed."""
    orders: dict[bytes, Purchase] = {}
    refunds: list[Purchase] = []
    repeated: list[Money] = []
    for each in sorted((each for part in parts for each in part.purchases), key=_told):
        if each.is_refund:
            refunds.append(each)
        elif each.key in orders:
            if each.currency:
                repeated.append(Money(each.currency, each.amount_micro))
        else:
            orders[each.key] = each
    return sorted([*orders.values(), *refunds], key=_told), repeated


def _spent(
    parts: Iterable[Subject], purchases: Iterable[Purchase], repeated: Iterable[Money]
) -> list[Money]:
    """Without a currency in which orders were only told again: it was never spent."""
    told = {each.currency for each in repeated}
    kept = {each.currency for each in purchases if not each.is_refund}
    sums = _sums((each.spent for each in parts), repeated)
    return [sum_ for sum_ in sums if sum_.amount_micro or sum_.currency not in told - kept]


def _circumstances(parts: Iterable[Subject]) -> list[Circumstance]:
    newest: dict[str, Circumstance] = {}
    for each in (each for part in parts for each in part.circumstances):
        known = newest.get(each.name)
        if known is None or _seen(known) < _seen(each):
            newest[each.name] = each
    return [newest[name] for name in sorted(newest)]


def _seen(circumstance: Circumstance) -> tuple[int, bytes, str]:
    return circumstance.occurred_at_ms, circumstance.tie, circumstance.value


def _told(purchase: Purchase) -> tuple[object, ...]:
    of = purchase
    stamp = (of.occurred_at_ms, of.tie, of.is_refund, of.key)
    return (*stamp, of.amount_micro, of.currency, of.campaign)


def _sums(amounts: Iterable[list[Money]], without: Iterable[Money]) -> list[Money]:
    total: dict[str, int] = {}
    for each in amounts:
        for money in each:
            total[money.currency] = total.get(money.currency, 0) + money.amount_micro
    for money in without:
        total[money.currency] = total.get(money.currency, 0) - money.amount_micro
    return [Money(*item) for item in sorted(total.items())]


def _traits(parts: Iterable[Subject]) -> list[Trait]:
    """The newest value of each; of two of one call the one that sorts last."""
    newest: dict[bytes, Trait] = {}
    for trait in (each for part in parts for each in part.traits):
        known = newest.get(trait.key)
        if known is None or _newer(trait) > _newer(known):
            newest[trait.key] = trait
    return [newest[key] for key in sorted(newest)]


def _newer(trait: Trait) -> tuple[int, bytes, bytes]:
    return trait.occurred_at_ms, trait.event_id, trait.sealed


def _clear_traits(parts: Iterable[Subject]) -> list[ClearTrait]:
    told = (each for part in parts for each in part.clear_traits)
    newest: dict[str, ClearTrait] = {}
    for each in sorted(told, key=lambda each: (each.occurred_at_ms, each.event_id, each.value)):
        newest[each.name] = each
    return [newest[name] for name in sorted(newest)]


def _visits(parts: Iterable[Subject], gap_ms: int) -> tuple[list[str], bytes]:
    """Visits with less than the gap between them are one, which began as the earliest of them."""
    spans = sorted(
        (started_at_ms, first_id, ended_at_ms, part.visit_campaigns[campaign])
        for part in parts
        for started_at_ms, ended_at_ms, first_id, campaign in VISIT.iter_unpack(part.visits)
    )
    joined: list[tuple[int, bytes, int, str]] = []
    for span in spans:
        if joined and span[0] - joined[-1][2] < gap_ms:
            began_at_ms, first_id, ended_at_ms, campaign_id = joined[-1]
            joined[-1] = (began_at_ms, first_id, max(ended_at_ms, span[2]), campaign_id)
        else:
            joined.append(span)
    places: dict[str, int] = {}
    packed = [
        VISIT.pack(
            started_at_ms, ended_at_ms, first_id, places.setdefault(campaign_id, len(places))
        )
        for started_at_ms, first_id, ended_at_ms, campaign_id in joined[-MOST_VISITS:]
    ]
    return list(places), b"".join(packed)
