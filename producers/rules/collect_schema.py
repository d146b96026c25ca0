"""How is the collector's protocol described to people and tools that read OpenAPI?"""

from typing import Any

from producers.rules.call_fields import (
    LONGEST_EVENT_NAME,
    LONGEST_IDENTIFIER,
    LONGEST_MESSAGE_ID,
    TYPES,
)

_TIME = {"type": "string", "format": "date-time"}
_IDENTIFIER = {"type": ["string", "integer"], "maxLength": LONGEST_IDENTIFIER}
_OBJECT = {"type": "object", "additionalProperties": True}
_FIELDS: dict[str, Any] = {
    "messageId": {
        "type": "string",
        "maxLength": LONGEST_MESSAGE_ID,
        "description": "Names the call for good: sent again with it, it counts once. "
        "Without one it is made here, and a repetition counts again.",
    },
    "userId": _IDENTIFIER,
    "anonymousId": _IDENTIFIER,
    "timestamp": _TIME | {"description": "When it happened; without a zone it is UTC."},
    "originalTimestamp": _TIME | {"description": "Taken where there is no timestamp."},
    "sentAt": _TIME | {"description": "When the client sent it: shows a clock that is far off."},
    "context": _OBJECT,
    "integrations": _OBJECT,
}
_OWN_FIELDS: dict[str, dict[str, Any]] = {
    "track": {
        "event": {"type": "string", "minLength": 1, "maxLength": LONGEST_EVENT_NAME},
        "properties": _OBJECT,
    },
    "identify": {"traits": _OBJECT},
    "page": {"name": {"type": "string"}, "properties": _OBJECT},
    "screen": {"name": {"type": "string"}, "properties": _OBJECT},
    "group": {"groupId": {"type": "string"}, "traits": _OBJECT},
    "alias": {"previousId": {"type": "string"}},
}
_SOME_IDENTIFIER = [{"required": ["userId"]}, {"required": ["anonymousId"]}, {}]
_EXAMPLE: dict[str, Any] = {
    "messageId": "order-50314735",
    "userId": "42",
    "event": "Order Completed",
    "timestamp": "2026-01-31T12:00:00Z",
    "properties": {"order_id": "50314735", "total": "27.50", "currency": "EUR"},
    "context": {"campaign": {"name": "spring-sale", "medium": "email"}},
}


def request_body(kind: str | None) -> dict[str, Any]:
    """The OpenAPI object of a request's body; `kind` of None is a batch."""
    if kind is not None:
        schema = _call_schema(kind, {"writeKey": {"type": "string"}})
        example = _EXAMPLE if kind == "track" else None
    else:
        calls = [_call_schema(each, {"type": {"const": each}}) for each in TYPES]
        schema = {
            "type": "object",
            "required": ["batch"],
            "properties": {
                "batch": {"type": "array", "items": {"oneOf": calls}},
                "writeKey": {"type": "string"},
                "sentAt": _TIME,
                "context": _OBJECT,
            },
        }
        example = {"batch": [{"type": "track"} | _EXAMPLE], "sentAt": "2026-01-31T12:00:01Z"}
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"required": True, "content": {"application/json": content}}


def _call_schema(kind: str, more: dict[str, Any]) -> dict[str, Any]:
    required = [name for name in ("event",) if kind == "track"]
    required += [name for name in ("type",) if name in more]
    return {
        "type": "object",
        "title": kind,
        "required": required,
        "properties": _FIELDS | _OWN_FIELDS[kind] | more,
        "anyOf": _SOME_IDENTIFIER,
    }
