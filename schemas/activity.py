"""How is a person's recent activity packed, and read back?

A person's record says what happened lately: of each event when, its name, the campaign that it
names, and the category and product it is about. Entries stand one behind the other, in no order: it
is a set. What an event is about repeats from person to person, so these texts are written and read
once, and looked up after that: a lane adds an entry with every event.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from schemas.varints import SHORT, WRITTEN, read_size

MAY_PROFILE: Final = 1
"""Flag: the purpose `personalisation` was allowed when it happened."""

TIE_BYTES: Final = 8
MOST_ENTRIES: Final = 5_000
"""Of a person who does more only the newest are kept: it is a program, or an identifier that many
share."""

_HEAD = struct.Struct(">q8sBH")
HEAD_BYTES: Final = _HEAD.size
_MOST_KNOWN = 50_000

_pack_head, _unpack_head = _HEAD.pack, _HEAD.unpack_from
_About = tuple[str, str, str, str]


class Entry(NamedTuple):
    """One accepted event. `tie` are the first bytes of its event_id: of two at one time the greater
    is the later one. `name` is the event of a track call, else "page" or "screen"; the other texts
    are "" where the event says nothing of it."""

    occurred_at_ms: int
    tie: bytes
    name: str
    campaign: str
    category: str
    product: str
    flags: int


_read: dict[bytes, _About] = {}


def pack(
    occurred_at_ms: int,
    event_id: bytes,
    name: str,
    campaign: str,
    category: str,
    product: str,
    flags: int,
) -> bytes:
    """One entry: times and ids as they stand in Entry, then the texts as Avro writes strings."""
    known = WRITTEN
    # Products are many: each is written anew.
    thing = product.encode()
    about = known[name] + known[campaign] + known[category] + SHORT[len(thing) << 1] + thing
    return _pack_head(occurred_at_ms, event_id[:TIE_BYTES], flags, len(about)) + about


def packed(entries: Iterable[Entry]) -> bytes:
    """All of `entries`."""
    return b"".join(
        [pack(each.occurred_at_ms, each.tie, *each[2:6], each.flags) for each in entries]
    )


def unpack(packed: bytes) -> Iterator[Entry]:
    """Every entry. Raises struct.error, IndexError or ValueError on bytes that are none."""
    at, end = 0, len(packed)
    while at < end:
        at_ms, tie, flags, size = _unpack_head(packed, at)
        at += HEAD_BYTES + size
        written = packed[at - size : at]
        about = _read.get(written)
        if about is None:
            about = _read_about(written)
        yield Entry(at_ms, tie, *about, flags)


def times_by_name(packed: bytes, wanted: Mapping[bytes, str]) -> dict[str, list[int]]:
    """When the events of some names happened, in order, as far as personalisation was allowed.
    `wanted` are the names, by what Avro writes of each."""
    found: dict[str, list[int]] = {}
    at, end = 0, len(packed)
    while at < end:
        at_ms, _, flags, size = _unpack_head(packed, at)
        at += HEAD_BYTES
        length = packed[at]
        if length & 129:  # of 64 bytes and more
            length, after = read_size(packed, at)
            written = packed[at : after + length]
        else:
            written = packed[at : at + 1 + (length >> 1)]
        at += size
        name = wanted.get(written)
        if name is not None and flags & MAY_PROFILE:
            if name in found:
                found[name].append(at_ms)
            else:
                found[name] = [at_ms]
    for times in found.values():
        times.sort()
    return found


def count_entries(packed: bytes) -> int:
    """How many there are."""
    found, at, end = 0, 0, len(packed)
    while at < end:
        at += HEAD_BYTES + _unpack_head(packed, at)[3]
        found += 1
    return found


def _read_about(written: bytes) -> _About:
    texts, at = [], 0
    for _ in range(4):
        size, at = read_size(written, at)
        texts.append(written[at : at + size].decode())
        at += size
    if len(_read) >= _MOST_KNOWN:
        _read.clear()
    about = _read[written] = (texts[0], texts[1], texts[2], texts[3])
    return about
