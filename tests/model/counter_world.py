"""Are facts, counters and progress what a recount of the log says?"""

from collections import Counter
from typing import Any

from runtime.settings import Settings
from schemas.codec import ACCEPTED
from schemas.events import Accepted, VisitChange
from schemas.topics import Topics
from sinks.accepted_to_clickhouse import AcceptedToClickHouse
from sinks.group_sink import GroupSink
from tests.model.memory_clickhouse import MemoryClickHouse, MemoryCounterStore
from tests.model.sink_world import SinkWorld, never_stopped

METRICS = {"Order Completed": "orders", "Email Opened": "opened", "Product Viewed": "product_views"}
MINUTE_MS = 60_000


class CounterWorld(SinkWorld):
    """One schedule of accepted_to_clickhouse."""

    topic = Topics().accepted
    server: MemoryClickHouse

    def __init__(self, seed: int) -> None:
        super().__init__(seed, MemoryClickHouse)
        self.kept: dict[tuple[int, int, int], Accepted] = {}  # (generation, partition, offset)
        self.repeats = 0
        # A new generation begins with an empty tripwire.
        self.may_repeat = not self.may_raise
        self._at: Counter[int] = Counter()  # of each lane its seq
        self._highest: dict[tuple[int, int], tuple[int, int, int]] = {}

    def arrive(self) -> None:
        chance = self.chance
        lane, p = chance.randrange(2), chance.randrange(self.partitions)
        # Sometimes what a lane wrote comes again: of a lane whose own log went back.
        repeats = self.may_repeat and chance.random() < 0.05
        self._at[lane] += 1 if not repeats else -min(2, self._at[lane] - 1)
        events, index = [], 0
        for _ in range(chance.choice((1, 1, 2, 3, 5))):
            index += chance.randint(1, 3)
            events.append(self._event(lane, self._at[lane], index))
        how = "commit" if chance.random() > 0.15 else "abort"
        offsets = self.write(p, [(each.pid, ACCEPTED.encode(each)) for each in events], how)
        if how == "abort":
            self._at[lane] -= 1
            return
        for offset, event in zip(offsets, events, strict=True):
            coordinate = (event.generation, event.seq, event.index)
            if coordinate <= self._highest.get((p, lane), (0, 0, 0)):
                self.repeats += 1
                continue
            self._highest[p, lane] = coordinate
            self.kept[event.generation, p, offset] = event

    def _event(self, lane: int, seq: int, index: int) -> Accepted:
        chance = self.chance
        visits = [
            VisitChange(
                chance.choice("ab"), chance.randrange(3) * MINUTE_MS, chance.choice((-1, 1))
            )
            for _ in range(chance.choice((0, 0, 1, 2)))
        ]
        name = chance.choice(list(METRICS))
        return Accepted(
            event_id=chance.randbytes(16),
            pid=chance.randbytes(16),
            source="s",
            type="track",
            event=name,
            occurred_at_ms=chance.randrange(3) * MINUTE_MS,
            sent_at_ms=None,
            received_at_ms=0,
            flags=0,
            body_digest=0,
            clear=b"{}",
            traits=[],
            key_version=1,
            sealed=b"",
            generation=self.generation,
            lane=lane,
            seq=seq,
            source_topic="c",
            source_partition=lane,
            source_offset=0,
            index=index,
            campaign_id=chance.choice("ab"),
            is_repeat_order=chance.random() < 0.1,
            amount_micro=chance.choice((None, 5, 7_000_000)),
            currency="EUR",
            visit_changes=visits,
        )

    def make_sink(self, settings: Settings) -> GroupSink:
        store = MemoryCounterStore(self.server, self.generation)
        return AcceptedToClickHouse(settings, store, never_stopped(), lambda: 0)

    def positions(self) -> dict[int, int]:
        return {
            kp: row.next_offset
            for (kp, generation), row in self.server.progress.items()
            if generation == self.generation
        }

    def cut(self) -> None:
        p = self.chance.randrange(self.partitions)
        log = self.kafka.logs[self.topic, p]
        log.cut(self.chance.randint(0, len(log.entries)))

    def broken_promises(self) -> set[str]:
        found = set()
        server = self.server
        facts = {(row[2], row[3], row[4]) for row in server.facts.values() if row[5] == 0}
        if facts != self.kept.keys():
            found.add("facts differ from the log")
        counted = {(*key, kp): row.value for (key, kp), row in server.counters.items() if row.value}
        if counted != {key: value for key, value in self._recount().items() if value}:
            found.add("counters differ from the log")
        totals: Counter[Any] = Counter()
        for row in server.facts.values():
            if row[10]:
                totals[row[0], row[10], "", row[8] // MINUTE_MS * 60, row[2], row[3]] += row[11]
        plain = {key: value for key, value in counted.items() if not key[2]}
        if plain != {key: value for key, value in totals.items() if value}:
            found.add("counters differ from facts")
        if sum(row.records for row in server.progress.values()) != len(self.kept):
            found.add("records counted otherwise")
        if bool(self.repeats) != bool(self.said["tripwire"]):
            found.add("tripwire silent" if self.repeats else "tripwire rang without a reason")
        return found

    def _recount(self) -> Counter[Any]:
        """(campaign, metric, currency, minute, generation, partition) -> sum, from what was sent."""
        totals: Counter[Any] = Counter()
        for (generation, p, _), event in self.kept.items():
            for change in event.visit_changes:
                at = (change.started_at_ms // 1000, generation, p)
                totals[change.campaign_id, "visits", "", *at] += change.delta
            if event.event == "Order Completed" and event.is_repeat_order:
                continue
            at = (event.occurred_at_ms // 1000, generation, p)
            totals[event.campaign_id, METRICS[event.event], "", *at] += 1
            if event.event == "Order Completed" and event.amount_micro:
                totals[event.campaign_id, "revenue", "EUR", *at] += event.amount_micro
        return totals
