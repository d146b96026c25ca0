"""What is said when a message of a journey has come due?

A journey is a row of messages that follows something a person did, or stopped doing: the one that
is shipped follows a cart left behind (ADR 0024). The lane decides that a message is due, from the
facts of one person; whether it is sent is decided where it is sent.
"""

import msgspec

from schemas.carts import CartLine
from schemas.subjects import Money


class JourneyDue(msgspec.Struct, frozen=True, gc=False):
    """One message that is due, with the cart that it is about; see journeys.avsc."""

    message_id: bytes
    pid: bytes
    journey_id: str
    step: int
    anchor_at_ms: int
    due_at_ms: int
    decided_at_ms: int
    expires_at_ms: int
    held_out: bool
    lines: list[CartLine]
    totals: list[Money]
    campaign_id: str
    channel: str
    topic: str
    template: str
    generation: int
    lane: int
    seq: int
    index: int
