"""How is a cart shown in a message, and told to another system?"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from schemas.carts import CartLine
from schemas.counters import MICRO
from schemas.journeys import JourneyDue

_CENT = Decimal("0.01")


def decimal_of(amount_micro: int) -> str:
    """1_990_000 as '1.99': two places or, where they do not suffice, as many as it takes."""
    amount = Decimal(amount_micro) / MICRO
    is_cents = amount == amount.quantize(_CENT)
    return f"{amount.quantize(_CENT):f}" if is_cents else f"{amount.normalize():f}"


def view_cart(due: JourneyDue) -> Mapping[str, Any]:
    """Lines and totals, amounts as decimals; a line without a name goes by its sku or product."""
    return {
        "lines": [_view_line(line) for line in due.lines],
        "totals": [
            {"amount": decimal_of(total.amount_micro), "currency": total.currency}
            for total in due.totals
        ],
    }


def _view_line(line: CartLine) -> Mapping[str, Any]:
    price = line.price_micro
    return {
        "product_id": line.product_id,
        "sku": line.sku,
        "name": line.name or line.sku or line.product_id,
        "variant": line.variant,
        "url": line.url if line.url.startswith(("https://", "http://")) else "",
        "image_url": line.image_url if line.image_url.startswith("https://") else "",
        "quantity": line.quantity,
        "price": "" if price is None else decimal_of(price),
        "amount": "" if price is None else decimal_of(price * line.quantity),
        "currency": line.currency,
    }
