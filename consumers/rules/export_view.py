"""How is what we hold on one person told to that person?

Records become plain objects with the names of the schemas, times as text, and what travelled
readable and what travelled sealed put together again, as it was sent (GDPR Art. 15(3)).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from consumers.rules.rates import decimal_text
from consumers.rules.times import rfc3339
from schemas.activity import unpack
from schemas.events import Accepted, Collected
from schemas.held import Held
from schemas.persons import VISIT
from schemas.subjects import Subject
from schemas.touches import unpack_touches

Json = Any
"""A value of JSON."""

Item = dict[str, Json]

_TOLD_OF_EVENT = frozenset(
    {"pid", "event_id", "source", "type", "event", "occurred_at_ms", "sent_at_ms", "received_at_ms"}
)
_CONTENT = frozenset({"clear", "sealed", "traits"})
_CONTENT_PARTS = ("properties", "context", "traits", "call")


def purposes_of(fields: Iterable[Held]) -> list[str]:
    """What these fields are for, each once; `operation` only where there is nothing else."""
    found = dict.fromkeys(purpose for field in fields for purpose in field.purposes)
    return [name for name in found if name != "operation"] or list(found)


def plain(record: msgspec.Struct, *, without: frozenset[str] = frozenset()) -> Item:
    """The fields of a record: bytes in hex, `..._ms` as RFC 3339, millionths as decimals."""
    names = (name for name in record.__struct_fields__ if name not in without)
    return dict(_told(name, getattr(record, name)) for name in names)


def _told(name: str, value: Json) -> tuple[str, Json]:
    if isinstance(value, bytes):
        return name, value.hex()
    if isinstance(value, msgspec.Struct):
        return name, plain(value)
    if isinstance(value, list | tuple):
        return name, [_told("", each)[1] for each in value]
    if name.endswith("_ms") and isinstance(value, int | None):
        return name.removesuffix("_ms"), None if value is None else rfc3339_or_number(value)
    if name.endswith("_micro") and isinstance(value, int | None):
        return name.removesuffix("_micro"), None if value is None else decimal_text(value)
    return name, value


def rfc3339_or_number(at_ms: int) -> str | int:
    """The moment as text; the number itself where it lies outside the years 1 to 9999."""
    try:
        return rfc3339(at_ms)
    except (OverflowError, ValueError):
        return at_ms


_TOLD_OF_SUBJECT = frozenset(
    {
        *("pid", "traits", "consents", "order_keys", "visits", "activity"),
        *("touch_campaigns", "touches", "claims", "members", "kin"),
    }
)
"""What other sections tell, of this pid and of the person's other ones; or what is told below."""


def view_event(
    event: Collected, opened: Mapping[str, Json] | None, traits: Sequence[tuple[str, Json]]
) -> Item:
    """One call as it was sent, and what was made of it. `opened` of None could not be read."""
    told = plain(event, without=_TOLD_OF_EVENT | _CONTENT)
    item: Item = {
        "event_id": event.event_id.hex(),
        "state": "accepted" if isinstance(event, Accepted) else "collected, not accepted",
        "type": event.type,
        "event": event.event,
        "source": event.source,
        **dict(_told(f"{name}_ms", getattr(event, f"{name}_ms")) for name in _TIMES),
    }
    if opened is None:
        return item | {"sealed": "does not open with this person's key", "processing": told}
    clear = orjson.loads(event.clear)
    whole = merge(clear, {name: value for name, value in opened.items() if name != "traits"})
    if traits or clear.get("traits") or opened.get("traits"):
        sealed = {**(opened.get("traits") or {}), **dict(traits)}
        whole["traits"] = merge(clear.get("traits") or {}, sealed)
    item["identifiers"] = opened.get("ids", {})
    item["message_id"] = opened.get("message_id")
    item |= {name: whole[name] for name in _CONTENT_PARTS if name in whole}
    return item | {"processing": told}


_TIMES = ("occurred_at", "sent_at", "received_at")


def merge(clear: Json, sealed: Json) -> Json:
    """Both parts of a value that was split: objects by name, lists by place."""
    if isinstance(clear, dict) and isinstance(sealed, dict):
        return {
            name: merge(clear[name], sealed[name])
            if name in clear and name in sealed
            else clear.get(name, sealed.get(name))
            for name in (*clear, *(name for name in sealed if name not in clear))
        }
    if isinstance(clear, list) and isinstance(sealed, list) and len(clear) == len(sealed):
        return [merge(*pair) for pair in zip(clear, sealed, strict=True)]
    return clear if sealed == {} else sealed


def view_subject(known: Subject) -> Item:
    """What the events of the person add up to."""
    told = plain(known, without=_TOLD_OF_SUBJECT)
    return told | {
        "activity": [
            {
                "occurred_at": rfc3339_or_number(each.occurred_at_ms),
                "name": each.name,
                "campaign": each.campaign,
                "category": each.category,
                "product": each.product,
            }
            for each in unpack(known.activity)
        ],
        "touches": [
            {
                "occurred_at": rfc3339_or_number(touch.occurred_at_ms),
                "campaign_id": touch.campaign_id,
            }
            for touch in unpack_touches(known.touch_campaigns, known.touches)
        ],
        "visits": len(known.visits) // VISIT.size,
        "orders_known": len(known.order_keys) // 8,
    }


class Changes:
    """How the person's traits changed, told event by event in log order (GDPR Art. 16)."""

    def __init__(self) -> None:
        self._values: dict[str, Json] = {}

    def of(self, traits: Sequence[tuple[str, Json]]) -> list[Item]:
        """Each trait that this call set to another value than the calls before it did."""
        changed: list[Item] = []
        for name, value in traits:
            if name not in self._values:
                changed.append({"trait": name, "to": value, "kind": "first seen here"})
            elif self._values[name] != value:
                changed.append(
                    {"trait": name, "from": self._values[name], "to": value, "kind": "rectified"}
                )
            self._values[name] = value
        return changed
