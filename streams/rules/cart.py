"""What lies in a person's cart?

Events arrive late, twice and out of order, so a cart is not counted up: its changes are kept, and
what lies in it is read from them in the order in which they happened. An order empties it, and
whatever was there before; so does looking at it, which says what is in it. From the last of these
on changes are kept: a set, to which the order of arrival never matters. An order that was sent
again empties it again: nobody is reminded of what they may have bought.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from schemas.activity import TIE_BYTES
from schemas.carts import (
    ADD,
    MOST_LINES,
    ORDER,
    REMOVE,
    SET,
    CartChange,
    CartLine,
    name_of,
    union,
)
from schemas.events import Collected
from schemas.money import parse_micro
from schemas.subjects import Money
from streams.rules.enrich import MOST_BYTES_A_CHARACTER
from streams.rules.validate import Scalar

KINDS: Final[Mapping[str, int]] = {
    "Product Added": ADD,
    "Wishlist Product Added to Cart": ADD,
    "Product Removed": REMOVE,
    "Cart Viewed": SET,
    "Checkout Started": SET,
    "Order Completed": ORDER,
}
"""What the events of Segment's e-commerce spec do to a cart."""

MOST_QUANTITY = 1_000_000
LONGEST = 256
"""Characters of a text; a longer one is cut, and a longer address is none."""
LONGEST_ADDRESS = 1_024
CHANGE_BYTES = 24  # at most, beside its lines
LINE_BYTES = 40  # at most, beside its texts


class ClearProduct(msgspec.Struct, gc=False):
    """What is readable of a product."""

    product_id: Scalar = None
    sku: Scalar = None
    name: Scalar = None
    variant: Scalar = None
    url: Scalar = None
    image_url: Scalar = None
    quantity: Scalar = None
    price: Scalar = None
    currency: Scalar = None


class ClearCart(ClearProduct, gc=False):
    """The properties of an event about one product, or about a list of them."""

    products: list[ClearProduct] | None = None


class _Clear(msgspec.Struct, gc=False):
    properties: ClearCart | None = None


@dataclass(frozen=True, slots=True)
class Cart:
    """What lies in a cart, and when it was changed last, in event time (UTC ms)."""

    lines: tuple[CartLine, ...]
    totals: tuple[Money, ...]
    anchor_at_ms: int


_decode = msgspec.json.Decoder(_Clear).decode


def change_of(event: Collected) -> CartChange | None:
    """What `event`, one of KINDS, does to the cart; None when it says nothing of what is in it."""
    kind = KINDS[event.event]
    tie = event.event_id[:TIE_BYTES]
    if kind == ORDER:
        return CartChange(event.occurred_at_ms, tie, kind, [])
    try:
        properties = _decode(event.clear).properties
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return None  # a list of products that is none
    if properties is None:
        return None
    if kind == SET:
        if properties.products is None:
            return None
        currency = properties.currency
        lines = [_line(each, kind, currency) for each in properties.products[:MOST_LINES]]
    else:
        lines = [_line(properties, kind, None)]
    return CartChange(event.occurred_at_ms, tie, kind, lines)


def with_change(changes: Sequence[CartChange], change: CartChange) -> tuple[CartChange, ...]:
    """The changes that are kept once `change` is known, in the order in which they happened."""
    if change.kind in (SET, ORDER) and (not changes or _stamp(changes[-1]) < _stamp(change)):
        return (change,)  # as union says, without asking
    return union(changes, (change,))


def was_ordered(changes: Sequence[CartChange]) -> bool:
    """True when nothing came after an order: nothing lies in it."""
    return bool(changes) and changes[-1].kind == ORDER


def cart_of(changes: Sequence[CartChange], after_ms: int = -1) -> Cart | None:
    """What lies in the cart by those of `changes` that happened after `after_ms`; None when it is
    empty."""
    if not changes or changes[-1].occurred_at_ms <= after_ms:
        return None
    held: dict[str, CartLine] = {}
    anchor_at_ms = 0
    for change in changes:
        if change.occurred_at_ms <= after_ms:
            continue
        anchor_at_ms = change.occurred_at_ms
        if change.kind in (SET, ORDER):
            held.clear()
        for line in change.lines:
            if change.kind == REMOVE:
                _take(held, line)
            else:
                _put(held, line)
    if not held:
        return None
    lines = tuple(held.values())
    return Cart(lines, _totals(lines), anchor_at_ms)


def bytes_of(line: CartLine) -> int:
    """How many bytes of a record a line takes at most."""
    texts = (line.product_id, line.sku, line.name, line.variant, line.url, line.image_url)
    return LINE_BYTES + MOST_BYTES_A_CHARACTER * sum(map(len, texts))


def _stamp(change: CartChange) -> tuple[int, bytes]:
    return change.occurred_at_ms, change.tie


def _put(held: dict[str, CartLine], line: CartLine) -> None:
    name = name_of(line)
    known = held.get(name)
    if known is not None:
        line = CartLine(
            line.product_id or known.product_id,
            line.sku or known.sku,
            line.name or known.name,
            line.variant or known.variant,
            line.url or known.url,
            line.image_url or known.image_url,
            min(MOST_QUANTITY, known.quantity + line.quantity),
            known.price_micro if line.price_micro is None else line.price_micro,
            line.currency or known.currency,
        )
    held[name] = line


def _take(held: dict[str, CartLine], line: CartLine) -> None:
    name = name_of(line)
    known = held.get(name)
    if known is None:
        return
    left = known.quantity - line.quantity if line.quantity else 0
    if left > 0:
        held[name] = msgspec.structs.replace(known, quantity=left)
    else:
        del held[name]


def _totals(lines: Iterable[CartLine]) -> tuple[Money, ...]:
    sums: dict[str, int] = {}
    for line in lines:
        if line.price_micro is not None:
            sums[line.currency] = sums.get(line.currency, 0) + line.quantity * line.price_micro
    # Beyond what a record can say is no total.
    return tuple(Money(*each) for each in sorted(sums.items()) if each[1] < 1 << 63)


def _line(product: ClearProduct, kind: int, currency: Scalar) -> CartLine:
    return CartLine(
        _text(product.product_id),
        _text(product.sku),
        _text(product.name),
        _text(product.variant),
        _address(product.url),
        _address(product.image_url),
        _quantity(product.quantity, 0 if kind == REMOVE else 1),
        parse_micro(product.price),
        _currency(product.currency if product.currency is not None else currency),
    )


def _text(value: Scalar) -> str:
    return "" if value is None else str(value)[:LONGEST]


def _address(value: Scalar) -> str:
    is_one = isinstance(value, str) and len(value) <= LONGEST_ADDRESS
    return value if is_one and isinstance(value, str) else ""


def _quantity(value: Scalar, unstated: int) -> int:
    """A whole number of 1 or more; `unstated` where nothing that could be one is stated."""
    amount_micro = parse_micro(value)
    if amount_micro is None or amount_micro < 1_000_000:
        return unstated
    return min(MOST_QUANTITY, amount_micro // 1_000_000)


def _currency(value: Scalar) -> str:
    is_code = isinstance(value, str) and len(value) == 3 and value.isascii() and value.isalpha()
    return value.upper() if is_code and isinstance(value, str) else ""
