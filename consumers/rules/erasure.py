"""Where does an erasure stand, what is still to pass, and when may it be called final?

An erasure is provisional once every store was looked into and has nothing left that a person could
be found or read by. Copies that nobody can take out one by one go with time: logs with their
retention, compacted records with their tombstones, ClickHouse's old parts, backups. It is final
once those were looked at too and are gone; until then the certificate says what is pending.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
from msgspec.structs import replace

from schemas.requests import IDLE as IDLE

REASONS = ("withdrawn", "objected", "unlawful", "no_longer_needed", "other")
"""Grounds of GDPR Art. 17(1); the words of erasures.avsc."""
Status = Literal["running", "provisional", "final"]
RANKS: dict[Status, int] = {"running": 0, "provisional": 1, "final": 2}
SOON_MS = 500
REWRITE_MS = 3_600_000
"""Deleted rows are to leave ClickHouse's parts, and deleted values Redis' files."""
LEFT_MS = 30_000
"""Something that was gone is back: its sink is about to find it out."""


class Look(msgspec.Struct, frozen=True):
    """What one store was searched for, how, and what it still had; times UTC ms."""

    store: str
    looked_for: str
    how: str
    remaining: int
    checked_at_ms: int


class Pending(msgspec.Struct, frozen=True):
    """What nobody can hasten: copies that go with time. `until_ms` is when at the earliest."""

    what: str
    until_ms: int


class Erasure(msgspec.Struct, frozen=True):
    """One erasure as the role keeps it.

    `erasure_id` and `pid` in hex; `pid` is empty once final, unless proof of consents is kept.
    `provisional_at_ms`, `forgotten_at_ms` (the lane was told to drop the stub) and `unmarked_at_ms`
    (ClickHouse's mark was deleted) are 0 before; so is `rewritten_at_s`, ClickHouse's own time when
    the parts with deleted rows were last rewritten, and `files_rewritten_at_ms`, when Redis' files
    were; the latter is 0 again once final, because the files still tell the pid then. `certificate`
    numbers its newest.
    """

    erasure_id: str
    pid: str
    partition: int
    requested_at_ms: int
    reason: str
    status: Status = "running"
    looks: tuple[Look, ...] = ()
    pending: tuple[Pending, ...] = ()
    provisional_at_ms: int = 0
    forgotten_at_ms: int = 0
    unmarked_at_ms: int = 0
    rewritten_at_s: int = 0
    files_rewritten_at_ms: int = 0
    certificate: int = 0


@dataclass(frozen=True, slots=True)
class Horizons:
    """How long copies live at most, in ms, as configured."""

    collected_ms: int
    accepted_ms: int
    rejected_ms: int
    subjects_ms: int
    parts_ms: int
    backups_ms: int
    told_ms: int
    """What lanes told others of a person: moves of pids, messages that were due, segments that were
    entered and left."""


def together(erasures: Sequence[Erasure]) -> Erasure:
    """The first, as far as all of them are: those of the pids of one person.

    What each store had left is added up; it was looked for when the one longest ago was.
    """
    looks: dict[tuple[str, str], Look] = {}
    pending: dict[str, int] = {}
    for each in erasures:
        for look in each.looks:
            place = (look.store, look.looked_for)
            known = looks.get(place, look)
            looks[place] = Look(
                look.store,
                look.looked_for,
                look.how,
                look.remaining + (known.remaining if place in looks else 0),
                min(look.checked_at_ms, known.checked_at_ms),
            )
        for wait in each.pending:
            pending[wait.what] = max(wait.until_ms, pending.get(wait.what, 0))
    waits = sorted((Pending(*wait) for wait in pending.items()), key=lambda wait: wait.until_ms)
    status = min((each.status for each in erasures), key=RANKS.__getitem__)
    return replace(erasures[0], status=status, looks=tuple(looks.values()), pending=tuple(waits))


def is_empty(looks: Iterable[Look]) -> bool:
    """True if nothing remained anywhere."""
    return all(look.remaining == 0 for look in looks)


def forget_at_ms(erasure: Erasure, horizons: Horizons) -> int:
    """When no event of the person can come out of the log any more, at the earliest."""
    return erasure.provisional_at_ms + horizons.collected_ms


def unmark_at_ms(erasure: Erasure, horizons: Horizons) -> int:
    """When no fact of the person can be made from the log any more, at the earliest."""
    return erasure.provisional_at_ms + horizons.accepted_ms


def pending_of(erasure: Erasure, horizons: Horizons) -> tuple[Pending, ...]:
    """What is still to pass, and until when, soonest first."""
    begun_ms = erasure.provisional_at_ms
    forgotten_ms = erasure.forgotten_at_ms or forget_at_ms(erasure, horizons)
    unmarked_ms = erasure.unmarked_at_ms or unmark_at_ms(erasure, horizons)
    waits = (
        Pending(
            "events.collected: sealed events, whose key is gone", begun_ms + horizons.collected_ms
        ),
        Pending(
            "events.accepted: sealed events, whose key is gone", begun_ms + horizons.accepted_ms
        ),
        Pending(
            "events.rejected: places of events, without content", begun_ms + horizons.rejected_ms
        ),
        Pending(
            "subjects: older records until compaction, then the stub and its tombstone",
            forgotten_ms + horizons.subjects_ms,
        ),
        Pending(
            "facts: the mark that keeps late writes out of sight, then ClickHouse's old parts",
            unmarked_ms + horizons.parts_ms,
        ),
        Pending(
            "subjects.moves, journeys.due, segments.changed: what lanes told others under the pid",
            begun_ms + horizons.told_ms,
        ),
        Pending("backups of every store", begun_ms + horizons.backups_ms),
    )
    return tuple(sorted(waits, key=lambda wait: wait.until_ms))


def next_look_ms(erasure: Erasure, now_ms: int, look_every_ms: int) -> int | None:
    """When to look again: soon while something is left, else at the next horizon and at least every
    `look_every_ms`; None for never, which is once Redis' files forgot a final one too."""
    if erasure.status == "final":
        is_over = erasure.files_rewritten_at_ms > 0
        return None if is_over else now_ms + min(REWRITE_MS, look_every_ms)
    if erasure.status == "running":
        return now_ms + SOON_MS
    if not is_empty(erasure.looks):
        return now_ms + min(LEFT_MS, look_every_ms)
    if not (erasure.rewritten_at_s and erasure.files_rewritten_at_ms):
        look_every_ms = min(REWRITE_MS, look_every_ms)
    coming = [wait.until_ms for wait in erasure.pending if wait.until_ms > now_ms]
    return min([now_ms + look_every_ms, *coming])
