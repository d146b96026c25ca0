"""Is this a call that we can use?

The collector checked it before sealing; but a record can come from elsewhere, so the lane trusts
nothing that it acts on: type, times, the clear JSON, and the money of orders.
"""

import msgspec
import orjson

from schemas.events import Collected
from schemas.money import parse_micro
from streams.rules.outcomes import Refused
from streams.rules.texts import SHARED

Scalar = str | int | float | bool | None
TYPES = frozenset({"track", "identify", "page", "screen", "group", "alias"})
LATEST_MS = 4_102_444_800_000  # 2100-01-01: ClickHouse's DateTime of a minute ends in 2106
LONGEST_CAMPAIGN = 512


class ClearProperties(msgspec.Struct, gc=False):
    """The properties that a rule reads; others are skipped unparsed."""

    campaign_id: Scalar = None
    campaign_name: Scalar = None
    order_id: Scalar = None
    currency: Scalar = None
    total: Scalar = None
    revenue: Scalar = None
    value: Scalar = None
    category: Scalar = None
    product_id: Scalar = None


class ClearCampaign(msgspec.Struct, gc=False):
    """`context.campaign`, as Segment's spec and UTM parameters fill it."""

    id: Scalar = None
    name: Scalar = None


class ClearDevice(msgspec.Struct, gc=False):
    """`context.device`, as the collector makes it."""

    type: Scalar = None


class ClearContext(msgspec.Struct, gc=False):
    """The context that a rule reads; `device` may be what an operator once declared clear."""

    campaign: ClearCampaign | None = None
    channel: Scalar = None
    country: Scalar = None
    device: ClearDevice | Scalar = None
    timezone: Scalar = None


class Clear(msgspec.Struct, gc=False):
    """The readable part of a call."""

    properties: ClearProperties | None = None
    context: ClearContext | None = None
    traits: dict[str, Scalar] | None = None


class Money(msgspec.Struct, gc=False):
    """What an order or refund is worth, in millionths of the currency."""

    amount_micro: int
    currency: str


_decode_clear = msgspec.json.Decoder(Clear).decode
EMPTY = Clear()


def validate(event: Collected) -> Clear | Refused:
    """The readable part of a usable call, or why it cannot be used."""
    if event.type not in TYPES:
        return Refused(
            "$.type", "unknown_type", "expected track, identify, page, screen, group or alias"
        )
    if not 0 <= event.occurred_at_ms < LATEST_MS or not 0 <= event.received_at_ms < LATEST_MS:
        return Refused("$.occurred_at_ms", "time_out_of_range", "expected a time from 1970 to 2099")
    if event.clear == b"{}":
        return EMPTY
    try:
        if event.event == "Email Opened" and b'"machine"' in event.clear:
            # The counters will read all of it, where msgspec skips what it is not asked for.
            orjson.loads(event.clear)
        return _decode_clear(event.clear)
    except (ValueError, msgspec.MsgspecError, RecursionError):  # the last for '[[[[...'
        return Refused(
            "$.clear",
            "wrong_clear_json",
            "expected a JSON object of scalar properties and campaign",
        )


def validate_money(clear: Clear) -> Money | Refused | None:
    """The money of an order or refund: `total`, else `revenue`, else `value`; None without any.

    Presence decides, not truth: a total of 0 is an amount.
    """
    properties = clear.properties
    if properties is None:
        return None
    for name in ("total", "revenue", "value"):
        stated = getattr(properties, name)
        if stated is not None:
            break
    else:
        return None
    amount_micro = parse_micro(stated)
    if amount_micro is None:
        return Refused(
            f"$.properties.{name}", "wrong_money", "expected a decimal of 0 or more, below 10^12"
        )
    currency = properties.currency
    if not (
        isinstance(currency, str)
        and len(currency) == 3
        and currency.isascii()  # 'ßßß' would become six letters
        and currency.isalpha()
    ):
        return Refused("$.properties.currency", "wrong_currency", "expected an ISO 4217 code")
    return Money(amount_micro, SHARED[currency.upper()])
