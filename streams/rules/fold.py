"""What does an accepted event add to its person?

Every fold is the same for any order of the same events: sums, earliest and latest, newest trait by
(occurred_at, event_id), and an order once for each order_id.
"""

from collections.abc import Mapping
from hashlib import blake2b

import msgspec

from schemas.activity import TIE_BYTES
from schemas.circumstances import word_of
from schemas.events import Collected
from schemas.persons import ORDER_KEY_BYTES
from schemas.subjects import ClearTrait, Purchase, Trait
from streams.rules.cart import CHANGE_BYTES, bytes_of, change_of, with_change
from streams.rules.enrich import MOST_BYTES_A_CHARACTER
from streams.rules.person import Person
from streams.rules.validate import ClearContext, ClearDevice, Money, Scalar

TRAIT_BYTES = 48  # at most, beside what is sealed
PURCHASE_BYTES = 44  # at most, beside its campaign
CIRCUMSTANCE_BYTES = 80  # at most


def fold_times(person: Person, occurred_at_ms: int) -> None:
    """Count the event, and widen the time in which the person was seen."""
    if person.events == 0:
        person.first_seen_ms = person.last_seen_ms = occurred_at_ms
    elif occurred_at_ms > person.last_seen_ms:
        person.last_seen_ms = occurred_at_ms
    elif occurred_at_ms < person.first_seen_ms:
        person.first_seen_ms = occurred_at_ms
    person.events += 1


def fold_order(
    person: Person,
    event: Collected,
    key: bytes | None,
    money: Money | None,
    campaign_id: str,
    touched_at_ms: int,
) -> bool:
    """Add an order; True, and nothing added, when this order_id was already counted.

    `key` is that of its order_id (`order_key`); an order without one is an order of its own.
    """
    if key is not None:
        if key in person.order_keys:
            _begin_earlier(person, key, event)
            return True
        person.order_keys.add(key)
        person.size += ORDER_KEY_BYTES
    person.orders += 1
    person.settled = None
    if money is not None:
        spent = person.spent
        spent[money.currency] = spent.get(money.currency, 0) + money.amount_micro
    _add_purchase(person, event, key, money, campaign_id, touched_at_ms, is_refund=False)
    return False


def fold_refund(
    person: Person,
    event: Collected,
    key: bytes | None,
    money: Money | None,
    campaign_id: str,
    touched_at_ms: int,
) -> None:
    """Add a refund; `key` says of what."""
    person.refunds += 1
    person.settled = None
    if money is not None:
        refunded = person.refunded
        refunded[money.currency] = refunded.get(money.currency, 0) + money.amount_micro
    _add_purchase(person, event, key, money, campaign_id, touched_at_ms, is_refund=True)


def order_key(order_id: Scalar) -> bytes | None:
    """By which a person's record knows an order again; None of no id."""
    if order_id is None or order_id == "":
        return None
    return blake2b(str(order_id).encode(), digest_size=ORDER_KEY_BYTES).digest()


def _begin_earlier(person: Person, key: bytes, event: Collected) -> None:
    """An order happened when it was first stated, whichever of its calls arrived first."""
    stamp = (event.occurred_at_ms, event.event_id[:TIE_BYTES])
    for at, known in enumerate(person.purchases):
        if known.key == key and not known.is_refund and stamp < (known.occurred_at_ms, known.tie):
            person.purchases[at] = msgspec.structs.replace(
                known, occurred_at_ms=stamp[0], tie=stamp[1]
            )
            person.bought = None


def _add_purchase(
    person: Person,
    event: Collected,
    key: bytes | None,
    money: Money | None,
    campaign_id: str,
    touched_at_ms: int,
    *,
    is_refund: bool,
) -> None:
    tie = event.event_id[:TIE_BYTES]
    amount_micro, currency = (0, "") if money is None else (money.amount_micro, money.currency)
    person.purchases.append(
        Purchase(
            key or tie,
            tie,
            event.occurred_at_ms,
            amount_micro,
            currency,
            campaign_id,
            is_refund,
            touched_at_ms,
        )
    )
    person.size += PURCHASE_BYTES + MOST_BYTES_A_CHARACTER * len(campaign_id)


def fold_cart(person: Person, event: Collected) -> None:
    """Let an event of KINDS take its place in what the cart went through."""
    change = change_of(event)
    if change is not None:
        person.cart = with_change(person.cart, change)
        person.rare = None
        person.size += CHANGE_BYTES + sum(map(bytes_of, change.lines))


def fold_circumstances(person: Person, event: Collected, context: ClearContext) -> None:
    """Keep the newest word of each circumstance; a tie in time goes to the greater event_id."""
    device = context.device
    if isinstance(device, ClearDevice):
        device = device.type
    if context.channel is not None:
        _note(person, event, "channel", context.channel)
    if context.country is not None:
        _note(person, event, "country", context.country)
    if device is not None:
        _note(person, event, "device", device)
    if context.timezone is not None:
        _note(person, event, "timezone", context.timezone)


def _note(person: Person, event: Collected, name: str, value: Scalar) -> None:
    word = word_of(name, value)
    if word is None:
        return
    known = person.circumstances.get(name)
    if known is None:
        person.size += CIRCUMSTANCE_BYTES
    elif known[0] > event.occurred_at_ms:
        return
    seen = (event.occurred_at_ms, event.event_id[:TIE_BYTES], word)
    if known is None or known < seen:
        person.circumstances[name] = seen


def fold_traits(person: Person, event: Collected) -> None:
    """Keep the newest value of each trait; a tie in time goes to the greater event_id."""
    stamp = (event.occurred_at_ms, event.event_id)
    for trait in event.traits:
        known = person.traits.get(trait.key)
        if known is None or (known.occurred_at_ms, known.event_id) < stamp:
            person.traits[trait.key] = Trait(trait.key, *stamp, trait.sealed)
            replaced = -TRAIT_BYTES if known is None else len(known.sealed)
            person.size += len(trait.sealed) - replaced
            person.settled = None


def fold_clear_traits(person: Person, event: Collected, traits: Mapping[str, Scalar]) -> None:
    """The same for traits that may be read; null takes one back."""
    stamp = (event.occurred_at_ms, event.event_id)
    for name, value in traits.items():
        known = person.clear_traits.get(name)
        if known is None or (known.occurred_at_ms, known.event_id) < stamp:
            told = ClearTrait(name, *stamp, msgspec.json.encode(value))
            person.clear_traits[name] = told
            person.size += TRAIT_BYTES + MOST_BYTES_A_CHARACTER * len(name) + len(told.value)
            person.rare = None
