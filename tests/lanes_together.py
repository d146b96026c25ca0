"""Several real lanes on one log in memory: what one writes to an input topic, another reads."""

import asyncio
import random
from collections import defaultdict
from typing import Any

import pytest

from runtime.settings import Kafka as KafkaSettings
from runtime.settings import Settings
from runtime.transactions import Compacted
from schemas.codec import (
    CLAIMED,
    COLLECTED,
    CONSENT_CHANGED,
    ERASURE_REQUESTED,
    KIN,
    LINKED,
    MOVED,
    REJECTED,
    RETRACTED,
    SUBJECT,
    Codec,
)
from schemas.events import Collected
from schemas.moves import Claimed
from schemas.partitioning import partition_of
from schemas.requests import ConsentChanged, ErasureRequested
from schemas.subjects import PID_BYTES, Subject
from streams import lane as lane_module
from streams.app import arrows, lane_settings
from streams.lane import Lane
from tests.lane_log import TOPICS, Fetched, InlineThread
from tests.stream_log import START_MS

Sent = Collected | Claimed | ConsentChanged | ErasureRequested
_PLACES: dict[type, tuple[str, Codec[Any]]] = {
    Collected: (TOPICS.collected, COLLECTED),
    Claimed: (TOPICS.moves, CLAIMED),
    ConsentChanged: (TOPICS.consents, CONSENT_CHANGED),
    ErasureRequested: (TOPICS.erasures, ERASURE_REQUESTED),
}


class Together:
    """All lanes of one worker; `chance` decides how their work interleaves."""

    def __init__(self, patch: pytest.MonkeyPatch, *, partitions: int = 3, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.partitions = partitions
        self.logs: dict[tuple[str, int], list[tuple[bytes, bytes | None]]] = defaultdict(list)
        patch.setattr(lane_module, "LaneProducer", lambda _servers, name, _fault: _Producer(self))
        patch.setattr(lane_module, "read_compacted", self._read_compacted)
        self.generation = 1
        self.lanes = {p: self._open(p) for p in range(partitions)}

    def begin_anew(self) -> None:
        """The inputs were lost; the lanes go on in the next generation."""
        self.generation += 1
        for topic in TOPICS.inputs:
            for p in range(self.partitions):
                self.logs[topic, p].clear()
        self.lanes = {p: self._open(p) for p in range(self.partitions)}

    def _open(self, p: int) -> Lane:
        kafka = KafkaSettings(partitions=self.partitions, generation=self.generation)
        shared = lane_settings(Settings(kafka=kafka), lambda: START_MS)
        lane = Lane(p, shared, arrows(TOPICS))
        lane._thread = InlineThread()  # type: ignore[assignment]
        lane.open()
        for topic in TOPICS.inputs:
            lane.start_at(topic, 0, 10**9)
        return lane

    def _read_compacted(self, _servers: str, topic: str, p: int, _group: str) -> Compacted:
        newest = dict(self.logs[topic, p])
        return Compacted({k: v for k, v in newest.items() if v is not None}, 0)

    def send(self, *records: Sent) -> None:
        """Put `records` where producers would."""
        for record in records:
            topic, codec = _PLACES[type(record)]
            place = (topic, partition_of(record.pid, self.partitions))
            self.logs[place].append((record.pid, codec.encode(record)))

    def step(self) -> bool:
        """Some lane reads something and commits; False when all have read everything."""
        waiting = [
            (lane, topic)
            for p, lane in self.lanes.items()
            for topic in TOPICS.inputs
            if lane.next_offsets[topic] < len(self.logs[topic, p])
        ]
        if not waiting:
            return False
        lane, topic = self.chance.choice(waiting)
        begin = lane.next_offsets[topic]
        log = self.logs[topic, lane.p]
        end = min(len(log), begin + self.chance.randint(1, 4))
        found = [Fetched(*log[at], at) for at in range(begin, end)]
        lane._apply(topic, found, end)
        if self.chance.random() < 0.7:
            asyncio.run(lane._barrier())
        if self.chance.random() < 0.05:
            asyncio.run(lane._barrier())
            self.lanes[lane.p] = self._open(lane.p)
        return True

    def run(self, *records: Sent) -> "Together":
        """Everything sent, and what follows from it, is applied and committed."""
        self.send(*records)
        while True:
            while self.step():
                pass
            for lane in self.lanes.values():
                asyncio.run(lane._barrier())
            if all(
                lane.next_offsets[topic] == len(self.logs[topic, p])
                for p, lane in self.lanes.items()
                for topic in TOPICS.inputs
            ):
                return self

    def subjects(self) -> dict[bytes, Subject]:
        """The newest record of each pid."""
        found = {}
        for p in range(self.partitions):
            for key, value in dict(self.logs[TOPICS.subjects, p]).items():
                if len(key) == PID_BYTES and value is not None:
                    found[key] = SUBJECT.decode(value)
        return found

    def said(self, codec: Codec[Any]) -> list[Any]:
        """Every record of one kind that lanes wrote, those of each partition in their order."""
        topic = {
            REJECTED: TOPICS.rejected, MOVED: TOPICS.moves, KIN: TOPICS.moves,
            LINKED: TOPICS.accepted, RETRACTED: TOPICS.accepted,
            ERASURE_REQUESTED: TOPICS.erasures,
        }[codec]  # fmt: skip
        return [
            codec.decode(value)
            for p in range(self.partitions)
            for _, value in self.logs[topic, p]
            if value is not None and value[:5] in codec.headers
        ]


class _Producer:
    """A LaneProducer on that log."""

    transactional_id = "test"

    def __init__(self, world: Together) -> None:
        self._world = world
        self._sent: list[tuple[str, int, bytes | None, bytes]] = []

    def fence(self) -> None:
        """Nobody else writes here."""

    def produce(self, topic: str, value: bytes | None, key: bytes | None, p: int) -> None:
        self._sent.append((topic, p, value, key or b""))

    send = produce

    def poll(self, _s: float) -> int:
        return 0

    def commit(self) -> float:
        for topic, p, value, key in self._sent:
            self._world.logs[topic, p].append((key, value))
        self._sent = []
        return 0.0
