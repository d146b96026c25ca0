"""What does ClickHouse still hold of erased people, and how is it taken out?

The sink has put anonymous sums and a mark in the place of a person's facts, as one insert: from
then on every reader leaves the facts out (sinks/rules/residuals.py). What is left is to delete
them, which is done here for many people at once, because ClickHouse rewrites a mask in every part.
A deleted row stays in its part until that is rewritten too, and in the old part until its lifetime
has passed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.client import Client

from runtime.clickhouse import answering, connect
from runtime.settings import Settings

# Wait for the mutation on every replica; a long list of people is a long statement.
_SYNCHRONOUS = {
    "mutations_sync": 2,
    "lightweight_deletes_sync": 2,
    "max_query_size": 16_000_000,
    "max_ast_elements": 1_000_000,
    # A server that logs queries would keep the pids of these for as long as its log.
    "log_queries": 0,
}
_REWRITES_WITHIN_S = 3600.0


@dataclass(frozen=True, slots=True)
class FactsOf:
    """Rows of one person: facts, and the mark that hides them."""

    facts: int = 0
    marks: int = 0


class FactLooks:
    """Looks into `facts` and deletes from it. For one thread; connects when first used.

    Every method raises StoreUnavailable or StoreRefused, and may then be called again.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def count(self, pids: Sequence[str]) -> dict[str, FactsOf]:
        """What each person (pid in hex) has."""
        found = dict.fromkeys(pids, FactsOf())
        if pids:
            rows = self._ask(
                "SELECT lower(hex(pid)), countIf(campaign_id != ''), countIf(campaign_id = '') "  # noqa: S608 -- hexadecimal digits
                f"FROM facts WHERE pid IN ({_listed(pids)}) GROUP BY pid"
            )
            found |= {pid: FactsOf(int(facts), int(marks)) for pid, facts, marks in rows}
        return found

    def delete_facts(self, pids: Iterable[str]) -> None:
        """Their facts are gone from every answer; the marks stay."""
        facts = f"{_of_any(pids)} AND campaign_id != ''"
        self._command(f"DELETE FROM facts WHERE {facts}", "a deletion")  # noqa: S608 -- as above

    def delete_all(self, pids: Iterable[str]) -> None:
        """Facts and marks are gone from every answer."""
        self._command(f"DELETE FROM facts WHERE {_of_any(pids)}", "a deletion")  # noqa: S608 -- as above

    def rewrite(self) -> int:
        """No active part has a row that was deleted before; ClickHouse's time after it (s)."""
        self._command("ALTER TABLE facts APPLY DELETED MASK", "a rewrite of deleted rows")
        ((now_s,),) = self._ask("SELECT toUnixTimestamp(now())")
        return int(now_s)

    def old_parts(self, before_s: int) -> int:
        """How many parts of that time or older are still on the disk and may have deleted rows.

        ClickHouse keeps empty parts for long that only say which others they replaced.
        """
        ((parts,),) = self._ask(
            "SELECT countIf(NOT active OR has_lightweight_delete) FROM system.parts "  # noqa: S608 -- a number
            "WHERE database = currentDatabase() AND table = 'facts' "
            f"AND rows > 0 AND toUnixTimestamp(modification_time) <= {int(before_s)}"
        )
        return int(parts)

    def statements_of(self, pid: str) -> int:
        """How many deletions that name the pid ClickHouse still keeps a note of, done or not."""
        digits = bytes.fromhex(pid).hex()
        ((statements,),) = self._ask(
            "SELECT count() FROM system.mutations WHERE database = currentDatabase() "  # noqa: S608 -- hexadecimal digits
            f"AND table = 'facts' AND positionCaseInsensitive(command, '{digits}') > 0"
        )
        return int(statements)

    def _connected(self) -> Client:
        if self._client is None:
            self._client = connect(self._settings, answer_within_s=_REWRITES_WITHIN_S)
        return self._client

    def _ask(self, sql: str) -> list[Any]:
        client = self._connected()
        with answering("what it has of erased people"):
            return list(client.query(sql, settings=dict(_SYNCHRONOUS)).result_rows)

    def _command(self, sql: str, asked: str) -> None:
        client = self._connected()
        with answering(asked):
            client.command(sql, settings=dict(_SYNCHRONOUS))


def _listed(pids: Iterable[str]) -> str:
    # Hexadecimal digits, by construction: nothing in them ends a literal.
    return ",".join(f"unhex('{bytes.fromhex(pid).hex()}')" for pid in pids)


def _of_any(pids: Iterable[str]) -> str:
    """A condition for deletions. They read whole parts anyway, so no index is lost by it; and calls
    of unhex would be worked out again for every part, which takes longer than the rest."""
    digits = ",".join(f"'{bytes.fromhex(pid).hex()}'" for pid in pids)
    return f"lower(hex(pid)) IN ({digits})"
