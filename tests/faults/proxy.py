"""How does a test cut, slow or spoil the connection between two parts that do not know of it?

A TCP proxy on loopback whose behaviour is switched while it runs. The way to the server and the way
back are switched apart, because the costly faults are one-sided: a request that was applied and
whose answer never came, or an answer that comes long after its caller has given up. What is held is
kept and goes on when the cut is healed, as TCP would bring it after a real one; what is lost is
lost with its connection, for no stream continues after a hole.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Self, TypeVar

T = TypeVar("T")

CHUNK = 262_144
CHUNKS_UNDER_WAY = 512
Way = Literal["to server", "to client"]
WAYS: tuple[Way, Way] = ("to server", "to client")
Request = Callable[[bytes], bool]
"""Tells from bytes that a client sent whether they begin the request that is meant."""


def anything(_: bytes) -> bool:
    """Every request."""
    return True


def containing(*words: bytes) -> Request:
    """Requests whose first bytes hold one of `words`: a method and path, a statement, a command."""
    return lambda data: any(word in data for word in words)


def kafka_request(*api_keys: int) -> Request:
    """Requests of Kafka's protocol with one of these keys (0 Produce, 8 OffsetCommit, 22
    InitProducerId, 26 EndTxn): each is four bytes of length, two of key, and the rest.
    """

    def is_meant(data: bytes) -> bool:
        at = 0
        while at + 6 <= len(data):
            length, key = struct.unpack_from(">ih", data, at)
            if key in api_keys or length < 2:
                return key in api_keys and length >= 2
            at += 4 + length
        return False

    return is_meant


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    is_doomed: bool = False  # its answers are lost from now on
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)


class Proxy:
    """Listens on `address` and passes to `upstream`, until told otherwise; start it or use `with`.

    Every method may be called from any thread and takes effect at once, also on connections that
    are open. `heal` ends all faults.
    """

    def __init__(
        self, upstream: tuple[str, int], *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.upstream = upstream
        self.host, self.port = host, port
        self.connections = 0
        """How many are open."""
        self.lost_answers = 0
        """Requests that reached the server and whose answer was swallowed, so far."""
        self._open: set[_Connection] = set()
        self._is_held: dict[Way, bool] = dict.fromkeys(WAYS, False)
        self._delay_s: dict[Way, float] = dict.fromkeys(WAYS, 0.0)
        self._is_refusing = False
        self._loses: Request = anything
        self._losses_left = 0
        self._lose_linger_s = 0.2
        self._watching: tuple[Request, threading.Event] | None = None
        self._loop = asyncio.new_event_loop()
        self._changed: asyncio.Event
        self._server: asyncio.Server
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    @property
    def address(self) -> str:
        """host:port for clients."""
        return f"{self.host}:{self.port}"

    def start(self) -> Self:
        """Listening; `port` is known."""
        self._thread.start()
        self._run(self._listen())
        return self

    def stop(self) -> None:
        """Nothing of it is left; every connection was reset."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- faults

    def heal(self) -> None:
        """Everything passes again; what was held or delayed goes on now."""

        def change() -> None:
            self._is_held = dict.fromkeys(WAYS, False)
            self._delay_s = dict.fromkeys(WAYS, 0.0)
            self._is_refusing = False
            self._losses_left = 0

        self._change(change)

    def cut(self, *ways: Way) -> None:
        """Nothing passes on these ways (on both without one), and nobody is told."""
        self._change(lambda: self._is_held.update(dict.fromkeys(ways or WAYS, True)))

    def delay(self, seconds: float, *ways: Way) -> None:
        """Every piece arrives so much later, in order, on these ways (on both without one)."""
        self._change(lambda: self._delay_s.update(dict.fromkeys(ways or WAYS, seconds)))

    def refuse(self) -> None:
        """Open connections are reset, and new ones as soon as they are made."""

        def change() -> None:
            self._is_refusing = True
            self._reset(self._open)

        self._change(change)

    def reset(self) -> None:
        """Open connections are reset; new ones pass."""
        self._change(lambda: self._reset(self._open))

    def lose_answers(
        self, request: Request = anything, *, times: int = 1_000_000, linger_s: float = 0.2
    ) -> None:
        """The next `times` matching requests reach the server, but their answers are swallowed.

        Each connection is reset `linger_s` after the first byte that was.
        """

        def change() -> None:
            self._loses, self._losses_left, self._lose_linger_s = request, times, linger_s

        self._change(change)

    def watch(self, request: Request) -> threading.Event:
        """An event that is set when the next matching request is on its way to the server."""
        seen = threading.Event()

        def change() -> None:
            self._watching = (request, seen)

        self._change(change)
        return seen

    # -- in the loop

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def _change(self, change: Callable[[], None]) -> None:
        async def apply() -> None:
            change()
            self._changed.set()
            self._changed = asyncio.Event()

        self._run(apply())

    async def _listen(self) -> None:
        self._changed = asyncio.Event()
        self._server = await asyncio.start_server(self._accept, self.host, self.port, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        tasks = [task for connection in self._open for task in connection.tasks]
        self._reset(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _reset(self, connections: Iterable[_Connection]) -> None:
        for connection in list(connections):
            for writer in (connection.client, connection.server):
                _abort(writer)

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        if self._is_refusing:
            _abort(client)
            return
        try:
            answers, server = await asyncio.open_connection(*self.upstream, limit=CHUNK)
        except OSError:
            _abort(client)
            return
        connection = _Connection(client, server)
        self._open.add(connection)
        self.connections = len(self._open)
        connection.tasks = [
            asyncio.create_task(self._pass(connection, reader, server, "to server")),
            asyncio.create_task(self._pass(connection, answers, client, "to client")),
        ]
        # One that ended with a fault takes the other with it; a half that was closed does not.
        await asyncio.wait(connection.tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in connection.tasks:
            task.cancel()
        await asyncio.gather(*connection.tasks, return_exceptions=True)
        for writer in (client, server):
            writer.close()
        self._open.discard(connection)
        self.connections = len(self._open)

    async def _pass(
        self,
        connection: _Connection,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        way: Way,
    ) -> None:
        """Carry one way until its source ends. Two tasks: what is delayed must not hold up reading."""
        line: deque[tuple[float, bytes | None]] = deque()
        arrived, room = asyncio.Event(), asyncio.Event()

        async def read() -> None:
            data: bytes | None = b"first"
            while data:
                try:
                    data = await source.read(CHUNK)
                except OSError:
                    data = None
                line.append((self._loop.time(), data))
                arrived.set()
                while len(line) >= CHUNKS_UNDER_WAY:
                    room.clear()
                    await room.wait()

        reading = asyncio.create_task(read())
        try:
            while True:
                while not line:
                    arrived.clear()
                    await arrived.wait()
                at_s, data = line.popleft()
                room.set()
                await self._until_free(way, at_s)
                if data is None:
                    raise ConnectionResetError
                if not data:
                    with contextlib.suppress(OSError):
                        sink.write_eof()
                    return
                if self._is_lost(connection, way, data):
                    # From here on the stream has a hole: nothing more of it may pass.
                    self._loop.call_later(self._lose_linger_s, self._reset, [connection])
                    return
                sink.write(data)
                await sink.drain()
        finally:
            reading.cancel()

    async def _until_free(self, way: Way, arrived_at_s: float) -> None:
        """Wait as long as this way is cut, or the piece's delay is not over."""
        while True:
            left_s = arrived_at_s + self._delay_s[way] - self._loop.time()
            if not self._is_held[way] and left_s <= 0:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), None if self._is_held[way] else left_s)

    def _is_lost(self, connection: _Connection, way: Way, data: bytes) -> bool:
        if way == "to server":
            if self._watching is not None and self._watching[0](data):
                self._watching[1].set()
            if self._losses_left > 0 and self._loses(data):
                connection.is_doomed = True
            return False
        if not connection.is_doomed or self._losses_left <= 0:
            return False
        self._losses_left -= 1
        self.lost_answers += 1
        return True


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close with a reset instead of an end."""
    found = writer.get_extra_info("socket")
    if found is not None:
        with contextlib.suppress(OSError):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
