"""What is remembered of a person's cart, and of the messages about it?

A cart is kept as the changes that made it, so that one which arrives late takes its place among the
others. What a change does is one of four kinds, of which two begin anew.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

ADD: Final = 1
REMOVE: Final = 2
SET: Final = 3
"""The cart is what the change lists, whatever was in it: somebody looked at it, or began to pay."""
ORDER: Final = 4
"""What was in the cart has been ordered."""

MOST_LINES: Final = 100
"""In all changes that are kept, and in one: the newest. More is no cart, but a program."""


class CartLine(msgspec.Struct, frozen=True, gc=False):
    """Some of one product in a cart; what is not stated or not readable is empty."""

    product_id: str
    sku: str
    name: str
    variant: str
    url: str
    image_url: str
    quantity: int
    price_micro: int | None
    currency: str


class CartChange(msgspec.Struct, frozen=True, gc=False):
    """One event that changed a cart. `tie` are the first bytes of its event_id: of two at one time
    the greater is the later one. A quantity of 0 in a REMOVE takes all of that product."""

    occurred_at_ms: int
    tie: bytes
    kind: int
    lines: list[CartLine]


class JourneyState(msgspec.Struct, frozen=True, gc=False):
    """How far a person is in one journey; see subjects.avsc. Times in UTC ms, 0: never."""

    journey_id: str
    anchor_at_ms: int
    step: int
    messages: int
    last_at_ms: int
    rests_until_ms: int


def union(*sets: Iterable[CartChange]) -> tuple[CartChange, ...]:
    """The changes that are kept of all these: the same for any order and grouping of them."""
    by_stamp = {(each.occurred_at_ms, each.tie): each for some in sets for each in some}
    kept: list[CartChange] = []
    room = MOST_LINES
    for stamp in sorted(by_stamp, reverse=True):
        change = by_stamp[stamp]
        room -= max(1, len(change.lines))
        if room < 0:
            break
        kept.append(change)
        if change.kind in (SET, ORDER):
            break
    return tuple(reversed(kept))


def name_of(line: CartLine) -> str:
    """What tells a product from others in one cart."""
    return line.product_id or line.sku or line.name


def contents_of(lines: Iterable[CartLine]) -> dict[str, int]:
    """How many of each product lie in a cart with these lines."""
    found: dict[str, int] = {}
    for line in lines:
        found[name_of(line)] = found.get(name_of(line), 0) + line.quantity
    return found


def furthest(states: Iterable[JourneyState]) -> list[JourneyState]:
    """Of each journey how far a person is of whose pids these are the states: what any of them was
    told last counts."""
    found: dict[str, JourneyState] = {}
    for each in states:
        known = found.get(each.journey_id)
        if known is None or _told(known) < _told(each):
            found[each.journey_id] = each
    return [found[journey_id] for journey_id in sorted(found)]


def _told(state: JourneyState) -> tuple[int, ...]:
    of = state
    return of.last_at_ms, of.anchor_at_ms, of.step, of.messages, of.rests_until_ms
