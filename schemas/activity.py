"""How is a person's recent activity packed, and read back?

A person's record says what happened lately, 25 bytes an event: when, its name, the campaign that it
names, and the category and product it is about. What a person does, they do to few things, so texts
stand once in a list beside it and events point there. Order never matters: it is a set.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

ENTRY: Final = struct.Struct(">q8sHHHHB")
"""occurred_at_ms, tie, and the places in the list of texts of name, campaign, category, product;
flags."""

TIE_BYTES = 8
MAY_PROFILE = 1
"""Flag: the purpose `personalisation` was allowed when it happened."""


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


def unpack(texts: Sequence[str], packed: bytes) -> Iterator[Entry]:
    """The entries, in no order. Raises IndexError or struct.error on bytes that do not fit."""
    for at_ms, tie, name, campaign, category, product, flags in ENTRY.iter_unpack(packed):
        yield Entry(
            at_ms, tie, texts[name], texts[campaign], texts[category], texts[product], flags
        )
