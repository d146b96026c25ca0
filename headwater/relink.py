"""Does the table of links say what the lanes told of who is one person?

Counts of people join facts by `links` (ADR 0020), and no counter would differ if a row of it were
lost. Each row is a record of events.accepted, so the records of the log are made rows of once more,
as far as the log reaches, and compared place by place. What is told of a difference names places
and numbers, never a pseudonym.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headwater.recount import Difference
from schemas.codec import HEADER_BYTES, LINKED, Malformed
from schemas.counters import ERASED_PIDS
from sinks.rules.links import LINK_COLUMNS, NO_SALT, Link, link_row

MOST_NAMED = 5
"""Offsets that are named of a partition."""

_ROWS = (
    f"SELECT {', '.join(LINK_COLUMNS)} FROM links FINAL WHERE kp = {{kp:UInt32}} "  # noqa: S608 - constants
    "AND off >= {first:UInt64} AND off < {until:UInt64} "
    # What joins anonymous rows comes from no record.
    f"AND hex(salt) != '{NO_SALT.hex()}'"
)

Ask = Callable[[str, dict[str, Any]], list[Any]]
Records = Iterable[tuple[int, int, bytes | None]]
"""Offset, when it was written (UTC ms), value."""
Told = Mapping[Link, int]
"""Rows that the log makes, with when they were written (UTC ms)."""


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets of a partition of events.accepted whose records are all counted: [first, until)."""

    kp: int
    first: int
    until: int


def links_of_log(records: Records, kp: int) -> dict[Link, int]:
    """The rows that the links among `records` make.

    What is there twice, by the coordinates of its lane, counts once: the sink drops the second.
    """
    found: dict[Link, int] = {}
    seen: set[tuple[int, int, int, int]] = set()
    for offset, written_at_ms, value in records:
        if value is None or value[:HEADER_BYTES] not in LINKED.headers:
            continue
        try:
            linked = LINKED.decode(value)
        except Malformed:
            continue  # the sink says so, and goes no further
        said = (linked.generation, linked.lane, linked.seq, linked.index)
        if said not in seen:
            seen.add(said)
            found[link_row(linked, kp, offset)] = written_at_ms
    return found


def differing_links(
    ask: Ask, topic: str, span: Span, told: Told, generation: int, kept_from_ms: int
) -> Iterator[Difference]:
    """What `links` has otherwise than the log `told` in `span`.

    `span` is counted already: the sink writes links before its progress. Rows of an earlier
    `generation` may be of a log that is no more, and are left out. What was written before
    `kept_from_ms` is there because nothing new has come: rows of who was erased may be gone without
    a mark by then.
    """
    place = {"kp": span.kp, "first": span.first, "until": span.until}
    rows = {_link(row) for row in ask(_ROWS, place)}
    lost = {link for link, at_ms in told.items() if link not in rows and at_ms >= kept_from_ms}
    if lost:
        # Read after the rows: these go only once their root is marked as erased.
        erased = {bytes(pid) for (pid,) in ask(f"SELECT pid FROM {ERASED_PIDS}", {})}  # noqa: S608
        lost = {link for link in lost if link.root not in erased}
    foreign = {link for link in rows if link not in told and link.generation == generation}
    if lost or foreign:
        offsets = sorted({link.off for link in (*lost, *foreign)})
        named = ", ".join(f"@{offset}" for offset in offsets[:MOST_NAMED])
        more = f" and {len(offsets) - MOST_NAMED} more" if len(offsets) > MOST_NAMED else ""
        yield Difference(
            "link",
            f"links of {topic}[{span.kp}]: the log has {len(told)}, of which {len(lost)} have no "
            f"row as they are; {len(foreign)} rows are of no record ({named}{more})",
            live=len(rows),
            verified=len(told),
            times=len(offsets),
        )


def _link(row: tuple[Any, ...]) -> Link:
    root, member, is_linked, by_erasure, generation, kp, off, salt = row
    return Link(
        bytes(root),
        bytes(member),
        bool(is_linked),
        bool(by_erasure),
        int(generation),
        int(kp),
        int(off),
        bytes(salt),
    )
