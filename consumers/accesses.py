"""Who read whose data, and is that written down before they have it?

Every answer that holds a person's data leaves a row in ClickHouse's table `accesses` first: when,
the role of the key that asked, whose (the pseudonym, never an identifier), what and which fields.
If the row cannot be written there is no answer: a read that nobody can account for did not happen
(GDPR Art. 5(2), ADR 0012). While one insert is under way the next rows gather, so many readers at
once cost few inserts, and nobody waits for more than two.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from consumers.clickhouse_reader import ClickHouseReader
from runtime.access import Roles
from runtime.clock import ClockMs, real_ms
from runtime.gathering import Gathering
from schemas.errors import StoreUnavailable, StreamError

WRITES_WITHIN_S = 10.0
_COLUMNS = {
    "read_at": "DateTime64(3, 'UTC')",
    "pid": "FixedString(16)",
    "role": "LowCardinality(String)",
    "kind": "LowCardinality(String)",
    "fields": "Array(LowCardinality(String))",
}

Kind = Literal["profile", "export", "consents", "identity", "outbox", "segment"]
_Row = tuple[datetime, bytes, str, str, list[str]]


@dataclass(frozen=True, slots=True)
class Read:
    """One past access; times in UTC ms."""

    read_at_ms: int
    role: str
    kind: str
    fields: Sequence[str]


class Accesses:
    """Writes accesses down, and tells them. Belongs to one event loop."""

    def __init__(self, reader: ClickHouseReader, clock_ms: ClockMs = real_ms) -> None:
        self._reader = reader
        self._clock_ms = clock_ms
        self._gathering: Gathering[_Row] = Gathering(self._insert)

    async def record(self, pid: bytes, roles: Roles, kind: Kind, fields: Iterable[str]) -> None:
        """The access is on disk. Raises StoreUnavailable: then the data must not be given out."""
        at = datetime.fromtimestamp(self._clock_ms() / 1000, UTC)
        row: _Row = (at, pid, ",".join(sorted(roles)), kind, sorted(fields))
        await self._gathering.add(row)

    async def _insert(self, rows: list[_Row]) -> None:
        try:
            async with asyncio.timeout(WRITES_WITHIN_S):
                await self._reader.insert("accesses", _COLUMNS, rows)
        except StreamError as error:
            raise StoreUnavailable(f"the access log: {error}") from error
        except TimeoutError as error:
            raise StoreUnavailable("ClickHouse did not write the access log in time") from error

    async def of(self, pid: bytes, limit: int) -> list[Read]:
        """The newest accesses to this person's data. Raises StoreUnavailable."""
        rows = await self._reader.rows(
            "SELECT toUnixTimestamp64Milli(read_at), role, kind, fields FROM accesses "
            "WHERE pid = unhex({pid:String}) ORDER BY read_at DESC LIMIT {limit:UInt32}",
            {"pid": pid.hex(), "limit": limit},
        )
        return [Read(int(at), role, kind, fields) for at, role, kind, fields in rows]
