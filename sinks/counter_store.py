"""How do facts, counters and progress get into ClickHouse, and out of it after a crash?

One insert a table and call, acknowledged when its part is synced to disk. Columns go as they are
(Native format), with ints for times: rows and datetimes would cost most of a sink's CPU.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.insert import InsertContext

from runtime.clickhouse import answering, connect, literal
from runtime.settings import Settings
from schemas.counters import ERASED_MARK, MOVED, NO_CAMPAIGN_AT_ALL
from sinks.rules.counters import COUNTER_COLUMNS, Counter, CounterRow, Mark, Progress
from sinks.rules.links import LINK_COLUMNS, Link
from sinks.rules.retract import KnownFact
from sinks.rules.rows import FACT_COLUMNS, CounterKey, Fact

SINK = "accepted-to-clickhouse"
PROGRESS_COLUMNS = (
    "sink",
    "generation",
    "topic",
    "kp",
    "next_off",
    "records",
    "lanes",
    "updated_at",
)
MARK_COLUMNS = (*FACT_COLUMNS, "retracted_generation", "retracted_next_off")
KEYS_PER_QUERY = 2000
PEOPLE_PER_QUERY = 500
LOOKUP_SETTINGS = {
    "max_query_size": 16_000_000,
    "max_ast_elements": 1_000_000,
    # All rows of a fact have its pid: what the index leaves out holds no version of it either.
    "use_skip_indexes_if_final": 1,
}


_AS_READ = {
    "event_date": "toUInt16(event_date)",
    "occurred_at": "toUnixTimestamp64Milli(occurred_at)",
    "received_at": "toUnixTimestamp64Milli(received_at)",
}
_READ_FACT = ", ".join(_AS_READ.get(name, f"`{name}`") for name in MARK_COLUMNS)


class CounterStore:
    """The four tables of one topic and generation. For one thread; connects when first used.

    Every method raises StoreUnavailable or StoreRefused, and after either may be called again with
    the same rows.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        self._settings = settings
        self._topic = topic
        self._generation = settings.kafka.generation
        self._client: Client | None = None
        self._inserts: dict[str, InsertContext] = {}

    # -- reading, after an assignment

    def progress(
        self, partitions: Iterable[int]
    ) -> dict[int, tuple[Progress | None, dict[int, int]]]:
        """Of each partition: the newest progress of this generation, and how far older ones got.

        The second is generation -> next offset.
        """
        found: dict[int, tuple[Progress | None, dict[int, int]]] = {
            partition: (None, {}) for partition in partitions
        }
        rows = self._ask(
            "SELECT kp, generation, next_off, records, lanes FROM progress FINAL "
            "WHERE sink = {sink:String} AND topic = {topic:String} "
            "AND generation <= {generation:UInt32}",
            {"sink": SINK, "topic": self._topic, "generation": self._generation},
            "how far it is",
        )
        for kp, generation, next_offset, records, lanes in rows:
            if kp not in found:
                continue
            newest, older = found[kp]
            if generation == self._generation:
                highest = {lane: tuple(at) for lane, at in lanes.items()}
                newest = Progress(kp, next_offset, records, highest)
            else:
                older[generation] = next_offset
            found[kp] = (newest, older)
        return found

    def positions(self, partitions: Iterable[int]) -> dict[int, int | None]:
        """Of each partition the next offset by its newest progress; None without one."""
        rows = self._ask(
            "SELECT kp, max(next_off) FROM progress WHERE sink = {sink:String} "
            "AND topic = {topic:String} AND generation = {generation:UInt32} GROUP BY kp",
            {"sink": SINK, "topic": self._topic, "generation": self._generation},
            "how far it is",
        )
        found = dict(rows)
        return {partition: found.get(partition) for partition in partitions}

    def count_counters(self, partition: int) -> int:
        """How many counters the partition has, at most."""
        rows = self._ask(
            "SELECT count() FROM counters WHERE kp = {kp:UInt32}", {"kp": partition}, "how many"
        )
        return int(rows[0][0])

    def all_counters(self, partition: int) -> dict[CounterKey, Counter]:
        """Every counter of the partition, of every generation."""
        return self._counters(f"kp = {int(partition)}")

    def some_counters(
        self, partition: int, keys: Sequence[CounterKey]
    ) -> dict[CounterKey, Counter]:
        """Those of `keys` that the store has."""
        found: dict[CounterKey, Counter] = {}
        for start in range(0, len(keys), KEYS_PER_QUERY):
            listed = ",".join(
                f"({literal(key[0])},{literal(key[1])},{literal(key[2])},{key[3]},{key[4]})"
                for key in keys[start : start + KEYS_PER_QUERY]
            )
            found |= self._counters(
                f"kp = {int(partition)} "
                f"AND (campaign_id, metric, currency, minute, generation) IN ({listed})"
            )
        return found

    def _counters(self, condition: str) -> dict[CounterKey, Counter]:
        columns = "campaign_id, metric, currency, toUnixTimestamp(minute), generation"
        # The condition holds numbers and literals that are escaped above.
        sql = f"SELECT {columns}, value, last_off FROM counters FINAL WHERE {condition}"  # noqa: S608
        rows = self._ask(sql, None, "for counters")
        return {(row[0], row[1], row[2], row[3], row[4]): Counter(row[5], row[6]) for row in rows}

    def marked_people(self, partition: int) -> list[tuple[bytes, int, int]]:
        """Everybody of whom a fact of the partition is retracted: (pid, generation, offset).

        Of each generation the first retraction that took something back. A fact that counts in
        another campaign now is not retracted.
        """
        rows = self._ask(
            "SELECT pid, retracted_generation, min(retracted_next_off) FROM facts "
            "WHERE kp = {kp:UInt32} AND retracted_next_off > 0 "
            # What moved to another campaign stands there as of the same place in the log.
            "AND (pid, event_id, retracted_generation, toUInt64(retracted_next_off - 1)) NOT IN "
            "(SELECT pid, event_id, generation, off FROM facts "
            "WHERE kp = {kp:UInt32} AND idx = {moved:UInt16}) GROUP BY pid, retracted_generation",
            {"kp": partition, "moved": MOVED},
            "for people with retracted facts",
        )
        return [(bytes(pid), generation, next_offset - 1) for pid, generation, next_offset in rows]

    def facts_of(self, partition: int | None, people: Sequence[bytes]) -> list[KnownFact]:
        """All facts of these people in the partition (None: in any), of every generation."""
        found: list[KnownFact] = []
        there = "" if partition is None else f"kp = {int(partition)} AND "
        for pids in _listed(people):
            # The condition holds numbers and hexadecimal digits of our own.
            sql = f"SELECT {_READ_FACT} FROM facts FINAL WHERE {there}pid IN ({pids})"  # noqa: S608
            for *fact, generation, next_offset in self._ask(sql, None, "for facts of a person"):
                fact[6], fact[7] = bytes(fact[6]), bytes(fact[7])
                at = (generation, next_offset - 1) if next_offset else None
                found.append(KnownFact(tuple(fact), at))
        return found

    def erased_people(self, people: Sequence[bytes]) -> set[bytes]:
        """Those of them whose facts have stand-ins."""
        found: set[bytes] = set()
        for pids in _listed(people):
            sql = (
                "SELECT DISTINCT pid FROM facts WHERE campaign_id = {campaign:String} "  # noqa: S608
                f"AND metric = {{metric:String}} AND pid IN ({pids})"
            )
            asked = {"campaign": NO_CAMPAIGN_AT_ALL, "metric": ERASED_MARK}
            found.update(bytes(row[0]) for row in self._ask(sql, asked, "for erased people"))
        return found

    def links_of(self, people: Sequence[bytes]) -> list[Link]:
        """All rows of the roots that these people are, or were, or were joined to."""
        found: list[Link] = []
        for pids in _listed(people):
            sql = (
                f"SELECT {', '.join(LINK_COLUMNS)} FROM links WHERE root IN ({pids}) OR root IN "  # noqa: S608
                f"(SELECT root FROM links WHERE member IN ({pids}))"
            )
            for root, member, is_linked, by_erasure, *place, salt in self._ask(
                sql, None, "for links"
            ):
                generation, kp, off = place
                link = Link(
                    bytes(root), bytes(member), bool(is_linked), bool(by_erasure), generation, kp,
                    off, bytes(salt),
                )  # fmt: skip
                found.append(link)
        return found

    # -- writing, in this order

    def insert_links(self, links: Sequence[Link]) -> None:
        """The links are durable."""
        rows = [tuple(getattr(link, name) for name in LINK_COLUMNS) for link in links]
        self._insert("links", LINK_COLUMNS, list(zip(*rows, strict=True)))

    def insert_facts(self, facts: Sequence[Fact]) -> None:
        """The facts are durable."""
        self._insert("facts", FACT_COLUMNS, list(zip(*facts, strict=True)))

    def insert_marks(self, marks: Sequence[Mark]) -> None:
        """The marks are durable: these facts no longer count."""
        rows = [(*fact, generation, offset + 1) for fact, generation, offset in marks]
        self._insert("facts", MARK_COLUMNS, list(zip(*rows, strict=True)))

    def insert_counters(self, counters: Sequence[CounterRow]) -> None:
        """The counters are durable."""
        self._insert("counters", COUNTER_COLUMNS, list(zip(*counters, strict=True)))

    def insert_progress(self, progress: Sequence[Progress], at_ms: int) -> None:
        """The progress is durable: all before it counts as counted."""
        rows = [
            (
                SINK,
                self._generation,
                self._topic,
                at.kp,
                at.next_offset,
                at.records,
                dict(at.highest),
                at_ms,
            )
            for at in progress
        ]
        self._insert("progress", PROGRESS_COLUMNS, list(zip(*rows, strict=True)))

    def close(self) -> None:
        """End the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _connected(self) -> Client:
        if self._client is None:
            self._client = connect(self._settings)
        return self._client

    def _ask(self, sql: str, parameters: Mapping[str, Any] | None, asked: str) -> list[Any]:
        client = self._connected()
        with answering(asked):
            found = client.query(
                sql, parameters=dict(parameters or {}), settings=LOOKUP_SETTINGS
            ).result_rows
        return list(found)

    def _insert(self, table: str, columns: Sequence[str], data: list[Any]) -> None:
        if not data:
            return
        client = self._connected()
        with answering(f"an insert of {len(data[0])} rows into {table}"):
            # One that was prepared fits the columns that it was prepared for.
            name = f"{table} {len(columns)}"
            context = self._inserts.get(name)
            if context is None:
                context = client.create_insert_context(table, columns, column_oriented=True)
                # One block, one part: all rows of a call appear together.
                context.req_block_size = 1 << 24
                self._inserts[name] = context
            context.data = data
            try:
                client.insert(context=context)
            except BaseException:
                self._inserts.pop(name, None)
                raise
            context.data = None


def _listed(people: Sequence[bytes]) -> Iterator[str]:
    """`people` as lists of literals for a query each."""
    for start in range(0, len(people), PEOPLE_PER_QUERY):
        yield ",".join(f"unhex('{pid.hex()}')" for pid in people[start : start + PEOPLE_PER_QUERY])
