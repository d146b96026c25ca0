"""Totals equal the truth under random crashes, torn writes, zombies and cold caches.

The store is a journal of acknowledged rows, read as ReplacingMergeTree with FINAL reads them. A
schedule crashes before, between and after inserts, lets an owner that lost its partition write
late, and repeats. Two mutants show that the schedules can fail.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from schemas.events import Accepted, VisitChange
from sinks.rules.counters import (
    Counter,
    CounterRow,
    Plan,
    Prefix,
    Progress,
    Tally,
    forget_idle,
    missing_counters,
    plan_write,
    tally,
)
from sinks.rules.rows import CounterKey, Fact, additions, fact_rows

Planner = Callable[[Prefix, Tally], Plan]
SCHEDULES = 600


@dataclass
class Journal:
    """What ClickHouse acknowledged."""

    facts: dict[tuple[object, ...], Fact] = field(default_factory=dict)
    counters: dict[CounterKey, Counter] = field(default_factory=dict)
    progress: Progress | None = None

    def insert(self, row: Fact | CounterRow | Progress) -> None:
        if isinstance(row, Progress):
            if self.progress is None or row.next_offset >= self.progress.next_offset:
                self.progress = row
        elif len(row) == 8:
            key, new = (row[0], row[1], row[2], row[3], row[4]), Counter(row[6], row[7])
            if key not in self.counters or new.last_offset >= self.counters[key].last_offset:
                self.counters[key] = new
        else:
            self.facts[row[:8]] = row

    def load(self, *, is_cold: bool) -> Prefix:
        prefix = Prefix(0)
        if self.progress is not None:
            prefix.next_offset = self.progress.next_offset
            prefix.records = self.progress.records
            prefix.highest = dict(self.progress.highest)
        prefix.is_complete = not is_cold
        prefix.counters = {} if is_cold else dict(self.counters)
        return prefix


def make_log(chance: random.Random) -> list[tuple[int, Accepted]]:
    """Events at rising offsets with gaps of control records, of two lanes, some with visits."""
    log: list[tuple[int, Accepted]] = []
    offset, at = 0, {0: (1, 0), 1: (1, 0)}
    for _ in range(chance.randint(20, 70)):
        lane = chance.randrange(2)
        seq, index = at[lane]
        at[lane] = (seq + 1, 0) if chance.random() < 0.3 else (seq, index + chance.randint(1, 3))
        visits = [
            VisitChange(chance.choice("ab"), chance.randrange(3) * 60_000, chance.choice((-1, 1)))
            for _ in range(chance.choice((0, 0, 1, 2)))
        ]
        log.append(
            (
                offset,
                Accepted(
                    event_id=chance.randbytes(16),
                    pid=chance.randbytes(16),
                    source="s",
                    type="track",
                    event=chance.choice(("Order Completed", "Email Opened", "Product Viewed")),
                    occurred_at_ms=chance.randrange(3) * 60_000,
                    sent_at_ms=None,
                    received_at_ms=0,
                    flags=0,
                    body_digest=0,
                    clear=b"{}",
                    traits=[],
                    key_version=1,
                    sealed=b"",
                    generation=1,
                    lane=lane,
                    seq=at[lane][0],
                    source_topic="c",
                    source_partition=lane,
                    source_offset=offset,
                    index=at[lane][1],
                    campaign_id=chance.choice("ab"),
                    is_repeat_order=chance.random() < 0.1,
                    amount_micro=chance.choice((None, 5, 7_000_000)),
                    currency="EUR",
                    visit_changes=visits,
                ),
            )
        )
        offset += 1 if chance.random() < 0.8 else 2
    return log


def truth(log: list[tuple[int, Accepted]]) -> dict[CounterKey, int]:
    totals: dict[CounterKey, int] = {}
    for offset, event in log:
        for fact in fact_rows(event, 0, offset):
            for key, added in additions(fact):
                totals[key] = totals.get(key, 0) + added
    return totals


def run_schedule(seed: int, planner: Planner) -> str | None:
    """None if everything is exact at the end, else what is wrong."""
    chance = random.Random(seed)
    log = make_log(chance)
    end = log[-1][0] + 1
    journal = Journal()
    late: list[list[Fact | CounterRow | Progress]] = []
    for life in range(200):
        prefix = journal.load(is_cold=chance.random() < 0.5)
        calm = life > 20
        while prefix.next_offset < end:
            stop = min(end, prefix.next_offset + chance.randint(1, 14))
            batch = [(o, e) for o, e in log if prefix.next_offset <= o < stop]
            done = tally(prefix, batch, stop)
            if done.repeats:
                return f"seed {seed}: tripwire {done.repeats[0]}"
            for key in missing_counters(prefix, done):
                if key in journal.counters:
                    prefix.counters[key] = journal.counters[key]
            plan = planner(prefix, done)
            forget_idle(prefix, done, limit=4)
            rows: list[Fact | CounterRow | Progress]
            rows = [*plan.facts, *plan.counters, plan.progress]
            fate = 1.0 if calm else chance.random()
            if fate < 0.15:  # killed in mid-insert
                for row in rows[: chance.randint(0, len(rows))]:
                    journal.insert(row)
                break
            if fate < 0.25:  # thought dead; its writes land later
                late.append(rows)
                break
            for row in rows:
                journal.insert(row)
            if fate < 0.35:  # killed after the write
                break
            if late and chance.random() < 0.4:
                for row in late.pop(chance.randrange(len(late))):
                    journal.insert(row)
        if journal.progress is not None and journal.progress.next_offset >= end:
            break
    for rows in late:
        for row in rows:
            journal.insert(row)
    if {key: found.value for key, found in journal.counters.items()} != truth(log):
        return f"seed {seed}: counters differ"
    if {fact[4] for fact in journal.facts.values()} != {offset for offset, _ in log}:
        return f"seed {seed}: facts differ"
    assert journal.progress is not None
    if journal.progress.records != len(log):
        return f"seed {seed}: {journal.progress.records} records of {len(log)}"
    return None


def test_totals_equal_the_truth_in_every_schedule() -> None:
    wrong = [found for seed in range(SCHEDULES) if (found := run_schedule(seed, plan_write))]
    assert wrong == []


def without_the_offset_guard(prefix: Prefix, done: Tally) -> Plan:
    for key, known in prefix.counters.items():
        prefix.counters[key] = Counter(known.value, -1)
    return plan_write(prefix, done)


def without_the_stored_value(prefix: Prefix, done: Tally) -> Plan:
    prefix.counters.clear()
    return plan_write(prefix, done)


@pytest.mark.parametrize("mutant", [without_the_offset_guard, without_the_stored_value])
def test_the_schedules_catch_a_planner_without_its_safeguard(mutant: Planner) -> None:
    wrong = [seed for seed in range(100) if run_schedule(seed, mutant)]
    assert len(wrong) > 20
