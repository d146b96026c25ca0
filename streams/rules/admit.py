"""How does one event become a fact? Start reading here.

The whole chain in one place, in its order and for its reasons:

    validate      a call that cannot be used must not be remembered as seen
    deduplicate   a copy must not count, so it stands before everything that counts
    gate          what is not allowed leaves a number and no trace
    enrich        campaign and visit
    fold          what it adds to the person

Where the person now belongs is settled once a barrier (streams/settle.py). Pure but for the person
and the memory it is handed, which it changes in place.
"""

from dataclasses import dataclass

from schemas.activity import MAY_PROFILE
from schemas.events import EMAIL_EVENTS, NO_CAMPAIGN, Collected, VisitChange
from streams.rules.capacity import FULL, has_room
from streams.rules.cart import KINDS as CART_EVENTS
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
)
from streams.rules.gate import Gate, gate_by_consent, why_withheld
from streams.rules.journeys import Journey
from streams.rules.outcomes import ERASED, Admitted, Outcome, Refused
from streams.rules.person import Person
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


def admit(event: Collected, person: Person, memory: Recognises, rules: Rules) -> Outcome:
    """Decide what `event` is, and let it take effect on `person` when it counts.

    A refused event changes nothing. A duplicate or withheld one, or one for which its person has no
    room, is remembered and changes nothing of the person.
    """
    clear = validate(event)
    if isinstance(clear, Refused):
        return clear
    campaign_id = campaign_of(clear)
    if len(campaign_id) > LONGEST_CAMPAIGN:
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
    fold_times(person, at_ms)
    is_repeat_order = False
    properties = clear.properties
    if name in _WITH_MONEY:
        order_id = properties.order_id if properties is not None else None
        if name == "Order Completed":
            is_repeat_order = fold_order(person, event, order_id, money, campaign_id)
        else:
            fold_refund(person, event, order_id, money, campaign_id)
    if rules.journeys and name in CART_EVENTS and (gate.profiles or name == "Order Completed"):
        fold_cart(person, event)
    visit_changes = (
        _NO_CHANGES
        if name in EMAIL_EVENTS
        else visit_with(person, at_ms, event.event_id, campaign_id, rules.visit_gap_ms)
    )
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
            "" if campaign_id is NO_CAMPAIGN else campaign_id,
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
    if money is None:
        return Admitted(campaign_id, is_repeat_order, None, "", visit_changes)
    return Admitted(campaign_id, is_repeat_order, money.amount_micro, money.currency, visit_changes)


_NO_CHANGES: list[VisitChange] = []
_WITH_MONEY = frozenset({"Order Completed", "Order Refunded"})
_VIEWS = {"page": "page", "screen": "screen"}
