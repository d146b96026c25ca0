"""What do the sinks do alike, beside what every member of a group does: tell how far they are?

A sink outlives its store: one that is away is waited for (runtime/group_member.py).
"""

import threading
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping

from runtime.group_member import GroupMember
from runtime.kafka_reader import KafkaReader
from runtime.metrics import counter, histogram
from runtime.settings import Settings
from runtime.signs import STORE, signs_of
from runtime.stalls import Place, Standing


class GroupSink(GroupMember):
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
        group = f"{settings.kafka.topic_prefix}{name}"
        reader = KafkaReader(settings, topic, group, member=member, on_lost=self._forget)
        super().__init__(reader, stop, sink=name)

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

    def _measure(self, rows: Mapping[str, int], began_s: float) -> None:
        """Show a batch that is written: its rows by table. The watchdog shows the lag."""
        for table, count in rows.items():
            counter("headwater_sink_rows_total").labels(self._name, table).inc(count)
        took_s = time.monotonic() - began_s
        histogram("headwater_sink_batch_seconds").labels(self._name).observe(took_s)
