"""What did a person do lately?

The events of the last days, for everything that asks how often and when: segments, the campaign
that touched a person last, traits that count over a window. It is kept packed, as it is written
(schemas/activity.py), because a lane adds to it with every event and reads it seldom. A set: the
order in which events arrive never matters.
"""

from collections.abc import Iterator

from schemas.activity import MOST_ENTRIES, Entry, count_entries, pack, unpack

LONGEST_TEXT = 200
"""Characters of a category or product; a longer one is no name of a thing, and is left out."""


class Activity:
    """Entries of one person. `packed` is changed in place."""

    __slots__ = ("count", "packed")

    def __init__(self, packed: bytes = b"") -> None:
        self.packed = bytearray(packed)
        self.count = count_entries(packed) if packed else 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Entry]:
        return unpack(bytes(self.packed))

    def __eq__(self, other: object) -> bool:
        """The same entries, in whatever order."""
        return isinstance(other, Activity) and sorted(self) == sorted(other)

    __hash__ = None  # type: ignore[assignment]

    def add(
        self,
        occurred_at_ms: int,
        event_id: bytes,
        name: str,
        campaign: str,
        category: str,
        product: str,
        flags: int,
    ) -> int:
        """The event is remembered; whoever adds it knows that it is new. By how many bytes the
        record grows."""
        entry = pack(occurred_at_ms, event_id, name, campaign, category, product, flags)
        self.packed += entry
        self.count += 1
        return len(entry)

    def forget(self, before_ms: int) -> bool:
        """What is older than `before_ms` goes, and of too many the oldest; True if any went."""
        kept = [entry for entry in self if entry.occurred_at_ms >= before_ms]
        if len(kept) == self.count <= MOST_ENTRIES:
            return False
        if len(kept) > MOST_ENTRIES:
            kept = sorted(kept)[-MOST_ENTRIES:]
        self.packed = bytearray(b"".join([pack(*entry) for entry in kept]))
        self.count = len(kept)
        return True
