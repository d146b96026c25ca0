"""Which part of a call may travel readable, and what is sealed for its person?

Readable is only what the configuration declares clear by name, and of that only plain values: a
name that should hold a coupon but holds an object is sealed. Everything else is sealed, so a field
that nobody thought of is safe. IP address and user agent are in neither part: they are dropped,
once `enrichment.py` has made its words of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

JsonObject = dict[str, Any]

CAMPAIGN_FIELDS = frozenset({"id", "name", "source", "medium", "term", "content"})
_DROPPED = frozenset({"ip", "userAgent", "user_agent", "userAgentData"})
PRODUCT_EVENTS = frozenset(
    {
        "Product Added",
        "Product Added to Wishlist",
        "Product Clicked",
        "Product Removed",
        "Product Removed from Wishlist",
        "Product Viewed",
        "Wishlist Product Added to Cart",
    }
)
"""Events of Segment's e-commerce spec whose properties are those of a product."""
_SCALARS = frozenset({str, int, float, bool})


@dataclass(frozen=True, slots=True)
class ClearNames:
    """Names of `[fields.*]` whose values may travel readable.

    Those of `products` only where they are about one: elsewhere a `name` or `url` is a person's.
    """

    properties: frozenset[str]
    context: frozenset[str]
    traits: frozenset[str]
    products: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Split:
    """A call in two: `clear` for every reader of the log, `rest` for whoever has the data key."""

    clear: JsonObject
    rest: JsonObject


def split_call(
    properties: Mapping[str, Any],
    context: Mapping[str, Any],
    traits: Mapping[str, Any],
    names: ClearNames,
    event: str = "",
) -> Split:
    """Both parts, as {"properties", "context", "traits"}; empty ones are left out."""
    clear: JsonObject = {}
    rest: JsonObject = {}
    of_product = names.properties | names.products
    kept = {name: value for name, value in context.items() if name not in _DROPPED}
    for part, values, allowed in (
        (
            "properties",
            properties,
            of_product if event in PRODUCT_EVENTS else names.properties,
        ),
        ("context", kept, names.context),
        ("traits", traits, names.traits),
    ):
        readable, sealed = _split_object(values, allowed, of_product)
        if part == "traits":
            # Taken back, or become something that has to be sealed: what was readable is over.
            readable |= {name: None for name in sealed if name in allowed}
        if readable:
            clear[part] = readable
        if sealed:
            rest[part] = sealed
    return Split(clear, rest)


def _split_object(
    values: Mapping[str, Any], allowed: frozenset[str], of_product: frozenset[str]
) -> tuple[JsonObject, JsonObject]:
    readable: JsonObject = {}
    sealed: JsonObject = {}
    for name, value in values.items():
        if name not in allowed:
            sealed[name] = value
        elif type(value) in _SCALARS:
            readable[name] = value
        elif name == "products" and type(value) is list:
            _split_products(value, of_product, readable, sealed)
        elif name == "campaign" and type(value) is dict:
            known, other = _split_scalars(value, CAMPAIGN_FIELDS)
            if known:
                readable[name] = known
            if other:
                sealed[name] = other
        else:
            sealed[name] = value
    return readable, sealed


def _split_products(
    items: list[Any], allowed: frozenset[str], readable: JsonObject, sealed: JsonObject
) -> None:
    """Both lists keep every place, so that the n-th of each is the same product."""
    pairs = [_split_scalars(i, allowed) if type(i) is dict else ({}, i) for i in items]
    readable["products"] = [known for known, _ in pairs]
    if any(other != {} for _, other in pairs):
        sealed["products"] = [other for _, other in pairs]


def _split_scalars(
    values: Mapping[str, Any], allowed: frozenset[str]
) -> tuple[JsonObject, JsonObject]:
    known: JsonObject = {}
    other: JsonObject = {}
    for name, value in values.items():
        if name in allowed and type(value) in _SCALARS:
            known[name] = value
        else:
            other[name] = value
    return known, other
