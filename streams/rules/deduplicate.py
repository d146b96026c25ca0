"""Did this call come before?

Clients resend on bad networks. Both copies carry the same pid, hence reach the same lane and the
same memory, whatever worker owns it. Ids are remembered for a window of received time; a copy that
comes later counts again, a price that ADR 0002 accepts.
"""

import struct
from collections import deque
from typing import Protocol

from schemas.events import Collected
from schemas.subjects import Sightings
from streams.rules.outcomes import DUPLICATE, Duplicate, Refused

_SIGHTING = struct.Struct(">16sqi")
_pack = _SIGHTING.pack
_DIGEST_BITS = 32
_DIGEST_MASK = (1 << _DIGEST_BITS) - 1

REUSED = Refused(
    "$.messageId",
    "message_id_reused",
    "this messageId came before with another body; give every call its own",
)


class Recognises(Protocol):
    """What the chain asks of a memory."""

    def recognise(self, event: Collected, /) -> Duplicate | Refused | None:
        """As `Memory.recognise`."""


class Memory:
    """The event ids of one lane within the window, and which transaction wrote them down."""

    __slots__ = (
        "_chunks",
        "_fresh",
        "_fresh_newest_ms",
        "_seen",
        "newest_received_at_ms",
        "window_ms",
    )

    def __init__(self, window_ms: int) -> None:
        self.window_ms = window_ms
        self.newest_received_at_ms = 0
        self._seen: dict[bytes, int] = {}  # event_id -> received_at_ms << 32 | digest
        self._fresh: list[bytes] = []  # packed sightings, to be written
        self._fresh_newest_ms = 0
        self._chunks: deque[tuple[int, int, bytes]] = deque()  # seq, newest ms, packed sightings

    def __len__(self) -> int:
        return len(self._seen)

    def recognise(self, event: Collected) -> Duplicate | Refused | None:
        """None for a first sighting, which is now remembered; else what the second one is."""
        event_id = event.event_id
        received_at_ms = event.received_at_ms
        before = self._seen.get(event_id)
        if before is not None and received_at_ms - (before >> _DIGEST_BITS) <= self.window_ms:
            same = before & _DIGEST_MASK == event.body_digest & _DIGEST_MASK
            return DUPLICATE if same else REUSED
        digest = event.body_digest
        self._seen[event_id] = received_at_ms << _DIGEST_BITS | digest & _DIGEST_MASK
        self._fresh.append(_pack(event_id, received_at_ms, digest))
        if received_at_ms > self._fresh_newest_ms:
            self._fresh_newest_ms = received_at_ms
            if received_at_ms > self.newest_received_at_ms:
                self.newest_received_at_ms = received_at_ms
        return None

    def take_fresh(self, seq: int) -> Sightings | None:
        """What was first seen since the last call, to be written by transaction `seq`."""
        if not self._fresh:
            return None
        sightings = Sightings(self._fresh_newest_ms, b"".join(self._fresh))
        self._fresh, self._fresh_newest_ms = [], 0
        self._chunks.append((seq, sightings.newest_received_at_ms, sightings.ids))
        return sightings

    def forget_expired(self, now_ms: int) -> list[int]:
        """Drop what is older than the window; the transactions whose records may go.

        The window ends at the newest received_at, or now where that lies in the future: one record
        with a wrong clock must not make the lane forget everything.
        """
        oldest_ms = min(self.newest_received_at_ms, now_ms) - self.window_ms
        expired = []
        while self._chunks and self._chunks[0][1] < oldest_ms:
            seq, _, packed = self._chunks.popleft()
            expired.append(seq)
            for event_id, _, _ in _SIGHTING.iter_unpack(packed):
                sighting = self._seen.get(event_id)
                # A copy after the window was counted again and stands in a later chunk.
                if sighting is not None and sighting >> _DIGEST_BITS < oldest_ms:
                    del self._seen[event_id]
        return expired

    def restore(self, seq: int, sightings: Sightings) -> None:
        """Remember what transaction `seq` wrote; called in the order of seq."""
        for event_id, received_at_ms, digest in _SIGHTING.iter_unpack(sightings.ids):
            self._seen[event_id] = received_at_ms << _DIGEST_BITS | digest & _DIGEST_MASK
        self._chunks.append((seq, sightings.newest_received_at_ms, sightings.ids))
