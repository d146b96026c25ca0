"""How do many who wait for the disk, each for a small write of their own, wait for few large ones?

While one write is under way the next pieces gather, and go together once it is over: so nobody
waits for more than two writes, as long as all that waits fits one (group commit).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Gathering(Generic[T]):
    """Hands pieces to `write`, at most `most` a call, one call after the other.

    For one event loop.
    """

    def __init__(
        self, write: Callable[[list[T]], Awaitable[None]], most: int | None = None
    ) -> None:
        self._write = write
        self._most = most
        self._waiting: list[tuple[T, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def add(self, piece: T) -> None:
        """`write` has returned from a call with this piece; raises what that call raised."""
        written = asyncio.get_running_loop().create_future()
        self._waiting.append((piece, written))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all())
        await written

    async def _write_all(self) -> None:
        while self._waiting:
            batch = self._waiting[: self._most]
            del self._waiting[: len(batch)]
            fault: Exception | None = None
            try:
                await self._write([piece for piece, _ in batch])
            except Exception as error:  # whatever it is: nobody may wait for ever, or go on
                fault = error
            for _, written in batch:
                if written.done():
                    continue  # whoever asked has gone
                if fault is None:
                    written.set_result(None)
                else:
                    written.set_exception(fault)
        self._writer = None
