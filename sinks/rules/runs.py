"""Which records of a batch are written together?

Accepted events may be written in any number at once, and with them what gives some of them to other
campaigns (sinks/rules/reattribute.py) and who joins or leaves a person. Among them come other
records, told apart by the schema that each names: they take back what is before them, so each is
written by itself, when everything before it is durable. Erasures that follow each other are written
together: they speak of
different people, and thousands may come at once.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from schemas.codec import (
    ACCEPTED,
    ERASED,
    HEADER_BYTES,
    LINKED,
    REATTRIBUTED,
    RETRACTED,
    Malformed,
)
from schemas.errors import StoreRefused
from schemas.events import Accepted, Reattributed, Retracted
from schemas.moves import Linked
from schemas.requests import Erased

Other = Reattributed | Retracted | Erased | Linked
"""What may come among accepted events."""

_DECODERS: Mapping[bytes, Callable[[bytes], Other]] = {
    **dict.fromkeys(REATTRIBUTED.headers, REATTRIBUTED.decode),
    **dict.fromkeys(RETRACTED.headers, RETRACTED.decode),
    **dict.fromkeys(ERASED.headers, ERASED.decode),
    **dict.fromkeys(LINKED.headers, LINKED.decode),
}


@dataclass(frozen=True, slots=True)
class Run:
    """What is written together of one partition: events, erasures, or one retraction."""

    next_offset: int
    events: list[tuple[int, Accepted | Reattributed | Linked]] = field(default_factory=list)
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
    events: list[tuple[int, Accepted | Reattributed | Linked]] = []
    for offset, _, value in records:
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
        if isinstance(other, Reattributed | Linked):
            events.append((offset, other))
            continue
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
