"""How do facts, counters and progress get into ClickHouse, and out of it after a crash?

One insert a table and call, acknowledged when its part is synced to disk. Columns go as they are
(Native format), with ints for times: rows and datetimes would cost most of a sink's CPU.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.insert import InsertContext

from runtime.clickhouse import answering, connect, literal
from runtime.settings import Settings
from sinks.rules.counters import COUNTER_COLUMNS, Counter, CounterRow, Progress
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
KEYS_PER_QUERY = 2000
LOOKUP_SETTINGS = {"max_query_size": 16_000_000, "max_ast_elements": 1_000_000}


class CounterStore:
    """The three tables of one topic and generation. For one thread; connects when first used.

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

    # -- writing, in this order

    def insert_facts(self, facts: Sequence[Fact]) -> None:
        """The facts are durable."""
        self._insert("facts", FACT_COLUMNS, list(zip(*facts, strict=True)))

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
            context = self._inserts.get(table)
            if context is None:
                context = client.create_insert_context(table, columns, column_oriented=True)
                # One block, one part: all rows of a call appear together.
                context.req_block_size = 1 << 24
                self._inserts[table] = context
            context.data = data
            try:
                client.insert(context=context)
            except BaseException:
                self._inserts.pop(table, None)
                raise
            context.data = None
