"""What do the sinks do alike: share partitions out, step until they are stopped, wait for stores?

A sink's life does not depend on its store. Its place in the group must outlast a store that is
away, else its partitions would wander to others that cannot reach the store either.
"""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from runtime.kafka_reader import KafkaReader
from runtime.logs import get_logger
from runtime.metrics import counter, histogram
from runtime.retry import Stopped, retry_in_place
from runtime.settings import Settings
from runtime.signs import STORE, signs_of
from runtime.stalls import Place, Standing

T = TypeVar("T")


class GroupSink(ABC):
    """One process's part of the sink `name`: a member of the group that is named after it.

    `member` is this process's name for good, if it has one (see KafkaReader).
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        topic: str,
        stop: threading.Event,
        *,
        member: str | None = None,
    ) -> None:
        self._name = name
        self._topic = topic
        self._stop = stop
        self._reader = KafkaReader(
            settings,
            topic,
            f"{settings.kafka.topic_prefix}{name}",
            member=member,
            on_lost=self._forget,
        )

    @abstractmethod
    def step(self) -> None:
        """Start new partitions, or write what has come."""

    @abstractmethod
    def _forget(self, partitions: Iterable[int]) -> None:
        """These are no longer ours."""

    @abstractmethod
    def _standing(self, partition: int) -> tuple[int | None, int]:
        """What is durable of it, and what is only read; asked by the watchdog's thread."""

    def standings(self) -> dict[Place, Standing]:
        """How far each partition of ours is, for the watchdog."""
        found = {}
        for partition in self._reader.assigned:
            position, is_read = self._standing(partition)
            signs = (is_read, signs_of(STORE))
            found[self._topic, partition] = Standing(position, signs)
        return found

    def _finish(self) -> None:  # noqa: B027  not every sink has something left to do
        """The last work, after the last step."""

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Write until `stop` is set, then finish the batch in hand.

        `on_ready` is called once, when the partitions are ours and their positions are known.
        Raises StoreRefused when only a person can help; a store that is away is waited for.
        """
        is_ready = False
        try:
            while not self._stop.is_set():
                self.step()
                if not is_ready and self._reader.has_joined and not self._reader.unstarted:
                    is_ready = True
                    on_ready()
            self._finish()
        except Stopped:
            get_logger().info("stopped_while_waiting", sink=self._name)

    def close(self) -> None:
        """Leave the group."""
        self._reader.close()

    def _retry(self, action: Callable[[], T], doing: str) -> T:
        return retry_in_place(
            action, what=doing, wait=self._reader.keep_alive, stopped=self._stop.is_set
        )

    def _measure(self, rows: Mapping[str, int], began_s: float) -> None:
        """Show a batch that is written: its rows by table. The watchdog shows the lag."""
        for table, count in rows.items():
            counter("headwater_sink_rows_total").labels(self._name, table).inc(count)
        took_s = time.monotonic() - began_s
        histogram("headwater_sink_batch_seconds").labels(self._name).observe(took_s)
