"""What do the four tables of the counters hold, read with FINAL?

Rows of `counters` and `progress` are replaced by those with an equal or higher version, facts by
equal ones. tests/contracts/test_memory_stores.py holds it equal to the real engine.
"""

import random
from collections.abc import Iterable, Sequence

from schemas.counters import ERASED_MARK, MOVED
from schemas.errors import StoreUnavailable
from sinks.rules.counters import NEVER, Counter, CounterRow, Mark, Progress
from sinks.rules.links import Link, newest_of_pairs, roots_in_force
from sinks.rules.retract import KnownFact
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
        self.retracted: dict[FactKey, tuple[int, int]] = {}  # (generation, offset)
        self.counters: dict[tuple[CounterKey, int], Counter] = {}
        self.progress: dict[tuple[int, int], Progress] = {}
        self.links: set[Link] = set()

    def put_fact(self, row: Fact) -> None:
        self.facts[_key_of(row)] = row

    def put_mark(self, mark: Mark) -> None:
        fact, generation, offset = mark
        self.put_fact(fact)
        if offset == NEVER:
            return
        known = self.retracted.get(_key_of(fact))
        if known is None or offset >= known[1]:
            self.retracted[_key_of(fact)] = (generation, offset)

    def put_marks(self, marks: Sequence[Mark]) -> None:
        for mark in marks:
            self.put_mark(mark)

    def erased(self) -> set[bytes]:
        """Everybody whose facts have stand-ins: no reader counts these facts any more."""
        return {row[6] for row in self.facts.values() if row[10] == ERASED_MARK}

    def delete_erased(self, every: int) -> None:
        """What the role `erasure` does: of everybody with stand-ins only the mark stays.

        Part by part: of the facts that are there, one in `every` goes now.
        """
        erased = self.erased()
        keys = [key for key, row in self.facts.items() if row[6] in erased]
        for key in [key for key in keys if self.facts[key][10] != ERASED_MARK][::every]:
            del self.facts[key]
            self.retracted.pop(key, None)
        needed = {
            each.root
            for each in newest_of_pairs(self.links)
            if (each.is_linked or each.by_erasure) and each.member not in erased
        }
        self.links = {each for each in self.links if each.root not in erased - needed}

    def persons(self) -> dict[bytes, bytes]:
        """The root of each pid that has one, as the counts of people take it."""
        return roots_in_force(self.links)

    def put_counter(self, row: CounterRow) -> None:
        key = (row[0], row[1], row[2], row[3], row[4])
        known = self.counters.get((key, row[5]))
        if known is None or row[7] >= known.last_offset:
            self.counters[key, row[5]] = Counter(row[6], row[7])

    def put_progress(self, generation: int, row: Progress) -> None:
        known = self.progress.get((row.kp, generation))
        if known is None or row.next_offset >= known.next_offset:
            self.progress[row.kp, generation] = row


def _key_of(row: Fact) -> FactKey:
    return (row[0], row[1], row[3], row[6], row[7], row[2], row[4], row[5])


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

    def marked_people(self, partition: int) -> list[tuple[bytes, int, int]]:
        server = self._server

        def answer() -> list[tuple[bytes, int, int]]:
            first: dict[tuple[bytes, int], int] = {}
            moved = {
                (r[6], r[7], r[2], r[4])
                for r in server.facts.values()
                if (r[3], r[5]) == (partition, MOVED)
            }
            for key, (generation, offset) in server.retracted.items():
                if key[2] == partition and (key[3], key[4], generation, offset) not in moved:
                    who = (server.facts[key][6], generation)
                    first[who] = min(offset, first.get(who, offset))
            return [(*who, offset) for who, offset in first.items()]

        return self._connection.ask(answer)

    def erased_people(self, people: Sequence[bytes]) -> set[bytes]:
        return self._connection.ask(lambda: self._server.erased() & set(people))

    def facts_of(self, partition: int | None, people: Sequence[bytes]) -> list[KnownFact]:
        server = self._server
        return self._connection.ask(
            lambda: [
                KnownFact(row, server.retracted.get(key))
                for key, row in server.facts.items()
                if partition in (None, row[3]) and row[6] in people
            ]
        )

    def links_of(self, people: Sequence[bytes]) -> list[Link]:
        server = self._server

        def answer() -> list[Link]:
            roots = {each.root for each in server.links if each.member in people} | set(people)
            return sorted(each for each in server.links if each.root in roots)

        return self._connection.ask(answer)

    def insert_links(self, links: Sequence[Link]) -> None:
        self._insert([lambda row=row: self._server.links.add(row) for row in links])  # type: ignore[misc]

    def insert_marks(self, marks: Sequence[Mark]) -> None:
        if any(fact[10] == ERASED_MARK for fact, _, _ in marks):
            # One block, one part. Other marks could come singly, and do here.
            self._insert([lambda: self._server.put_marks(marks)])
            return
        self._insert([lambda row=row: self._server.put_mark(row) for row in marks])  # type: ignore[misc]

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
