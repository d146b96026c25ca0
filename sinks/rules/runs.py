"""Which records of a batch are written together?

Accepted events may be written in any number at once. Among them come other records, told apart by
the schema that each names: they speak of events before them, so each is written by itself, when
everything before it is durable. Erasures that follow each other are written together: they speak of
different people, and thousands may come at once.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from schemas.codec import ACCEPTED, ERASED, HEADER_BYTES, LINKED, RETRACTED, Malformed
from schemas.errors import StoreRefused
from schemas.events import Accepted, Retracted
from schemas.requests import Erased

Other = Retracted | Erased
"""What may come among accepted events."""

_DECODERS: Mapping[bytes, Callable[[bytes], Other]] = {
    **dict.fromkeys(RETRACTED.headers, RETRACTED.decode),
    **dict.fromkeys(ERASED.headers, ERASED.decode),
}


@dataclass(frozen=True, slots=True)
class Run:
    """What is written together of one partition: events, erasures, or one retraction."""

    next_offset: int
    events: list[tuple[int, Accepted]] = field(default_factory=list)
    other: Retracted | None = None
    erased: list[tuple[int, Erased]] = field(default_factory=list)


def split_into_runs(
    topic: str,
    partition: int,
    records: Iterable[tuple[int, bytes | None, bytes | None]],
    next_offset: int,
) -> list[Run]:
    """The runs of `records` (offset, key, value) in their order; the last ends at `next_offset`.

    Raises StoreRefused at the first record that is none of ours.
    """
    decode = ACCEPTED.decode
    runs: list[Run] = []
    events: list[tuple[int, Accepted]] = []
    for offset, _, value in records:
        if value is not None and value[:HEADER_BYTES] in LINKED.headers:
            continue  # of which people are one: nothing that a single fact says
        try:
            decode_other = _DECODERS.get(value[:HEADER_BYTES]) if value else None
            if decode_other is None:
                events.append((offset, decode(value)))
                continue
            assert value is not None
            other = decode_other(value)
        except Malformed as error:
            raise StoreRefused(
                f"{topic}[{partition}]@{offset} is no accepted event ({error}): "
                "somebody else writes to our topic, or this version is older than the log; "
                "nothing from here on is counted"
            ) from error
        if events:
            runs.append(Run(offset, events))
            events = []
        if isinstance(other, Retracted):
            runs.append(Run(offset + 1, other=other))
        elif runs and runs[-1].erased:
            runs[-1] = Run(offset + 1, erased=[*runs[-1].erased, (offset, other)])
        else:
            runs.append(Run(offset + 1, erased=[(offset, other)]))
    runs.append(Run(next_offset, events))
    return runs
