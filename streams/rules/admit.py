"""How does one event become a fact? Start reading here.

The whole chain in one place, in its order and for its reasons:

    validate      a call that cannot be used must not be remembered as seen
    deduplicate   a copy must not count, so it stands before everything that counts
    gate          what is not allowed leaves a number and no trace
    enrich        campaign and visit, and what changes its campaign by it
    fold          what it adds to the person

Where the person now belongs is settled once a barrier (streams/settle.py). Pure but for the person
and the memory it is handed, which it changes in place.
"""

from dataclasses import dataclass

from schemas.activity import MAY_PROFILE
from schemas.events import (
    BY_NAME,
    BY_ORDER,
    BY_TOUCH,
    EMAIL_EVENTS,
    NO_CAMPAIGN,
    Collected,
    VisitChange,
)
from schemas.subjects import NOT_BY_TOUCH, Purchase
from streams.rules.attribute import (
    campaign_of_order,
    moment_of,
    move,
    order_of,
    touch_with,
    with_refunds_of,
    with_refunds_of_others,
)
from streams.rules.capacity import FULL, has_room
from streams.rules.cart import KINDS as CART_EVENTS
from streams.rules.course import deciding, order_of_others
from streams.rules.deduplicate import Recognises
from streams.rules.enrich import campaign_of, name_of_a_thing, visit_with
from streams.rules.fold import (
    fold_cart,
    fold_circumstances,
    fold_clear_traits,
    fold_order,
    fold_refund,
    fold_times,
    fold_traits,
    order_key,
)
from streams.rules.gate import Gate, gate_by_consent, why_withheld
from streams.rules.journeys import Journey
from streams.rules.outcomes import ERASED, Admitted, Outcome, Refused
from streams.rules.person import Person
from streams.rules.touches import Stretch
from streams.rules.validate import LONGEST_CAMPAIGN, Money, validate, validate_money

LONG_CAMPAIGN = Refused(
    "$.campaign", "campaign_too_long", f"expected at most {LONGEST_CAMPAIGN} characters"
)


@dataclass(frozen=True, slots=True)
class Rules:
    """The configuration that the chain needs."""

    gate: Gate
    visit_gap_ms: int
    history_ms: int = 30 * 86_400_000
    """So long activity is kept, of event time."""
    journeys: tuple[Journey, ...] = ()
    """Without any nobody asks for carts, and none are kept."""
    attribution_ms: int = 5 * 86_400_000
    """So long after a touch an event that names no campaign belongs to it."""


def admit(event: Collected, person: Person, memory: Recognises, rules: Rules) -> Outcome:
    """Decide what `event` is, and let it take effect on `person` when it counts.

    A refused event changes nothing. A duplicate or withheld one, or one for which its person has no
    room, is remembered and changes nothing of the person.
    """
    clear = validate(event)
    if isinstance(clear, Refused):
        return clear
    campaign_id = named = campaign_of(clear)
    if len(named) > LONGEST_CAMPAIGN:
        return LONG_CAMPAIGN
    name = event.event
    money: Money | None = None
    if name in _WITH_MONEY:
        checked = validate_money(clear)
        if isinstance(checked, Refused):
            return checked
        money = checked
    seen = memory.recognise(event)
    if seen is not None:
        return seen
    if person.erased_at_ms is not None:
        return ERASED
    gate = rules.gate
    if person.consents or person.kinship is not None:
        gate = gate_by_consent(gate, person, event)
    if not gate.counts:
        return why_withheld(person)
    if not has_room(person, money):
        return FULL

    at_ms = event.occurred_at_ms
    changed: list[Stretch] = _NO_STRETCHES
    if named != NO_CAMPAIGN:
        attributed_by = BY_NAME
        changed = touch_with(person, event, named, rules.attribution_ms)
    else:
        attributed_by = BY_TOUCH
        touches = person.touches if person.kinship is None else deciding(person)
        if touches is not None:
            campaign_id = touches.campaign_at(moment_of(at_ms), rules.attribution_ms)
    fold_times(person, at_ms)
    is_repeat_order = False
    properties = clear.properties
    new_order: Purchase | None = None
    if name in _WITH_MONEY:
        key = order_key(properties.order_id) if properties is not None else None
        if name == "Order Refunded" and key is not None:
            if (order := order_of(person, key)) is not None:
                campaign_id, attributed_by = order.campaign, BY_ORDER
            elif (of_others := order_of_others(person, key)) is not None:
                campaign_id = campaign_of_order(person, of_others, rules.attribution_ms)
                attributed_by = BY_ORDER
        touched_at_ms = moment_of(at_ms) if attributed_by == BY_TOUCH else NOT_BY_TOUCH
        if name == "Order Refunded":
            fold_refund(person, event, key, money, campaign_id, touched_at_ms)
        else:
            is_repeat_order = fold_order(person, event, key, money, campaign_id, touched_at_ms)
            if not is_repeat_order:
                new_order = person.purchases[-1]
    if rules.journeys and name in CART_EVENTS and (gate.profiles or name == "Order Completed"):
        fold_cart(person, event)
    visit_changes = (
        _NO_CHANGES
        if name in EMAIL_EVENTS
        else visit_with(person, at_ms, event.event_id, campaign_id, rules.visit_gap_ms)
    )
    moved = move(person, changed) if changed else None
    if changed and person.kinship is not None:
        moved = with_refunds_of_others(person, moved, rules.attribution_ms)
    if new_order is not None and person.refunds:
        moved = with_refunds_of(person, new_order, moved)
    activity_name = name or _VIEWS.get(event.type)
    if activity_name is not None and at_ms > event.received_at_ms - rules.history_ms:
        category = product = ""
        if properties is not None:
            if properties.category is not None:
                category = name_of_a_thing(properties.category)
            if properties.product_id is not None:
                product = name_of_a_thing(properties.product_id)
        person.size += person.activity.add(
            at_ms,
            event.event_id,
            activity_name,
            "" if named is NO_CAMPAIGN else named,
            category,
            product,
            MAY_PROFILE if gate.profiles else 0,
        )
    if gate.profiles:
        if event.traits:
            fold_traits(person, event)
            if clear.traits is not None and event.type == "identify":
                fold_clear_traits(person, event, clear.traits)
        # What happens to a mailbox is not the person's doing, until they click.
        if clear.context is not None and (name not in EMAIL_EVENTS or name == "Email Link Clicked"):
            fold_circumstances(person, event, clear.context)
    amount_micro, currency = (None, "") if money is None else (money.amount_micro, money.currency)
    return Admitted(
        campaign_id, is_repeat_order, amount_micro, currency, visit_changes, attributed_by, moved
    )


_NO_CHANGES: list[VisitChange] = []
_NO_STRETCHES: list[Stretch] = []
_WITH_MONEY = frozenset({"Order Completed", "Order Refunded"})
_VIEWS = {"page": "page", "screen": "screen"}
