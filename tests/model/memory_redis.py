"""What does a Redis do, as far as profiles rely on it?

Our two scripts in Python, and as much of redis-py as sinks/profile_store.py uses.
tests/contracts/test_memory_stores.py holds the scripts equal to those that a real server runs.
"""

import random
from collections.abc import Callable
from typing import Any

from redis import exceptions as faults

from sinks import profile_store
from tests.model.faulty import Connection, Server, Write


class MemoryRedis(Server):
    """Hashes and strings by key; values are bytes."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(chance)
        self.forgets = True
        self.clear()

    def clear(self) -> None:
        self.hashes: dict[str, dict[str, bytes]] = {}
        self.strings: dict[str, bytes] = {}
        self.sets: dict[str, set[str]] = {}

    def set_if_newer(self, keys: list[str], args: list[Any]) -> int:
        """As the script of that name."""
        at = self.hashes.get(keys[0])
        version = (int(args[0]), int(args[1]))
        if at is not None and (int(at["g"]), int(at["v"])) >= version:
            return 0
        pid, before = args[4], args[5]
        ids = str(args[3]) if args[2] else ""
        for id_ in ({} if at is None else at).get("s", b"").decode().split():
            self.sets[before + id_].discard(pid)
        for id_ in ids.split():
            self.sets.setdefault(before + id_, set()).add(pid)
        told = {"g": str(args[0]).encode(), "v": str(args[1]).encode()}
        self.hashes[keys[0]] = told | ({"p": args[2]} if args[2] else {"d": b"1"})
        if args[2] and ids:
            self.hashes[keys[0]]["s"] = ids.encode()
        return 1 if args[2] else 2

    def move_cursor(self, keys: list[str], args: list[bytes]) -> int:
        """As the script of that name."""
        if self.strings.get(keys[0], b"") not in args[:2]:
            return 0
        self.strings[keys[0]] = args[1]
        if args[2]:
            self.strings[keys[1]] = args[2]
        return 1


class MemoryPipeline:
    """redis.Pipeline without a transaction: commands of one connection, in order."""

    def __init__(self, client: "MemoryClient") -> None:
        self._client = client
        self._commands: list[tuple[Callable[[], int], bool]] = []

    def add(self, command: Callable[[], int], *, is_last: bool) -> None:
        self._commands.append((command, is_last))

    def execute(self) -> list[int]:
        answers: list[int] = []
        commands, self._commands = self._commands, []
        writes: list[Write] = [
            lambda command=command: answers.append(command())  # type: ignore[misc]
            for command, _ in commands
        ]
        self._client.connection.write(writes, is_last=any(is_last for _, is_last in commands))
        # A sleeper is told what it hopes for: it will not be there to see that it was not so.
        return answers if len(answers) == len(commands) else [1] * len(commands)


class MemoryClient:
    """redis.Redis of one process."""

    def __init__(self, server: MemoryRedis, **options: Any) -> None:
        self._server = server
        connected = options.get("redis_connect_func", lambda _: None)
        self.connection = Connection(server, self._fault, lambda: connected(self))
        self._scripts = {
            profile_store._SET_IF_NEWER: server.set_if_newer,
            profile_store._MOVE_CURSOR: server.move_cursor,
        }

    def on_connect(self) -> None:
        """What a real connection does first."""

    def register_script(self, script: str) -> Callable[..., None]:
        run = self._scripts[script]

        def call(keys: list[str], args: list[Any], client: MemoryPipeline) -> None:
            is_last = script == profile_store._MOVE_CURSOR and b"+" not in args[1]
            client.add(lambda: run(keys, args), is_last=is_last)

        return call

    def pipeline(self, *, transaction: bool) -> MemoryPipeline:
        return MemoryPipeline(self)

    def mget(self, keys: list[str]) -> list[bytes | None]:
        return self.connection.ask(lambda: [self._server.strings.get(key) for key in keys])

    def waitaof(self, _local: int, _replicas: int, _within_ms: int) -> tuple[int, int]:
        is_synced = self._server.is_calm or self._server.chance.random() < 0.9
        return self.connection.ask(lambda: (int(is_synced), 0))

    def close(self) -> None:
        """Nothing is left open."""

    def _fault(self) -> BaseException:
        kind = self._server.chance.choice(
            (faults.ConnectionError, faults.TimeoutError, faults.OutOfMemoryError)
        )
        return kind("in memory")
