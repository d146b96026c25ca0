"""What does ClickHouse still hold of erased people, and how is it taken out?

The sink has put anonymous sums and a mark in the place of a person's facts, as one insert: from
then on every reader leaves the facts out (sinks/rules/residuals.py). What is left is to delete
them, which is done here for many people at once, because ClickHouse rewrites a mask in every part.
A deleted row stays in its part until that is rewritten too, and in the old part until its lifetime
has passed.

Which pids were one person is needed until all of them have their sums: these are joined by it
(sinks/rules/links.py). So the links of a person go together.
"""

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any

from clickhouse_connect.driver.client import Client

from runtime.clickhouse import answering, connect
from runtime.retry import Stopped
from runtime.settings import Settings
from schemas.counters import ERASED_PIDS

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
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class FactsOf:
    """Rows of one pid: facts, the mark that hides them, links with others, and those of these links
    that nobody needs, because all whom they join are marked."""

    facts: int = 0
    marks: int = 0
    links: int = 0
    idle_links: int = 0


_TABLES = ("facts", "links")


class FactLooks:
    """Looks into `facts` and `links` and deletes from them. For one thread.

    Connects when first used. Every method raises StoreUnavailable or StoreRefused, and may then be
    called again; `rewrite` Stopped too, once `stop` is set while it waits.
    """

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self._settings = settings
        self._stop = stop
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
            listed = _listed(pids)
            facts = self._ask(
                "SELECT lower(hex(pid)), countIf(campaign_id != ''), countIf(campaign_id = '') "  # noqa: S608 -- hexadecimal digits
                f"FROM facts WHERE pid IN ({listed}) GROUP BY pid"
            )
            found |= {pid: FactsOf(int(facts), int(marks)) for pid, facts, marks in facts}
            links = self._ask(
                f"SELECT lower(hex(pid)), count(), countIf(root IN ({_idle_roots(listed)})) FROM "  # noqa: S608 -- as above
                "(SELECT arrayJoin([root, member]) AS pid, root FROM links "
                f"WHERE root IN ({listed}) OR member IN ({listed})) "
                f"WHERE pid IN ({listed}) GROUP BY pid"
            )
            for pid, rows, idle in links:
                of = found[pid]
                found[pid] = FactsOf(of.facts, of.marks, int(rows), int(idle))
        return found

    def delete_facts(self, pids: Sequence[str]) -> None:
        """Their facts are gone from every answer, and links that nobody needs; the marks stay."""
        facts = f"{_of_any('pid', pids)} AND campaign_id != ''"
        self._command(f"DELETE FROM facts WHERE {facts}", "a deletion")  # noqa: S608 -- as above
        roots = self._ask(f"SELECT lower(hex(root)) FROM ({_idle_roots(_listed(pids))})")  # noqa: S608 -- as above
        if roots:
            self._delete_links(_of_any("root", [root for (root,) in roots]))

    def delete_all(self, pids: Sequence[str]) -> None:
        """Facts, marks and links are gone from every answer."""
        self._command(f"DELETE FROM facts WHERE {_of_any('pid', pids)}", "a deletion")  # noqa: S608 -- as above
        self._delete_links(f"{_of_any('root', pids)} OR {_of_any('member', pids)}")

    def rewrite(self) -> int:
        """No active part has a row that was deleted before; ClickHouse's time after it (s)."""
        for table in _TABLES:
            self._command_or_stop(
                f"ALTER TABLE {table} APPLY DELETED MASK", "a rewrite of deleted rows"
            )
        ((now_s,),) = self._ask("SELECT toUnixTimestamp(now())")
        return int(now_s)

    def old_parts(self, before_s: int) -> int:
        """How many parts of that time or older are still on the disk and may have deleted rows.

        ClickHouse keeps empty parts for long that only say which others they replaced.
        """
        ((parts,),) = self._ask(
            "SELECT countIf(NOT active OR has_lightweight_delete) FROM system.parts "  # noqa: S608 -- a number
            f"WHERE database = currentDatabase() AND table IN {_TABLES} "
            f"AND rows > 0 AND toUnixTimestamp(modification_time) <= {int(before_s)}"
        )
        return int(parts)

    def statements_of(self, pid: str) -> int:
        """How many deletions that name the pid ClickHouse still keeps a note of, done or not."""
        digits = bytes.fromhex(pid).hex()
        ((statements,),) = self._ask(
            "SELECT count() FROM system.mutations WHERE database = currentDatabase() "  # noqa: S608 -- hexadecimal digits
            f"AND table IN {_TABLES} AND positionCaseInsensitive(command, '{digits}') > 0"
        )
        return int(statements)

    def _delete_links(self, condition: str) -> None:
        self._command(f"DELETE FROM links WHERE {condition}", "a deletion")  # noqa: S608 -- as above

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

    def _command_or_stop(self, sql: str, asked: str) -> None:
        """As `_command`, which waits for up to an hour. After Stopped the server goes on with it,
        and nobody knows; nothing else is asked of this then."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                self._command(sql, asked)
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        # Of a daemon, because nothing ends the wait for an answer.
        threading.Thread(target=run, name="rewrite", daemon=True).start()
        while wait([done], _LOOK_EVERY_S).not_done:
            if self._stop.is_set():
                raise Stopped
        done.result()


def _listed(pids: Iterable[str]) -> str:
    # Hexadecimal digits, by construction: nothing in them ends a literal.
    return ",".join(f"unhex('{bytes.fromhex(pid).hex()}')" for pid in pids)


def _of_any(column: str, pids: Iterable[str]) -> str:
    """A condition for deletions. They read whole parts anyway, so no index is lost by it; and calls
    of unhex would be worked out again for every part, which takes longer than the rest."""
    digits = ",".join(f"'{bytes.fromhex(pid).hex()}'" for pid in pids)
    return f"lower(hex({column})) IN ({digits})"


def _idle_roots(listed: str) -> str:
    """Of the persons whom these pids are of, or were: those of whom all have their marks."""
    some = f"SELECT root FROM links WHERE root IN ({listed}) OR member IN ({listed})"  # noqa: S608 -- hexadecimal digits
    was_in = "argMax(is_linked OR by_erasure, (generation, off)) AS was_in"
    newest = (
        f"SELECT root, member, {was_in} FROM links WHERE root IN ({some}) GROUP BY root, member"  # noqa: S608 -- as above
    )
    return (
        f"SELECT root FROM ({newest}) GROUP BY root HAVING root IN {ERASED_PIDS} "  # noqa: S608 -- as above
        f"AND countIf(was_in AND member NOT IN {ERASED_PIDS}) = 0"
    )
