"""What do the three tables of the counters hold, read with FINAL?

Rows of `counters` and `progress` are replaced by those with an equal or higher version, facts by
equal ones. tests/contracts/test_memory_stores.py holds it equal to the real engine.
"""

import random
from collections.abc import Iterable, Sequence

from schemas.errors import StoreUnavailable
from sinks.rules.counters import Counter, CounterRow, Progress
from sinks.rules.rows import CounterKey, Fact
from tests.model.faulty import Connection, Server, Write

FactKey = tuple[object, ...]


class MemoryClickHouse(Server):
    """The tables; `progress` by (partition, generation)."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(chance)
        self.clear()

    def clear(self) -> None:
        self.facts: dict[FactKey, Fact] = {}
        self.counters: dict[tuple[CounterKey, int], Counter] = {}
        self.progress: dict[tuple[int, int], Progress] = {}

    def put_fact(self, row: Fact) -> None:
        self.facts[(row[0], row[1], row[3], row[6], row[7], row[2], row[4], row[5])] = row

    def put_counter(self, row: CounterRow) -> None:
        key = (row[0], row[1], row[2], row[3], row[4])
        known = self.counters.get((key, row[5]))
        if known is None or row[7] >= known.last_offset:
            self.counters[key, row[5]] = Counter(row[6], row[7])

    def put_progress(self, generation: int, row: Progress) -> None:
        known = self.progress.get((row.kp, generation))
        if known is None or row.next_offset >= known.next_offset:
            self.progress[row.kp, generation] = row


class MemoryCounterStore:
    """sinks.counter_store.CounterStore of one process on a MemoryClickHouse."""

    def __init__(self, server: MemoryClickHouse, generation: int) -> None:
        self._server = server
        self._generation = generation
        self._connection = Connection(server, lambda: StoreUnavailable("ClickHouse is away"))

    def progress(
        self, partitions: Iterable[int]
    ) -> dict[int, tuple[Progress | None, dict[int, int]]]:
        def answer() -> dict[int, tuple[Progress | None, dict[int, int]]]:
            rows = self._server.progress
            return {
                kp: (
                    rows.get((kp, self._generation)),
                    {
                        generation: row.next_offset
                        for (of, generation), row in rows.items()
                        if of == kp and generation < self._generation
                    },
                )
                for kp in partitions
            }

        return self._connection.ask(answer)

    def positions(self, partitions: Iterable[int]) -> dict[int, int | None]:
        found = self.progress(partitions)
        return {kp: at.next_offset if at is not None else None for kp, (at, _) in found.items()}

    def count_counters(self, partition: int) -> int:
        return self._connection.ask(lambda: len(self._of(partition)))

    def all_counters(self, partition: int) -> dict[CounterKey, Counter]:
        return self._connection.ask(lambda: self._of(partition))

    def some_counters(self, partition: int, keys: list[CounterKey]) -> dict[CounterKey, Counter]:
        return self._connection.ask(
            lambda: {key: row for key, row in self._of(partition).items() if key in keys}
        )

    def insert_facts(self, facts: Sequence[Fact]) -> None:
        self._insert([lambda row=row: self._server.put_fact(row) for row in facts])  # type: ignore[misc]

    def insert_counters(self, counters: Sequence[CounterRow]) -> None:
        self._insert([lambda row=row: self._server.put_counter(row) for row in counters])  # type: ignore[misc]

    def insert_progress(self, progress: Sequence[Progress], at_ms: int) -> None:
        generation = self._generation
        writes: list[Write] = [
            lambda row=row: self._server.put_progress(generation, row)  # type: ignore[misc]
            for row in progress
        ]
        self._insert(writes, is_last=True)

    def _of(self, partition: int) -> dict[CounterKey, Counter]:
        return {key: row for (key, kp), row in self._server.counters.items() if kp == partition}

    def _insert(self, writes: list[Write], *, is_last: bool = False) -> None:
        if writes:
            self._connection.write(writes, is_last=is_last)
