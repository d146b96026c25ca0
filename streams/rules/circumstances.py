"""How does a lane hold where, on what and how a person was last seen?

By name the newest word with its stamp, as tuples: the later of two is the greater, whichever came
first. They change with nearly every event of a browser, so they are written without the detour over
structs.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache

from schemas.circumstances import NAMES
from schemas.subjects import Circumstance
from schemas.varints import write_long, write_text, write_time

Seen = tuple[int, bytes, str]
"""occurred_at (UTC ms), tie, word."""

_EMPTY = b"\x00"
# Of closed lists: some eight hundred words.
_written = lru_cache(maxsize=2048)(write_text)


def write_circumstances(circumstances: Mapping[str, Seen]) -> bytes:
    """An array of records, by name: equal to the compiled writer's."""
    if not circumstances:
        return _EMPTY
    parts = [write_long(len(circumstances))]
    for name in NAMES:
        seen = circumstances.get(name)
        if seen is not None:
            at_ms, tie, word = seen
            parts += (_written(name), _written(word), write_time(at_ms), tie)
    parts.append(_EMPTY)
    return b"".join(parts)


def list_circumstances(circumstances: Mapping[str, Seen]) -> list[Circumstance]:
    """The same as structs."""
    return [
        Circumstance(name, word, at_ms, tie)
        for name, (at_ms, tie, word) in sorted(circumstances.items())
    ]


def read_circumstances(known: Iterable[Circumstance]) -> dict[str, Seen]:
    """The words of a record."""
    return {each.name: (each.occurred_at_ms, each.tie, each.value) for each in known}
