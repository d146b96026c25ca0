"""What does an accepted event add to its person?

Every fold is the same for any order of the same events: sums, earliest and latest, newest trait by
(occurred_at, event_id), and an order once for each order_id.
"""

from hashlib import blake2b

from schemas.events import Collected
from schemas.subjects import Trait
from streams.rules.person import ORDER_KEY_BYTES, Person
from streams.rules.validate import Money, Scalar

TRAIT_BYTES = 48  # at most, beside what is sealed


def fold_times(person: Person, occurred_at_ms: int) -> None:
    """Count the event, and widen the time in which the person was seen."""
    if person.events == 0:
        person.first_seen_ms = person.last_seen_ms = occurred_at_ms
    elif occurred_at_ms > person.last_seen_ms:
        person.last_seen_ms = occurred_at_ms
    elif occurred_at_ms < person.first_seen_ms:
        person.first_seen_ms = occurred_at_ms
    person.events += 1


def fold_order(person: Person, order_id: Scalar, money: Money | None) -> bool:
    """Add an order; True, and nothing added, when this order_id was already counted.

    An order without an id is an order of its own.
    """
    if order_id is not None and order_id != "":
        key = blake2b(str(order_id).encode(), digest_size=ORDER_KEY_BYTES).digest()
        if key in person.order_keys:
            return True
        person.order_keys.add(key)
        person.size += ORDER_KEY_BYTES
    person.orders += 1
    person.settled = None
    if money is not None:
        spent = person.spent
        spent[money.currency] = spent.get(money.currency, 0) + money.amount_micro
    return False


def fold_refund(person: Person, money: Money | None) -> None:
    """Add a refund."""
    person.refunds += 1
    person.settled = None
    if money is not None:
        refunded = person.refunded
        refunded[money.currency] = refunded.get(money.currency, 0) + money.amount_micro


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
