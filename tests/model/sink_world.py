"""What may happen to sinks, and when are they at rest?

Real sinks with the real reader of runtime/kafka_reader.py, on a Kafka and a store in memory. A seed
decides: what the lanes write when, in which transactions, which sink goes on, what its store does to
each call, who falls asleep, when a server loses its newest writes, when a person raises the
generation.
"""

import random
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from runtime import group_member, kafka_reader, retry
from runtime.settings import Kafka, Redis, Settings
from schemas.errors import StoreRefused
from sinks import accepted_to_clickhouse, group_sink, profile_store, subjects_to_redis
from sinks.group_sink import GroupSink
from tests.model.faulty import Server
from tests.model.memory_clients import memory_clients
from tests.model.memory_kafka import Died, MemoryKafka

MOST_STEPS = 2_000
BATCH_RECORDS = 9


class Silence:
    """A logger: counts what is said."""

    def __init__(self, said: Counter[str]) -> None:
        self._said = said

    def info(self, event: str, **_fields: object) -> None:
        self._said[event] += 1

    warning = error = info


class SinkWorld(ABC):
    """One schedule of one kind of sink."""

    topic: str

    def __init__(self, seed: int, server: Callable[[random.Random], Server]) -> None:
        self.chance = random.Random(seed)
        self.partitions = 1 + seed % 2
        self.kafka = MemoryKafka(self.partitions)
        self.server = server(self.chance)
        self.generation = 1
        self.sinks: list[GroupSink] = []
        self.wrong: set[str] = set()
        self.said: Counter[str] = Counter()
        self._arrivals = self.chance.randint(2, 18)
        self._faults = self.chance.randint(0, 5)
        self.may_raise = self.chance.random() < 0.5
        self._late_cuts = int(self.may_raise and self.chance.random() < 0.2)
        self.kafka.pause = self._pause
        self.kafka.take = lambda most: 1 + int(self.chance.random() * most)

    @abstractmethod
    def arrive(self) -> None:
        """A lane writes something."""

    @abstractmethod
    def make_sink(self, settings: Settings) -> GroupSink:
        """A new process's sink."""

    @abstractmethod
    def positions(self) -> dict[int, int]:
        """How far each partition is, by the store, in this generation."""

    @abstractmethod
    def broken_promises(self) -> set[str]:
        """What is wrong with the store at the end."""

    def look(self) -> set[str]:
        """What is wrong with the store, although sinks still work."""
        return set()

    @abstractmethod
    def cut(self) -> None:
        """The log loses its end, when all of it had been written to the store."""

    def write(
        self, p: int, records: list[tuple[bytes | None, bytes | None]], how: str
    ) -> list[int]:
        """One transaction of a lane; the offsets of its records."""
        kafka, name = self.kafka, f"lane {self.chance.randrange(2)}"
        epoch = kafka.owners[name].epoch or kafka.fence(name)
        log = kafka.logs[self.topic, p]
        offsets = []
        for record in records:
            kafka.write(name, epoch, (self.topic, p), record)
            offsets.append(len(log.entries) - 1)
        kafka.end(name, epoch, how)
        if self.chance.random() < 0.7:
            self._settle_some()
        return offsets

    def _pause(self, _point: str) -> None:
        if not self.server.is_calm and self.chance.random() < 0.05:
            self._settle_some()

    def _settle_some(self) -> None:
        if self.kafka.decided and self.chance.random() < 0.8:
            self.kafka.mark(self.chance.choice(self.kafka.decided))

    def _open(self) -> None:
        self.sinks.append(self.make_sink(_settings(self.partitions, self.generation)))

    def _end(self, sink: GroupSink) -> None:
        self.sinks.remove(sink)
        sink._reader.close()

    def _step(self, sink: GroupSink) -> None:
        try:
            sink.step()
        except Died:
            self._end(sink)
        except StoreRefused:
            self.said["refused"] += 1
            if not self.said["cut"]:
                self.wrong.add("refused without a reason")
            self._raise_generation()

    def _raise_generation(self) -> None:
        """A person stops the sinks, sleepers too, and starts them with a higher generation."""
        self.server.asleep.clear()
        for sink in list(self.sinks):
            self._end(sink)
        self.generation += 1

    def _hurt(self) -> None:
        how = self.chance.choice(("kill", "kill", "back", "back", "join", "raise", "shut out"))
        self.said[how] += 1
        if how == "kill" and self.sinks:
            self._end(self.chance.choice(self.sinks))
        elif how == "back" and self.server.may_go_back:
            self.server.go_back(is_silent=self.chance.random() < 0.5)
        elif how == "join":
            self._open()
        elif how == "raise" and self.may_raise:
            self._raise_generation()
        elif how == "shut out" and self.sinks:
            sink = self.chance.choice(self.sinks)
            reader: Any = sink._reader
            self.kafka.leave(reader._consumer._group_name, reader._consumer)

    def run(self) -> set[str]:
        """The whole schedule; the promises that it broke."""
        chance = self.chance
        for _ in range(MOST_STEPS):
            if self._arrivals and chance.random() < 0.5:
                self._arrivals -= 1
                self.arrive()
            if self._faults and chance.random() < 0.15:
                self._faults -= 1
                self._hurt()
            if chance.random() < 0.3:
                self.server.wake_one()
            if not self.sinks:
                self._open()
            self._step(chance.choice(self.sinks))
            self.wrong |= self.look()
            if not self._arrivals and not self._faults and self._is_settled():
                if not self._late_cuts:
                    return self.wrong | self.broken_promises()
                self._late_cuts = 0
                self._cut()
        return self.wrong | {"stuck"}

    def _cut(self) -> None:
        """Everything is written, and now the log goes back to an earlier end."""
        ends = self.positions()
        self.cut()
        self.said["cut"] += 1
        # What only the store has now, it must not lose as well.
        self.server.may_go_back = False
        for sink in list(self.sinks):
            self._end(sink)
        generation = self.generation
        self._open()
        for _ in range(50):
            if self.generation == generation and self.sinks:
                self._step(self.sinks[0])
        is_lost = any(len(self.kafka.logs[self.topic, p].entries) < end for p, end in ends.items())
        if self.generation == generation:
            if is_lost:
                self.wrong.add("went on reading a log that went back")
            self._raise_generation()
        self.server.is_calm = False
        self._arrivals, self._faults = self.chance.randint(1, 10), self.chance.randint(0, 2)

    def _is_settled(self) -> bool:
        """No more faults from now on; True once every partition is written to its end."""
        self.server.is_calm = True
        while self.kafka.decided:
            self.kafka.mark(self.kafka.decided[0])
        while self.server.asleep:
            self.server.wake_one()
        positions = self.positions()
        return all(
            positions.get(p, 0) == len(self.kafka.logs[self.topic, p].entries)
            for p in range(self.partitions)
        )


@cache
def _settings(partitions: int, generation: int) -> Settings:
    return Settings(
        kafka=Kafka(partitions=partitions, generation=generation),
        redis=Redis(url="redis://memory", key_prefix="m:"),
    )


def memory_sinks(patch: pytest.MonkeyPatch) -> Callable[[SinkWorld], None]:
    """From now on sinks, as they are imported, live in the world that the answer was given."""
    use_kafka = memory_clients(patch)
    for sink in (accepted_to_clickhouse, subjects_to_redis):
        patch.setattr(sink, "BATCH_RECORDS", BATCH_RECORDS)
    patch.setattr(subjects_to_redis, "REBUILD_PROFILES", 4)

    def use(world: SinkWorld) -> None:
        use_kafka(world.kafka)
        patch.setattr(accepted_to_clickhouse, "CACHED_COUNTERS", world.chance.choice((4, 1_000)))
        patch.setattr(profile_store, "CALLS_PER_PIPELINE", world.chance.choice((2, 1_000)))
        patch.setattr(retry, "random", world.chance)
        for module in (accepted_to_clickhouse, subjects_to_redis, group_sink):
            patch.setattr(module, "time", world.kafka.clock)
        spoken = (accepted_to_clickhouse, subjects_to_redis, group_member, retry, kafka_reader)
        for module in spoken:
            patch.setattr(module, "get_logger", lambda: Silence(world.said))

    return use


def never_stopped() -> threading.Event:
    """An event that nobody sets."""
    return threading.Event()
