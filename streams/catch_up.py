"""What must a lane know before it applies an event?

Every decision and erasure that was on the log when the event was fetched: somebody who was told
that their withdrawal is in force must not be counted by an event that they send afterwards. So
before a batch of events the lane asks where its partitions of those topics end, and applies what it
lacks, reading it itself. The answer holds for every batch that was fetched before the question: of
batches that wait, one in a while pays for it, a request to the broker.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from runtime.changes import ChangeReader
from runtime.logs import get_logger
from schemas.errors import StoreUnavailable

ASK_AGAIN_S = 0.5

T = TypeVar("T")
Work = Callable[[], T]


class CatchUp:
    """Which batches of one lane may be applied; `next_offsets` are the lane's positions."""

    def __init__(self, reader: ChangeReader, next_offsets: dict[str, int]) -> None:
        self._reader = reader
        self._next_offsets = next_offsets
        self._fetched = 0
        self._covered = 0

    def number(self) -> int:
        """The number of a batch that has just been fetched; they rise."""
        self._fetched += 1
        return self._fetched

    async def before(
        self,
        number: int,
        *,
        in_thread: Callable[[Work[Any]], Awaitable[Any]],
        apply: Callable[[str, Sequence[Any], int], Awaitable[bool]],
        on_wait: Callable[[], Awaitable[None]],
        is_closing: Callable[[], bool],
    ) -> None:
        """All that was on the log when batch `number` was fetched is applied, unless it closes.

        `on_wait` is called before each pause while the broker does not answer.
        """
        while number > self._covered and not is_closing():
            covered = self._fetched
            try:
                ends: dict[str, int] = await in_thread(self._reader.ends)
                for topic, end in ends.items():
                    while self._next_offsets[topic] < end and not is_closing():
                        begin = self._next_offsets[topic]
                        changes, to = await in_thread(
                            lambda topic=topic, begin=begin, end=end: self._reader.read(  # type: ignore[misc]
                                topic, begin, end
                            )
                        )
                        if is_closing() or not await apply(topic, changes, to):
                            return
            except StoreUnavailable as error:
                get_logger().warning("decisions cannot be asked for", why=str(error))
                await on_wait()
                await asyncio.sleep(ASK_AGAIN_S)
            else:
                self._covered = covered

    def close(self) -> None:
        """Ask no more."""
        self._reader.close()
