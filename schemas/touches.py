"""How are a person's touches packed, and read back?

A touch is an event that names a campaign. An event that names none belongs to the last touch of its
person, so a record holds touches in their order, 26 bytes each; campaigns stand once, beside them.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

TOUCH: Final = struct.Struct(">q8sqH")
"""occurred_at_ms, tie, received_at_ms, the place in the list of campaigns."""


class Touch(NamedTuple):
    """An event that names a campaign; touches compare by their order. Times in UTC ms.

    `tie` are the first bytes of its event_id: of two at one time the greater is the later one.
    """

    occurred_at_ms: int
    tie: bytes
    received_at_ms: int
    campaign_id: str


def unpack_touches(campaigns: Sequence[str], packed: bytes) -> Iterator[Touch]:
    """The touches in their order. Raises IndexError or struct.error on bytes that do not fit."""
    for occurred_at_ms, tie, received_at_ms, campaign in TOUCH.iter_unpack(packed):
        yield Touch(occurred_at_ms, tie, received_at_ms, campaigns[campaign])


def packed_touches(touches: Iterable[Touch]) -> tuple[list[str], bytes]:
    """What `unpack_touches` reads."""
    campaigns: dict[str, int] = {}
    packed = bytearray()
    for at_ms, tie, received_at_ms, campaign_id in touches:
        place = campaigns.setdefault(campaign_id, len(campaigns))
        packed += TOUCH.pack(at_ms, tie, received_at_ms, place)
    return list(campaigns), bytes(packed)
