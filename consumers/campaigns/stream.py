"""How do many people watch the counters move without each asking ClickHouse?

One poller asks how far the sink is, a few times a second and only while somebody watches; what it
reads then goes to everybody. Who is slow skips to the newest state: nothing queues up.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from consumers.campaigns.counts import Progress
from runtime.logs import get_logger
from schemas.errors import StreamError

POLL_EVERY_S = 0.25
READ_AGAIN_AFTER_S = 15.0
"""Erasure changes counters without moving the sink."""
HEARTBEAT_S = 10.0
_HEARTBEAT = b": still here\n\n"
_STALE = (
    b'event: stale\ndata: {"detail": "The counters cannot be read now; the last ones stand"}\n\n'
)


class LiveCounters:
    """The newest counters as server-sent events. `read` gives the JSON of the answer."""

    def __init__(
        self,
        progress: Callable[[], Awaitable[Progress]],
        read: Callable[[Progress], Awaitable[bytes]],
    ) -> None:
        self._progress = progress
        self._read = read
        self._listeners = 0
        self._wanted = asyncio.Event()
        self._news = asyncio.Event()
        self._number = 0
        self._frame = b""
        self._is_first = False
        self._is_closing = False
        self._poller: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Poll from now on, while there are listeners."""
        self._poller = asyncio.create_task(self._poll(), name="live-counters")

    def end_streams(self) -> None:
        """Every listener's stream ends now, and a new one at once: the server is about to stop."""
        self._is_closing = True
        self._news.set()

    async def stop(self) -> None:
        """Nothing is polled any more."""
        self.end_streams()
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)

    async def listen(self) -> AsyncIterator[bytes]:
        """Frames for one listener: the newest at once, then each change, and signs of life."""
        seen = 0
        if not self._listeners:
            # The last frame is of the time when somebody watched: this one waits for a new one.
            seen, self._is_first = self._number, True
        self._listeners += 1
        self._wanted.set()
        try:
            while not self._is_closing:
                news = self._news
                if self._number != seen:
                    seen = self._number
                    yield self._frame
                    continue
                try:
                    await asyncio.wait_for(news.wait(), HEARTBEAT_S)
                except TimeoutError:
                    yield _HEARTBEAT
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._wanted.clear()

    async def _poll(self) -> None:
        told: bytes | None = None
        read_at: Progress | None = None
        read_at_s = 0.0
        while True:
            await self._wanted.wait()
            if self._is_first:
                self._is_first = False
                told = read_at = None
            try:
                progress = await self._progress()
                if progress != read_at or time.monotonic() - read_at_s > READ_AGAIN_AFTER_S:
                    answer = await self._read(progress)
                    read_at, read_at_s = progress, time.monotonic()
                    told = self._tell(b"event: counters\ndata: " + answer + b"\n\n", told)
            except StreamError as fault:
                if told != _STALE:
                    get_logger().warning("counters_not_read", fault=str(fault))
                told = self._tell(_STALE, told)
                read_at = None
            await asyncio.sleep(POLL_EVERY_S)

    def _tell(self, frame: bytes, told: bytes | None) -> bytes:
        if frame != told:
            self._number += 1
            self._frame = b"id: %d\n" % self._number + frame
            news, self._news = self._news, asyncio.Event()
            news.set()
        return frame
