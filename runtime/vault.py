"""How does a producer get from identifiers to people, and an officer from people to identifiers?

Producers resolve every identifier to a random pid and seal with that person's key before anything
enters the log (runtime/vault_rows.py has the rows, runtime/sealing.py the keys). Nobody without
this store can go from a pid to a person. A pid that reached the log and was then lost here would
make its events unreadable for ever: so a new row is on disk (WAITAOF) before its pid is used, and a
vault that is known by its mark refuses when it has lost rows instead of making them anew.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Generic, Self, TypeVar

import redis
import redis.asyncio
from redis.exceptions import NoScriptError

from runtime.sealing import IdType, KeyRing, Person, secrets_of
from runtime.settings import Settings
from runtime.vault_client import async_vault_client, vault_client
from runtime.vault_faults import LOST, faults
from runtime.vault_rows import (
    BEGIN,
    MEMORY,
    PID_ROWS,
    RESOLVE,
    RESOLVE_SHA,
    SUPPRESS,
    Answers,
    Batch,
    Erased,
    Identifier,
    Resolved,
    Suppressed,
    canonical,
    identified,
    require_durable,
    require_kept,
)
from schemas.errors import StoreRefused

__all__ = ["AsyncVault", "Erased", "Identifier", "Person", "Resolved", "Suppressed", "Vault"]

# Below ANSWER_WITHIN_S, so that a slow disk is heard of instead of guessed.
_WAITAOF = ("WAITAOF", 1, 0, 4000)
C = TypeVar("C")
SignUps = Mapping[Identifier, int]
NOBODY: SignUps = MappingProxyType({})


class _EitherVault(ABC, Generic[C]):
    """What a vault is over a client of either kind: whatever needs no answer of the server.

    Every method raises StoreUnavailable while the server does not answer or takes no writes, and
    StoreRefused when it says no. `is_durable` of False gives up the promise on power cuts.
    """

    def __init__(
        self,
        client: C | str,
        key_prefix: str,
        kek: bytes,
        pepper: bytes,
        *,
        is_durable: bool = True,
    ) -> None:
        self._client = self._connect(client) if isinstance(client, str) else client
        self._prefix = key_prefix
        self._ring = KeyRing(kek, pepper)
        self._is_durable = is_durable
        self._mark = b""
        self._made = 0  # rows of this vault that were seen on disk

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The vault of `[vault]`. Raises SettingInvalid when a key file is missing or wrong."""
        kek, pepper = secrets_of(settings)
        chosen = settings.vault
        return cls(
            settings.vault_url, chosen.key_prefix, kek, pepper, is_durable=chosen.durable_writes
        )

    @staticmethod
    @abstractmethod
    def _connect(url: str) -> C:
        """A client of the server at `url`, connected when first used."""

    @property
    def is_known(self) -> bool:
        """True once a vault that has lost rows, or another, would be refused."""
        return bool(self._mark)

    def erasure_id_of(self, pid: bytes) -> bytes:
        """The id of the erasure of `pid`: a pid is erased once, so asking twice is asking once."""
        return self._ring.erasure_id_of(pid)

    def hash_of(self, id_type: IdType, external_id: str) -> str:
        """The keyed hash by which the identifier is known here, in hex."""
        return self._ring.hash_of(*canonical(id_type, external_id))

    def _batch(self, identifiers: Sequence[Identifier], signed_up: SignUps = NOBODY) -> Batch:
        return Batch(self._ring, self._prefix, identifiers, self._mark, self._made, signed_up)

    def _note_create(self, batch: Batch, answers: Answers) -> None:
        made = batch.note_create(answers)
        if self._is_durable:
            self._made = max(self._made, made)

    def _queue_write(self, script: str, args: Sequence[str | bytes]) -> Any:
        """A pipeline whose answers `_written` understands."""
        client: Any = self._client
        pipe = client.pipeline(transaction=False)
        pipe.eval(script, 0, *args)
        if self._is_durable:
            # In one pipeline, hence on one connection: WAITAOF waits for its own connection's
            # writes.
            pipe.execute_command(*_WAITAOF)
        return pipe

    def _written(self, answers: Sequence[Any]) -> Any:
        """The script's answer, once what it wrote is as durable as promised."""
        if self._is_durable:
            require_durable(answers[1])
        return answers[0]


class Vault(_EitherVault["redis.Redis"]):
    """The vault over a blocking client; safe to share between threads."""

    @staticmethod
    def _connect(url: str) -> "redis.Redis":
        return vault_client(url)

    def check(self) -> None:
        """Raise StoreRefused unless this server promises that a write is on disk, and is kept."""
        run: Callable[..., Any] = self._client.execute_command
        with faults():
            require_kept(run(*MEMORY))
            if self._is_durable:
                require_durable(run(*_WAITAOF))

    def resolve(
        self,
        identifiers: Sequence[Identifier],
        signed_up_at_ms: SignUps = NOBODY,
        heard_at_ms: Callable[[], SignUps] = dict,
    ) -> list[Resolved]:
        """The person behind each identifier, in order: a Person, made and durable where new, or
        Suppressed.

        One who was erased is made anew, as somebody else, only if `signed_up_at_ms` says that
        somebody signed up as that identifier after the erasure; one who was idle, also if
        `heard_at_ms`, asked only then, says that anything of theirs happened after it.
        """
        batch = self._batch(identifiers, signed_up_at_ms)
        with faults():
            if batch.note_look_up(self._look_up(batch), heard_at_ms):
                self._note_create(batch, self._write(RESOLVE, batch.create()))
        return batch.resolved

    def lookup(self, id_type: IdType, external_id: str) -> Person | None:
        """The person behind an identifier; None when unknown or erased. Creates nothing."""
        found = self.find(id_type, external_id)
        return found if isinstance(found, Person) else None

    def find(self, id_type: IdType, external_id: str) -> Resolved | None:
        """As `lookup`, but tells erased from unknown."""
        batch = self._batch([(id_type, external_id)])
        with faults():
            batch.note_look_up(self._look_up(batch))
        return batch.found[0]

    def identifiers_of(self, pids: Sequence[bytes]) -> list[tuple[Person, str, str] | None]:
        """For each pid: the person, and type and value of the identifier that the row was made for.

        None where the row is gone. An e-mail address comes back in lower case.
        """
        with faults():
            pipe = self._client.pipeline(transaction=False)
            for pid in pids:
                pipe.hmget(f"{self._prefix}key:{pid.hex()}", ["k", "i"])
            rows = pipe.execute()
        return [identified(self._ring, pid, row) for pid, row in zip(pids, rows, strict=True)]

    def suppress(self, id_type: IdType, external_id: str, erased_at_ms: int) -> bytes | None:
        """The identifier is suppressed from now on, and its row and data key are gone, durably.

        Gives the pid that was behind it. Repeating it changes only the time.
        """
        (pid,) = self._suppress([(self.hash_of(id_type, external_id), erased_at_ms, "", "", 0)])
        return bytes.fromhex(pid.decode()) if pid else None

    def suppress_erased(self, erased: Sequence[Erased]) -> None:
        """Each is suppressed, and its row and data key are gone, durably; repeatable at any time.

        The erasure is found by the identifier from now on. Whoever signed up as the same identifier
        since is somebody else, and stays.
        """
        if erased:
            self._suppress(
                [
                    (e.subject, e.erased_at_ms, e.erasure_id.hex(), e.pid.hex(), int(e.is_idle))
                    for e in erased
                ]
            )

    def remains_of(self, erased: Sequence[Erased]) -> list[int]:
        """Of each: how many rows it still has, and one more if it is not suppressed.

        Of an unknown subject ("") only the pid's own row can be looked for.
        """
        with faults():
            pipe = self._client.pipeline(transaction=False)
            for each in erased:
                pid = each.pid.hex()
                pipe.exists(*(f"{self._prefix}{kind}:{pid}" for kind in PID_ROWS))
                pipe.get(f"{self._prefix}id:{each.subject}")
                pipe.exists(f"{self._prefix}suppressed:{each.subject}")
            answers = iter(pipe.execute())
        return [
            next(answers)
            + (next(answers) == each.pid.hex().encode())
            + (not next(answers) and each.subject != "")
            for each in erased
        ]

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def _look_up(self, batch: Batch) -> Answers:
        args = batch.look_up()
        run: Callable[..., Any] = self._client.evalsha
        try:
            answers: Answers = run(RESOLVE_SHA, 0, *args)
        except NoScriptError:
            run = self._client.eval
            answers = run(RESOLVE, 0, *args)
        return answers

    def _write(self, script: str, args: Sequence[str | bytes]) -> Any:
        return self._written(self._queue_write(script, args).execute())

    def _suppress(self, rows: Sequence[tuple[str, int, str, str, int]]) -> list[bytes | None]:
        """The pids that were behind rows of (hash, erased at ms, erasure, pid, 1 if idle), once
        durable."""
        with faults():
            client: Any = self._client
            pipe = client.pipeline(transaction=False)
            for row in rows:
                pipe.eval(SUPPRESS, 0, self._prefix, *map(str, row))
            if self._is_durable:
                pipe.execute_command(*_WAITAOF)
            answers = pipe.execute()
            if self._is_durable:
                require_durable(answers[-1])
        return list(answers[: len(rows)])


class AsyncVault(_EitherVault["redis.asyncio.Redis"]):
    """The vault for an event loop; methods as in Vault. Belongs to the loop that first uses it."""

    @staticmethod
    def _connect(url: str) -> "redis.asyncio.Redis":
        return async_vault_client(url)

    async def check(self) -> None:
        """As in Vault; and the vault is known afterwards if it has a mark. Raises StoreRefused if
        it has no more the one that it was known by."""
        run: Callable[..., Awaitable[Any]] = self._client.execute_command
        with faults():
            require_kept(await run(*MEMORY))
            mark = await run("HGET", self._prefix + "mark", "id")
            if self._is_durable:
                require_durable(await run(*_WAITAOF))
        if self._mark and mark != self._mark:
            raise StoreRefused(LOST)
        self._mark = mark or b""

    async def has_people(self) -> bool:
        """True if it has the row of anybody, made before there were marks."""
        with faults():
            async for _ in self._client.scan_iter(match=f"{self._prefix}key:*", count=1000):
                return True
        return False

    async def begin(self) -> None:
        """It has a mark, and is known by it."""
        with faults():
            await self._write(BEGIN, [self._prefix, os.urandom(16).hex()])
        await self.check()

    async def resolve(
        self,
        identifiers: Sequence[Identifier],
        signed_up_at_ms: SignUps = NOBODY,
        heard_at_ms: Callable[[], SignUps] = dict,
    ) -> list[Resolved]:
        """As in Vault."""
        batch = self._batch(identifiers, signed_up_at_ms)
        with faults():
            if batch.note_look_up(await self._look_up(batch), heard_at_ms):
                self._note_create(batch, await self._write(RESOLVE, batch.create()))
        return batch.resolved

    async def lookup(self, id_type: IdType, external_id: str) -> Person | None:
        """As in Vault."""
        batch = self._batch([(id_type, external_id)])
        with faults():
            batch.note_look_up(await self._look_up(batch))
        found = batch.found[0]
        return found if isinstance(found, Person) else None

    async def has_person(self, pid: bytes) -> bool:
        """True unless the person was erased, or never was."""
        run: Callable[..., Awaitable[Any]] = self._client.exists
        with faults():
            return bool(await run(f"{self._prefix}key:{pid.hex()}"))

    async def close(self) -> None:
        """As in Vault."""
        await self._client.aclose()

    async def _look_up(self, batch: Batch) -> Answers:
        args = batch.look_up()
        run: Callable[..., Awaitable[Any]] = self._client.evalsha
        try:
            answers: Answers = await run(RESOLVE_SHA, 0, *args)
        except NoScriptError:
            run = self._client.eval
            answers = await run(RESOLVE, 0, *args)
        return answers

    async def _write(self, script: str, args: Sequence[str | bytes]) -> Any:
        return self._written(await self._queue_write(script, args).execute())
