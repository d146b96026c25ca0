"""Is a call of a size and shape that every part of the system can take?

Limits on depth, number of fields and bytes keep one call from costing what a thousand cost. A fault
is told by its path, and a path names only fields that we know: other names may hold a person's data
('ada@example.org': true).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from producers.rules.bodies import NotJson

MOST_BYTES = 32 * 1024
DEEPEST = 16
MOST_FIELDS = 500
_COUNTED = ("properties", "traits", "context")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a call: where, a short fixed name, and what belongs there."""

    path: str
    reason: str
    expected: str


def find_unwritable(call: Mapping[str, Any], path: str, known: frozenset[str]) -> Fault | None:
    """Why JSON could not be written from `call`: the first value that is none, or the depth."""
    # Not recursive: a call can be nested deeper than Python's stack.
    waiting: list[tuple[Any, str, bool, int]] = [(call, path, True, 1)]
    while waiting:
        value, at, is_exact, depth = waiting.pop()
        if isinstance(value, NotJson):
            return Fault(at, "not_a_number", "a finite number; JSON has neither NaN nor Infinity")
        if type(value) is str:
            if not _is_text(value):
                return Fault(at, "not_text", "Unicode text; half a surrogate pair is none")
        elif type(value) in (dict, list):
            if depth > DEEPEST:
                return Fault(
                    at, "too_deep", f"at most {DEEPEST} objects and lists inside each other"
                )
            waiting += reversed(list(_inside(value, at, is_exact, depth + 1, known)))
    return None


def find_too_large(
    call: Mapping[str, Any], canonical: bytes, path: str, known: frozenset[str]
) -> Fault | None:
    """The limit that `call` breaks, if any; `canonical` is its JSON without blanks."""
    if len(canonical) > MOST_BYTES:
        return Fault(path, "too_large", f"at most {MOST_BYTES} bytes of JSON in one call")
    # Both are upper bounds, found without walking: few calls need the walk.
    if canonical.count(b"{") + canonical.count(b"[") > DEEPEST:
        deep = find_unwritable(call, path, known)
        if deep is not None:
            return deep
    if canonical.count(b'":') > MOST_FIELDS:
        fields = sum(_count_fields(call.get(part)) for part in _COUNTED)
        if fields > MOST_FIELDS:
            names = ", ".join(_COUNTED[:2]) + " and " + _COUNTED[2]
            return Fault(
                path, "too_many_fields", f"at most {MOST_FIELDS} fields in {names} together"
            )
    return None


def _inside(
    value: Any, at: str, is_exact: bool, depth: int, known: frozenset[str]
) -> Iterable[tuple[Any, str, bool, int]]:
    """What is inside: value, path as far as it may be told, whether that is all of it, depth."""
    if type(value) is list:
        for index, inner in enumerate(value):
            yield inner, f"{at}[{index}]" if is_exact else at, is_exact, depth
        return
    for name, inner in value.items():
        is_known = is_exact and name in known
        where = f"{at}.{name}" if is_known else at
        if not _is_text(name):
            yield name, where, is_exact, depth
        yield inner, where, is_known, depth


def _count_fields(value: Any) -> int:
    count = 0
    waiting = [value]
    while waiting:
        inner = waiting.pop()
        if type(inner) is dict:
            count += len(inner)
            waiting += inner.values()
        elif type(inner) is list:
            waiting += inner
    return count


def _is_text(value: str) -> bool:
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
