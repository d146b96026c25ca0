"""How does a moment in the shop look as a call of Segment's HTTP protocol?

An event can name its campaign in four places; where several are filled, the first of
`properties.campaign_id`, `context.campaign.id`, `context.campaign.name` and
`properties.campaign_name` is its campaign and the others are decoys. The same holds for an
order's `total`, `revenue` and `value`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from random import Random
from typing import Final, Literal

from producers.rules.shop_ledger import EMAIL_EVENTS, Moment
from producers.rules.shop_story import CAMPAIGNS

Body = dict[str, object]  # one call, ready to be JSON

OVERSIZED_BYTES: Final = 40_000  # an event may have 32 KB
BROKEN_REASONS: Final = (
    "no identifier",
    "no type",
    "unknown type",
    "track without an event name",
    "timestamp is not a time",
    "money is text",
    "money is NaN",
    "money is negative",
    "too large",
)

_KINDS: Final = frozenset({"page", "screen", "identify"})
_PRODUCTS: Final = ("Teapot", "Tasse à café", "مصباح", "Wool socks 🧦", "Field notebook", "扇子")
_CITIES: Final = ("Utrecht", "Łódź", "القاهرة", "Porto", "München")
_BERLIN: Final = timezone(timedelta(hours=2))


@dataclass(frozen=True, slots=True)
class Identity:
    """The one thing by which the shop knows a person; identities are never mixed."""

    kind: Literal["user", "anonymous", "email"]
    value: str


def body_of(rng: Random, who: Identity, moment: Moment, message_id: str) -> Body:
    """The call that tells `moment`; `rng` decides among the spellings that mean the same."""
    properties: Body = {}
    context: Body = {"library": {"name": "shop", "version": "1"}, "locale": "nl-NL"}
    body: Body = {
        "messageId": message_id,
        "timestamp": _written(rng, moment.occurred_at_ms),
        "context": context,
    }
    if moment.name in _KINDS:
        body["type"] = moment.name
    else:
        body["type"] = "track"
        body["event"] = moment.name
    _put_identity(body, context, who)
    _put_campaign(rng, properties, context, moment)
    if moment.name == "identify":
        _put_traits(rng, body, who)
        return body
    if moment.name in ("page", "screen"):
        body["name"] = rng.choice(("Home", "Category", "About us"))
        properties["path"] = rng.choice(("/", "/tea", "/lamps?sort=price", "/über-uns"))
    elif moment.amount is not None:
        _put_order(rng, properties, moment)
    elif moment.name == "Email Opened" and (moment.by_machine or rng.random() < 0.3):
        properties["machine"] = moment.by_machine
    elif moment.name.startswith("Product "):
        product = rng.randrange(len(_PRODUCTS))
        properties |= {"product_id": f"p-{product}", "name": _PRODUCTS[product], "quantity": 1}
        properties |= {"price": f"{4 * product + 5}.50", "currency": "EUR"}
    body["properties"] = properties
    return body


def broken_body(rng: Random, who: Identity, at_ms: int, message_id: str, reason: str) -> Body:
    """A call that the collector must set aside for `reason`, one of BROKEN_REASONS."""
    order = Moment("Order Completed", at_ms, None, f"broken-{message_id}", Decimal(7), "EUR")
    body = body_of(rng, who, order, message_id)
    properties: Body = {"order_id": f"broken-{message_id}", "total": 7, "currency": "EUR"}
    body["properties"] = properties
    match reason:
        case "no identifier":
            for name in ("userId", "anonymousId", "traits"):
                body.pop(name, None)
            body["context"] = {}
        case "no type":
            del body["type"]
        case "unknown type":
            body["type"] = rng.choice(("purchase", "Track!", ""))
        case "track without an event name":
            del body["event"]
        case "timestamp is not a time":
            body["timestamp"] = rng.choice(("yesterday", "2026-13-45T99:00:00Z"))
        case "money is text":
            properties["total"] = rng.choice(("twelve euros", "12,50 €"))
        case "money is NaN":
            properties["total"] = "NaN"
        case "money is negative":
            properties["total"] = -12.5
        case "too large":
            properties["note"] = "x" * OVERSIZED_BYTES
        case _:
            raise ValueError(f"no call is broken by: {reason}")
    return body


def _written(rng: Random, at_ms: int) -> str:
    """RFC 3339 to the millisecond, now and then by a clock that is ahead of UTC."""
    zone = _BERLIN if rng.random() < 0.1 else UTC
    at = datetime.fromtimestamp(at_ms // 1000, zone).replace(microsecond=at_ms % 1000 * 1000)
    written = at.isoformat(timespec="milliseconds")
    return written if zone is _BERLIN else written.removesuffix("+00:00") + "Z"


def _put_identity(body: Body, context: Body, who: Identity) -> None:
    if who.kind == "user":
        body["userId"] = who.value
    elif who.kind == "anonymous":
        body["anonymousId"] = who.value
    elif body["type"] == "identify":
        body["traits"] = {"email": who.value}
    else:
        context["traits"] = {"email": who.value}  # where Segment's e-mail spec puts it


def _put_traits(rng: Random, body: Body, who: Identity) -> None:
    traits: Body = {"plan": rng.choice(("free", "gold")), "address": {"city": rng.choice(_CITIES)}}
    traits["email"] = who.value if who.kind == "email" else f"{who.value}@shop.example"
    body["traits"] = traits


def _put_campaign(rng: Random, properties: Body, context: Body, moment: Moment) -> None:
    if moment.campaign is None:
        return
    campaign = moment.campaign
    title = CAMPAIGNS[campaign]
    medium = "email" if moment.name in EMAIL_EVENTS else "cpc"
    utm: Mapping[str, str] = {"source": "shop", "medium": medium}
    place = rng.randrange(6 if moment.name in EMAIL_EVENTS else 2)
    if place == 0:
        context["campaign"] = {"id": campaign, "name": title, **utm}
    elif place == 1:
        context["campaign"] = {"name": campaign, **utm}
    elif place == 2:
        properties["campaign_name"] = campaign
    else:
        properties["campaign_id"] = campaign
        if place > 3:
            properties["campaign_name"] = title
        if place > 4:
            context["campaign"] = {"id": "another-system", "name": title, **utm}


def _put_order(rng: Random, properties: Body, moment: Moment) -> None:
    assert moment.amount is not None
    amount = _number(moment.amount)
    properties |= {"order_id": moment.order_id, "currency": moment.currency}
    shape = rng.randrange(5)
    if shape < 3:
        properties["total"] = amount
        if shape == 1:
            properties["revenue"] = _number(moment.amount + 5)
        if shape == 2:
            properties["value"] = 1
    elif shape == 3:
        properties |= {"revenue": amount, "value": _number(moment.amount + 9)}
    else:
        properties["value"] = amount
    properties["products"] = [{"product_id": "p-1", "quantity": 1, "price": amount}]


def _number(amount: Decimal) -> int | float:
    """A JSON number; these amounts have few enough digits to survive as a double."""
    return int(amount) if amount == amount.to_integral_value() else float(amount)
