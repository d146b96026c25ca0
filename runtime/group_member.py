"""What does everybody do alike who shares a topic's partitions with others and works them off?

Step until stopped, say once when the partitions are ours and their positions known, and wait in
place for a store that is away: a member that left for it would lose its partitions to others that
cannot reach the store either.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

from runtime.kafka_reader import KafkaReader
from runtime.logs import get_logger
from runtime.retry import Stopped, retry_in_place

T = TypeVar("T")


class GroupMember(ABC):
    """One process's part of a group; `named` says in the log who it is."""

    def __init__(self, reader: KafkaReader, stop: threading.Event, **named: str) -> None:
        self._reader = reader
        self._stop = stop
        self._named = named

    @abstractmethod
    def step(self) -> None:
        """Start new partitions, or work off what has come."""

    def _finish(self) -> None:  # noqa: B027  not everybody has something left to do
        """The last work, after the last step."""

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Step until `stop` is set, then finish the batch in hand.

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
            get_logger().info("stopped_while_waiting", **self._named)

    def close(self) -> None:
        """Leave the group."""
        self._reader.close()

    def _retry(self, action: Callable[[], T], doing: str) -> T:
        return retry_in_place(
            action, what=doing, wait=self._reader.keep_alive, stopped=self._stop.is_set
        )


def offset_in(position: str, generation: int) -> int | None:
    """The offset of a stored "generation:offset"; None of another generation's, and of ""."""
    of, _, offset = position.partition(":")
    return int(offset) if of == str(generation) else None
