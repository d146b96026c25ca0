"""Which campaigns touched a person, under whichever of their pids?

The lane of a pid knows the touches of its own events, and is told those of the others as it is told
their decisions (ADR 0018). All of them together decide, in one order: so the lanes of a person's
pids attribute alike, each its own events (ADR 0021). Orders of others are told where refunds of
them came under the pid.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from heapq import merge
from itertools import chain, pairwise

import msgspec

from schemas.events import NO_CAMPAIGN
from schemas.subjects import NOT_BY_TOUCH, Purchase
from schemas.touches import Touch, packed_touches, unpack_touches
from streams.rules.kinship import Packed
from streams.rules.person import Person
from streams.rules.touches import KEPT_TOUCHES, MOST_TOUCHES, Stretch, Touches, thinned

_NO_TOUCHES: list[Touch] = []


def deciding(person: Person) -> Touches | None:
    """The touches that decide for events of the pid; None where there are none.

    Those of the pid itself, as long as none of another is known. Whoever changes the pid's own
    changes these too.
    """
    kinship = person.kinship
    if kinship is None:
        return person.touches
    if kinship.course is None:
        others = kinship.touches_of_others
        if not others:
            return person.touches
        kinship.course = course = Touches()
        own = _NO_TOUCHES if person.touches is None else person.touches.all()
        course.replace(sorted({*own, *(each for packed in others for each in _read(packed))}))
    return kinship.course


def touches_for(person: Person, pids: Collection[bytes], window_ms: int) -> dict[bytes, Packed]:
    """What the lane of each of `pids` must know of the touches of the person's others.

    Of more than MOST_TOUCHES those that decide for events still to come.
    """
    kinship = person.kinship
    assert kinship is not None
    of_pid = {pid: _read(packed) for (_, pid), packed in sorted(kinship.touches.items())}
    if person.touches is not None:
        of_pid[person.pid] = person.touches.all()
    whole = list(merge(*of_pid.values()))
    if len(whole) > MOST_TOUCHES:
        whole = thinned(whole, window_ms, KEPT_TOUCHES)
    if not whole:
        return {}
    found = {}
    for pid in pids:
        own = set(of_pid.get(pid, ()))
        found[pid] = packed_touches(each for each in whole if each not in own)
    return found


def campaign_at(person: Person, at_ms: int, window_ms: int) -> str:
    """The campaign of what happened at `at_ms`, under any of the pids, and names none."""
    touches = deciding(person)
    return NO_CAMPAIGN if touches is None else touches.campaign_at(at_ms, window_ms)


def order_of_others(person: Person, key: bytes) -> Purchase | None:
    """As it was first told under another pid of the person."""
    kinship = person.kinship
    if kinship is None:
        return None
    told = (each for kin in kinship.kin.values() for each in kin.orders)
    known = chain(told, *kinship.purchases.values())
    return min((e for e in known if e.key == key and not e.is_refund), key=_stamp, default=None)


def orders_for(person: Person, pids: Collection[bytes]) -> dict[bytes, list[Purchase]]:
    """For the lane of each of `pids` the orders under others of which it knows refunds only."""
    kinship = person.kinship
    assert kinship is not None
    of_pid = {pid: bought for (_, pid), bought in sorted(kinship.purchases.items())}
    of_pid[person.pid] = person.purchases
    everything = sorted(chain(*of_pid.values()), key=_stamp, reverse=True)
    if not any(each.is_refund for each in everything):
        return {}
    first = {each.key: each for each in everything if not each.is_refund}
    found = {}
    for pid in pids:
        own = of_pid.get(pid, ())
        ordered = {each.key for each in own if not each.is_refund}
        wanted = sorted({each.key for each in own if each.is_refund} - ordered)
        found[pid] = [_without_amount(first[key]) for key in wanted if key in first]
    return found


def _stamp(order: Purchase) -> tuple[int, bytes]:
    return order.occurred_at_ms, order.tie


def _without_amount(order: Purchase) -> Purchase:
    # Nor its campaign, if touches decide it: whoever is told knows them, and is not told anew.
    campaign = order.campaign if order.touched_at_ms == NOT_BY_TOUCH else ""
    return msgspec.structs.replace(order, amount_micro=0, currency="", campaign=campaign)


def differences(before: Sequence[Touch], after: Sequence[Touch], window_ms: int) -> list[Stretch]:
    """The moments whose campaign is another by the touches of `after`; apart, in order."""
    if before == after:
        return []
    was, now = dict(_course(before, window_ms)), dict(_course(after, window_ms))
    found: list[Stretch] = []
    by_one = by_other = NO_CAMPAIGN
    for from_ms, until_ms in pairwise(sorted(was.keys() | now.keys())):
        by_one, by_other = was.get(from_ms, by_one), now.get(from_ms, by_other)
        if by_one != by_other:
            found.append(Stretch(from_ms, until_ms, by_one, by_other))
    return found


def _course(touches: Iterable[Touch], window_ms: int) -> Iterator[tuple[int, str]]:
    """(from when, campaign), in order; of two of one time the later holds."""
    ends_ms: int | None = None
    for touch in touches:
        if ends_ms is not None and ends_ms <= touch.occurred_at_ms:
            yield ends_ms, NO_CAMPAIGN
        yield touch.occurred_at_ms, touch.campaign_id
        ends_ms = touch.occurred_at_ms + window_ms
    if ends_ms is not None:
        yield ends_ms, NO_CAMPAIGN


def _read(packed: Packed) -> list[Touch]:
    return list(unpack_touches(*packed))
