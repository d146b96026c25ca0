"""What did a person do lately?

The events of the last days, for everything that asks how often and when: segments, the campaign
that touched a person last, traits that count over a window. It is kept packed, as it is written
(schemas/activity.py), because a lane adds to it with every event and reads it seldom. A set: the
order in which events arrive never matters.
"""

from collections.abc import Iterator

from schemas.activity import ENTRY, TIE_BYTES, Entry, unpack
from schemas.varints import write_long, write_text

MOST_ENTRIES = 5_000
"""Of a person who does more only the newest are kept: it is a program, or an identifier that many
share."""
LONGEST_TEXT = 200
"""Characters of a category or product; a longer one is no name of a thing, and is left out."""
MOST_BYTES_A_CHARACTER = 4  # in UTF-8
TEXT_BYTES = 2  # at most, beside its characters
_MOST_LISTED = 24

_pack = ENTRY.pack


class Activity:
    """Entries of one person. `packed` is changed in place."""

    __slots__ = ("_place_of", "packed", "texts")

    def __init__(self, texts: list[str] | None = None, packed: bytes = b"") -> None:
        self.texts = [] if texts is None else texts
        self.packed = bytearray(packed)
        # Most people do few things: a short list is searched as quickly as a dict, and is smaller.
        self._place_of: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self.packed) // ENTRY.size

    def __iter__(self) -> Iterator[Entry]:
        return unpack(self.texts, bytes(self.packed))

    def __eq__(self, other: object) -> bool:
        """The same entries, in whatever order and by whatever list of texts."""
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
        """The event is remembered; whoever adds it knows that it is new. By how many bytes at most
        the record grows."""
        place = self._place
        known = len(self.texts)
        self.packed += _pack(
            occurred_at_ms,
            event_id[:TIE_BYTES],
            place(name),
            place(campaign),
            place(category),
            place(product),
            flags,
        )
        if len(self.texts) == known:
            return ENTRY.size
        new = self.texts[known:]
        return ENTRY.size + sum(TEXT_BYTES + MOST_BYTES_A_CHARACTER * len(text) for text in new)

    def forget(self, before_ms: int) -> bool:
        """What is older than `before_ms` goes, and of too many the oldest; True if any went."""
        kept = [entry for entry in self if entry.occurred_at_ms >= before_ms]
        if len(kept) == len(self) <= MOST_ENTRIES:
            return False
        if len(kept) > MOST_ENTRIES:
            kept = sorted(kept)[-MOST_ENTRIES:]
        self.texts, self.packed, self._place_of = [], bytearray(), None
        for at_ms, tie, name, campaign, category, product, flags in kept:
            self.add(at_ms, tie, name, campaign, category, product, flags)
        return True

    def written(self) -> bytes:
        """The fields `activity_texts` and `activity` of a record."""
        if not self.packed:
            return _NOTHING
        return b"".join(
            (
                write_long(len(self.texts)),
                *map(_written_text, self.texts),
                b"\x00",
                write_long(len(self.packed)),
                self.packed,
            )
        )

    def _place(self, text: str) -> int:
        texts = self.texts
        if self._place_of is None:
            try:
                return texts.index(text)
            except ValueError:
                pass
            if len(texts) >= _MOST_LISTED:
                self._place_of = {known: at for at, known in enumerate(texts)}
        else:
            at = self._place_of.get(text)
            if at is not None:
                return at
        if self._place_of is not None:
            self._place_of[text] = len(texts)
        texts.append(text)
        return len(texts) - 1


_NOTHING = b"\x00\x00"
# Names of events and products repeat from person to person.
_written: dict[str, bytes] = {}
_MOST_WRITTEN = 20_000


def _written_text(text: str) -> bytes:
    known = _written.get(text)
    if known is None:
        known = write_text(text)
        if len(_written) >= _MOST_WRITTEN:
            _written.clear()
        _written[text] = known
    return known
