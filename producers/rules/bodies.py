"""What was posted: bytes of JSON to a list of calls, with each fault at its own call.

One broken call must not take its neighbours along. JSON has no NaN and no lone surrogates, and the
quick parser refuses a whole body for one of them; so a body that it refuses is read again by a
tolerant one, which marks such values. What no parser reads is refused as a whole.
"""

import json
from dataclasses import dataclass

import orjson


class NotJson:
    """Stands where a body had NaN, Infinity or a number that no double holds."""

    __slots__ = ()


NOT_JSON = NotJson()
_LONGEST_INT = 19
_LONGEST_NUMBER = 400


@dataclass(frozen=True, slots=True)
class Body:
    """The calls of one request, and what stands beside them for all of them."""

    calls: list[object]
    write_key: str | None
    sent_at: object
    context: object
    is_batch: bool


@dataclass(frozen=True, slots=True)
class BodyFault:
    """Why a body is refused as a whole: where, and what belongs there."""

    path: str
    expected: str


def read_body(raw: bytes, *, is_batch: bool) -> Body | BodyFault:
    """The calls in `raw`, or why there are none. Says nothing yet about any single call."""
    try:
        body: object = orjson.loads(raw)
    except orjson.JSONDecodeError:
        body = _read_tolerantly(raw)
    if isinstance(body, BodyFault):
        return body
    if type(body) is not dict:
        return BodyFault("$", "a JSON object")
    write_key = body.get("writeKey")
    if is_batch:
        calls = body.get("batch")
        if type(calls) is not list:
            return BodyFault("$.batch", "a list of calls")
    else:
        calls = [body]
    return Body(
        calls,
        write_key if type(write_key) is str else None,
        body.get("sentAt"),
        body.get("context") if is_batch else None,
        is_batch,
    )


def _read_tolerantly(raw: bytes) -> object:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return BodyFault("$", "UTF-8")
    try:
        return json.loads(
            text, parse_constant=lambda _: NOT_JSON, parse_int=_int, parse_float=_float
        )
    except (ValueError, RecursionError):
        return BodyFault("$", "JSON")


def _int(digits: str) -> object:
    # As the quick parser: what 64 bits do not hold becomes a double.
    return int(digits) if len(digits) <= _LONGEST_INT - 1 else _float(digits)


def _float(digits: str) -> object:
    if len(digits) > _LONGEST_NUMBER:
        return NOT_JSON
    number = float(digits)
    return NOT_JSON if number in (float("inf"), float("-inf")) else number
