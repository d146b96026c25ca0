"""A log in memory for real lanes: transactions are whole or nothing, and owners are fenced."""

from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from runtime.transactions import Compacted, OnFault
from schemas.topics import Topics

TOPICS = Topics()
Record = tuple[bytes, bytes | None]
"""(key, value)"""


class Died(Exception):
    """The process of a lane has ended."""


class Kafka:
    """A log in memory; `fences` and `is_atomic` are what a mutant leaves out."""

    def __init__(self, *, fences: bool = True, is_atomic: bool = True) -> None:
        self.fences = fences
        self.is_atomic = is_atomic
        # Input topic -> records by offset; None is an offset without a record (control, aborted).
        self.inputs: dict[str, list[Record | None]] = {topic: [] for topic in TOPICS.inputs}
        self.outputs: dict[str, list[Record]] = defaultdict(list)
        self.epochs: Counter[str] = Counter()
        self.dies: str = ""  # at the next commit: 'before' or 'after' it

    def read_compacted(self, _servers: str, topic: str, _p: int, _group: str) -> Compacted:
        newest: dict[bytes, bytes] = {}
        for key, value in self.outputs[topic]:
            if value is None:
                newest.pop(key, None)
            else:
                newest[key] = value
        return Compacted(newest, len(self.outputs[topic]))


class Producer:
    """A LaneProducer on that log."""

    def __init__(self, kafka: Kafka, transactional_id: str, on_fault: OnFault) -> None:
        self.transactional_id = transactional_id
        self._kafka = kafka
        self._on_fault = on_fault
        self._epoch = 0
        self._sent: list[tuple[str, Record]] = []

    def fence(self) -> None:
        self._kafka.epochs[self.transactional_id] += 1
        self._epoch = self._kafka.epochs[self.transactional_id]

    def produce(self, topic: str, value: bytes | None, key: bytes | None, _p: int) -> None:
        self._sent.append((topic, (key or b"", value)))

    send = produce

    def poll(self, _s: float) -> int:
        return 0

    def commit(self) -> float:
        kafka, sent = self._kafka, self._sent
        dies, kafka.dies = kafka.dies, ""
        if dies == "before":
            if not kafka.is_atomic:
                self._append(sent[: len(sent) // 2])
            raise Died
        if kafka.fences and kafka.epochs[self.transactional_id] != self._epoch:
            self._on_fault("fenced")
        self._append(sent)
        self._sent = []
        if dies == "after":
            raise Died
        return 0.0

    def _append(self, sent: list[tuple[str, Record]]) -> None:
        for topic, record in sent:
            self._kafka.outputs[topic].append(record)


class InlineThread:
    """An executor that is done at once."""

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args))
        except Died as died:
            future.set_exception(died)
        return future


@dataclass(frozen=True, slots=True)
class Fetched:
    """A record as the consumer hands it over."""

    key: bytes
    value: bytes | None
    offset: int
