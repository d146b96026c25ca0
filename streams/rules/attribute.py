"""To which campaign does an event belong, and which earlier ones change theirs by it?

To the one that it names; a refund to that of its order; any other to the person's last touch in the
window (streams/rules/touches.py), else to none. So a touch that arrives late, or is taken back,
changes the campaign of events that are counted already, of the visits that began with them, and of
the refunds of those that are orders; and an order that arrives late changes that of its refunds.
"""

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from schemas.activity import TIE_BYTES
from schemas.consent import Basis, allows
from schemas.events import CampaignOfEvent, CampaignSpan, Collected, VisitChange
from schemas.subjects import NOT_BY_TOUCH, Consent, Purchase
from schemas.touches import TOUCH, Touch
from streams.rules.course import (
    campaign_at,
    deciding,
    differences,
    order_of_others,
)
from streams.rules.enrich import MOST_BYTES_A_CHARACTER
from streams.rules.outcomes import Moved
from streams.rules.person import Person, Visit
from streams.rules.touches import Stretch, Touches

_NOTHING: list[Stretch] = []
_TOUCH_BYTES = TOUCH.size


def touch_with(person: Person, event: Collected, campaign_id: str, window_ms: int) -> list[Stretch]:
    """The event touches its person; the stretches of what is counted already that change by it.

    To be called before the event is folded into the person.
    """
    at_ms, tie = event.occurred_at_ms, event.event_id[:TIE_BYTES]
    received_at_ms = event.received_at_ms
    person.size += _TOUCH_BYTES + MOST_BYTES_A_CHARACTER * len(campaign_id)
    touches = person.touches
    if touches is None:
        touches = person.touches = Touches()
    if (
        person.last_seen_ms < at_ms > 0
        and person.kinship is None
        and touches.append(at_ms, tie, received_at_ms, campaign_id)
    ):
        return _NOTHING  # by far the most common
    return _touch(
        person, touches, Touch(moment_of(at_ms), tie, received_at_ms, campaign_id), window_ms
    )


def _touch(person: Person, touches: Touches, touch: Touch, window_ms: int) -> list[Stretch]:
    course = deciding(person)
    changed = touches.add(touch, window_ms)
    if course is not None and course is not touches:
        changed = course.add(touch, window_ms)
    if not person.events:
        return _NOTHING
    last_ms = moment_of(person.last_seen_ms)
    return [each for each in changed if each.from_ms <= last_ms]


def _all(touches: Touches | None) -> list[Touch]:
    return [] if touches is None else touches.all()


def moment_of(occurred_at_ms: int) -> int:
    """When the stores say that it happened: nothing before 1970."""
    return max(0, occurred_at_ms)


def move(person: Person, changed: Sequence[Stretch]) -> Moved | None:
    """What belongs to another campaign by `changed`, in order; None when nothing is to be said."""
    if not changed:
        return None
    visit_changes: list[VisitChange] = []
    refunds: dict[bytes, str] = {}
    for stretch in changed:
        visit_changes += _move_visits(person, stretch)
        visit_changes += _move_purchases(person, stretch, refunds)
    return Moved(
        [CampaignSpan(each.from_ms, each.until_ms, each.after) for each in changed],
        [CampaignOfEvent(*each) for each in refunds.items()],
        visit_changes,
    )


def order_of(person: Person, key: bytes) -> Purchase | None:
    """The order that this person's events call by this key."""
    for each in person.purchases:
        if each.key == key and not each.is_refund:
            return each
    return None


def with_refunds_of(person: Person, order: Purchase, moved: Moved | None) -> Moved | None:
    """`moved`, and the refunds that came before their order belong to its campaign."""
    refunds: dict[bytes, str] = {}
    visit_changes = _give_refunds(person, order.key, order.campaign, refunds)
    return _with_refunds(moved, refunds, visit_changes)


def with_refunds_of_others(person: Person, moved: Moved | None, window_ms: int) -> Moved | None:
    """`moved`, and refunds of orders under other pids of the person belong to their campaigns.

    Where the order is under the pid itself, too, that one counts.
    """
    if person.kinship is None:
        return moved
    refunds: dict[bytes, str] = {}
    visit_changes: list[VisitChange] = []
    ordered = {each.key for each in person.purchases if not each.is_refund}
    for each in [each for each in person.purchases if each.is_refund and each.key not in ordered]:
        order = order_of_others(person, each.key)
        if order is not None:
            campaign_id = campaign_of_order(person, order, window_ms)
            if (each.campaign, each.touched_at_ms) != (campaign_id, NOT_BY_TOUCH):
                visit_changes += _give_refunds(person, each.key, campaign_id, refunds)
    return _with_refunds(moved, refunds, visit_changes)


def campaign_of_order(person: Person, order: Purchase, window_ms: int) -> str:
    """To which campaign an order under any pid of the person belongs."""
    if order.touched_at_ms == NOT_BY_TOUCH:
        return order.campaign
    return campaign_at(person, order.touched_at_ms, window_ms)


def _with_refunds(
    moved: Moved | None, refunds: dict[bytes, str], visit_changes: list[VisitChange]
) -> Moved | None:
    if not refunds:
        return moved
    events = [CampaignOfEvent(*each) for each in refunds.items()]
    if moved is None:
        return Moved([], events, visit_changes)
    return Moved(moved.spans, moved.events + events, moved.visit_changes + visit_changes)


def without_disallowed(
    person: Person, decisions: Sequence[Consent], basis: Basis, late_grant_ms: int, window_ms: int
) -> Moved | None:
    """Touches that `decisions` on analytics disallow decide nothing any more."""
    course, touches = deciding(person), person.touches
    if touches is None or course is None:
        return None
    gone = [
        touch
        for touch in touches.all()
        if not allows(basis, decisions, touch.occurred_at_ms, touch.received_at_ms, late_grant_ms)
    ]
    if not gone:
        return None
    changed = touches.remove(gone, window_ms)
    if course is not touches:
        changed = course.remove(gone, window_ms)
    return with_refunds_of_others(person, move(person, changed), window_ms)


def move_by_course(person: Person, before: Touches | None, window_ms: int) -> Moved | None:
    """What belongs to another campaign because no longer the touches of `before` decide."""
    if not person.events:
        return None
    first_ms, last_ms = moment_of(person.first_seen_ms), moment_of(person.last_seen_ms)
    changed = differences(_all(before), _all(deciding(person)), window_ms)
    changed = [e for e in changed if e.from_ms <= last_ms and first_ms < e.until_ms]
    return with_refunds_of_others(person, move(person, changed), window_ms)


def _move_visits(person: Person, stretch: Stretch) -> list[VisitChange]:
    """Those that began in `stretch` with an event whose campaign the last touch decides."""
    touches, visits = person.touches, person.visits
    changes: list[VisitChange] = []
    fixed: set[bytes] | None = None
    at = bisect_left(visits, stretch.from_ms, key=_start_of)
    while at < len(visits) and (started_ms := _start_of(visits[at])) < stretch.until_ms:
        visit, tie = visits[at], visits[at].first_id[:TIE_BYTES]
        at += 1
        is_named = touches is not None and touches.has(started_ms, tie)
        if is_named or visit.campaign_id != stretch.before:
            continue
        if fixed is None:
            fixed = {
                each.tie
                for each in person.purchases
                if each.is_refund and each.touched_at_ms == NOT_BY_TOUCH
            }
        if tie not in fixed:
            changes += _give_visit(person, visit, stretch.after)
    return changes


def _give_visit(person: Person, visit: Visit, campaign_id: str) -> list[VisitChange]:
    changes = [
        VisitChange(visit.campaign_id, visit.started_at_ms, -1),
        VisitChange(campaign_id, visit.started_at_ms, 1),
    ]
    visit.campaign_id = campaign_id
    person.size += MOST_BYTES_A_CHARACTER * len(campaign_id)
    return changes


def _start_of(visit: Visit) -> int:
    return moment_of(visit.started_at_ms)


def _move_purchases(
    person: Person, stretch: Stretch, refunds: dict[bytes, str]
) -> list[VisitChange]:
    """Orders, and refunds of unknown orders, in `stretch`; `refunds` gets those that follow."""
    changes: list[VisitChange] = []
    for at, each in enumerate(person.purchases):
        if stretch.from_ms <= each.touched_at_ms < stretch.until_ms:
            person.purchases[at] = msgspec.structs.replace(each, campaign=stretch.after)
            person.bought = None
            if not each.is_refund:
                changes += _give_refunds(person, each.key, stretch.after, refunds)
    return changes


def _give_refunds(
    person: Person, key: bytes, campaign_id: str, refunds: dict[bytes, str]
) -> list[VisitChange]:
    """Refunds of the order `key`, and visits that began with one, belong to the campaign."""
    changes: list[VisitChange] = []
    for at, each in enumerate(person.purchases):
        if each.key != key or not each.is_refund:
            continue
        refunds[each.tie] = campaign_id
        person.purchases[at] = msgspec.structs.replace(
            each, campaign=campaign_id, touched_at_ms=NOT_BY_TOUCH
        )
        person.bought = None
        for visit in person.visits:
            begins = (visit.started_at_ms, visit.first_id[:TIE_BYTES])
            if begins == (each.occurred_at_ms, each.tie) and visit.campaign_id != campaign_id:
                changes += _give_visit(person, visit, campaign_id)
    return changes
