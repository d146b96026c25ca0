"""Where is every message, so that a crash neither loses one nor sends it twice?

On the vault's server, under its promise of durability: a state is on disk before anything is done
because of it. The position in a topic moves in the same step, after the messages that it stands
for, so what is read again after a crash finds its messages there already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

from consumers.messages.rows import decided_in, message_in, message_of, row_of, scheduled, to_json
from consumers.messages.scripts import BEGIN, CLAIM, FORGET, MOVE, SCHEDULE, TOLD
from consumers.rules.messages import Decided, History, Message, State
from consumers.rules.sending import Window
from runtime.settings import Settings
from runtime.vault_client import vault_client
from runtime.vault_faults import faults
from runtime.vault_rows import require_durable
from schemas.topics import DAY_MS

CLAIMED_FOR_MS = 60_000
"""A message that was claimed for so long has no one who works on it any more."""
SENDING_FOR_MS = 300_000
"""The same of one that is being sent: longer than all steps of a channel may take together."""
OUTBOX_FOR_MS = DAY_MS
_WAITAOF = ("WAITAOF", 1, 0, 4000)

Begun = tuple[Literal["sending", "lost", "day", "week"], int]
Put = tuple[Message, int]
"""A message, and when to look at it first."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message that is ours. `was_interrupted` is of one that was given up, and is over."""

    message: Message
    was_interrupted: bool


class MessageStore:
    """Messages and their decisions. Safe to share between threads.

    Methods raise StoreUnavailable or StoreRefused as the vault does, and may be called again.
    """

    def __init__(self, url: str, prefix: str, *, is_durable: bool, keep_ms: int) -> None:
        self._prefix = prefix
        self._is_durable = is_durable
        self._keep_ms = keep_ms
        self._client = vault_client(url)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The store of `[sending]`, beside the vault."""
        return cls(
            settings.vault_url,
            settings.sending.key_prefix,
            is_durable=settings.vault.durable_writes,
            keep_ms=settings.sending.keep_days * DAY_MS,
        )

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    # -- the way of a message

    def schedule(self, put: Sequence[Put], now_ms: int, positions: Mapping[str, str]) -> int:
        """Each is there, once, and then the positions are moved; how many are new."""
        calls = [
            (SCHEDULE, [m.id, now_ms, self._keep_ms, wake_ms, scheduled(m, now_ms), *row_of(m)])
            for m, wake_ms in put
        ]
        return sum(map(int, self._run(calls, positions)))

    def claim(self, owner: str, now_ms: int, most: int) -> list[Claimed]:
        """Messages that are due, or were left behind: the owner's for CLAIMED_FOR_MS."""
        values = {"was": "sending for longer than that takes; it may have arrived"}
        interrupted = to_json(Decided(now_ms, "failed", "interrupted", values))
        lease_ms = now_ms + CLAIMED_FOR_MS
        args = [now_ms, most, owner, lease_ms, interrupted, self._keep_ms]
        (found,) = self._run([(CLAIM, args)])
        return [Claimed(message_in(id_.decode(), row), bool(over)) for id_, over, row in found]

    def begin(
        self,
        message: Message,
        owner: str,
        now_ms: int,
        caps: tuple[Window, int, int] | None,
        pids: Sequence[bytes] = (),
    ) -> Begun:
        """It is `sending`, and counts against the limits of the person; or is one too many, with
        how many went, or not ours any more.

        `caps` are the window and how many a day and a week; `pids` whose messages count.
        """
        window, most_a_day, most_a_week = caps if caps else (Window(0, 0), 0, 0)
        args = [
            message.id,
            owner,
            now_ms,
            now_ms + SENDING_FOR_MS,
            to_json(Decided(now_ms, "sending")),
            ",".join(pid.hex() for pid in pids or [message.pid]),
            message.channel,
            window.day_ms,
            window.week_ms,
            most_a_day,
            most_a_week,
        ]
        (answer,) = self._run([(BEGIN, args)])
        return cast("Begun", (answer[0].decode(), int(answer[1]) if len(answer) > 1 else 0))

    def move(
        self,
        message: Message,
        owner: str,
        decided: Decided,
        *,
        wake_ms: int | None = None,
        is_unsent: bool = False,
        unreachable: str = "",
    ) -> bool:
        """The decision is in force; False if the message is not ours any more, or gone.

        `is_unsent` takes it out of the limits again; `unreachable` is the mark of an address that
        its channel refuses for good. With `wake_ms` it comes again, also one that is over: there is
        something to be told of it.
        """
        is_over = decided.state in ("sent", "failed", "dropped")
        args = [
            message.id,
            owner,
            "claimed,sending",
            decided.state,
            decided.at_ms,
            "" if wake_ms is None else wake_ms,
            self._keep_ms if is_over else "",
            to_json(decided),
            message.channel if is_unsent else "",
            f"{message.channel}:{unreachable}" if unreachable else "",
        ]
        (done,) = self._run([(MOVE, args)])
        return bool(done)

    def told(self, message: Message, owner: str) -> None:
        """Nothing is left to be told of one that is over."""
        self._run([(TOLD, [message.id, owner, self._keep_ms])])

    def next_wake_ms(self) -> int | None:
        """When the next message is to be looked at; None without any."""
        with faults():
            found = self._client.zrange(f"{self._prefix}wake", 0, 0, withscores=True)
        return int(cast("Any", found)[0][1]) if found else None

    # -- looking up

    def of_person(self, pids: Sequence[bytes]) -> list[History]:
        """Every message of these pids, newest first."""
        with faults():
            pipe = self._client.pipeline(transaction=False)
            for pid in pids:
                pipe.zrevrange(f"{self._prefix}person:{pid.hex()}", 0, -1)
            ids = [id_.decode() for found in pipe.execute() for id_ in found]
        return self._read(ids)

    def newest(self, states: Sequence[State], limit: int) -> list[History]:
        """The newest messages in these states, by when they got there."""
        with faults():
            pipe = self._client.pipeline(transaction=False)
            for state in states:
                key = f"{self._prefix}state:{state}"
                pipe.zrevrange(key, 0, limit - 1, withscores=True)
            found = [pair for pairs in pipe.execute() for pair in pairs]
        found.sort(key=lambda pair: -pair[1])
        return self._read([id_.decode() for id_, _ in found[:limit]])

    def is_undeliverable(self, pids: Sequence[bytes], channel: str, mark: str) -> bool:
        """The channel said of that address, of one of these pids, that nobody is there."""
        with faults():
            pipe = self._client.pipeline(transaction=False)
            for pid in pids:
                pipe.hexists(f"{self._prefix}undeliverable:{pid.hex()}", f"{channel}:{mark}")
            return any(pipe.execute())

    def positions(self, topic: str, partitions: Sequence[int]) -> dict[int, str]:
        """Of each partition what was stored as its position; "" for none."""
        if not partitions:
            return {}
        with faults():
            names = [f"{topic}:{p}" for p in partitions]
            row = cast("Any", self._client.hmget(f"{self._prefix}positions", names))
        return {
            p: value.decode() if value else "" for p, value in zip(partitions, row, strict=True)
        }

    # -- the outbox

    def put_out(self, message: Message, sealed: bytes, now_ms: int) -> None:
        """The message as it would go is in the outbox, for a day."""
        with faults():
            pipe = self._client.pipeline(transaction=True)
            key = f"{self._prefix}outbox:{message.id}"
            pipe.hset(key, mapping={"pid": message.pid.hex(), "mail": sealed})
            pipe.pexpire(key, OUTBOX_FOR_MS)
            pipe.zadd(f"{self._prefix}outbox", {message.id: now_ms})
            pipe.zremrangebyscore(f"{self._prefix}outbox", "-inf", now_ms - OUTBOX_FOR_MS)
            pipe.execute()

    def put_out_newest(self, limit: int) -> list[tuple[str, int, bytes, bytes]]:
        """(id, when, pid, sealed) of the newest in the outbox."""
        with faults():
            key = f"{self._prefix}outbox"
            found = cast("Any", self._client.zrevrange(key, 0, limit - 1, withscores=True))
            pipe = self._client.pipeline(transaction=False)
            for id_, _ in found:
                pipe.hmget(f"{key}:{id_.decode()}", ["pid", "mail"])
            rows = pipe.execute()
        return [
            (id_.decode(), int(at_ms), bytes.fromhex(pid.decode()), sealed)
            for (id_, at_ms), (pid, sealed) in zip(found, rows, strict=True)
            if pid is not None
        ]

    # -- erasure

    def forget(self, pids: Sequence[bytes]) -> None:
        """Nothing of these people is here, and nothing will be sent to them."""
        self._run([(FORGET, [pid.hex()]) for pid in pids])

    def remains_of(self, pids: Sequence[bytes]) -> list[int]:
        """Of each pid how many keys there still are."""
        with faults():
            pipe = self._client.pipeline(transaction=False)
            for pid in pids:
                kinds = ("person", "sent", "undeliverable")
                pipe.exists(*(f"{self._prefix}{kind}:{pid.hex()}" for kind in kinds))
            return [int(n) for n in pipe.execute()]

    def _read(self, ids: Sequence[str]) -> list[History]:
        with faults():
            pipe = self._client.pipeline(transaction=False)
            for id_ in ids:
                pipe.hgetall(f"{self._prefix}message:{id_}")
                pipe.lrange(f"{self._prefix}decisions:{id_}", 0, -1)
            answers = iter(pipe.execute())
        rows = zip(ids, answers, answers, strict=True)
        return [
            History(message_of(id_, row), [decided_in(text) for text in decisions])
            for id_, row, decisions in rows
            if row
        ]

    def _run(
        self, calls: Sequence[tuple[str, Sequence[Any]]], positions: Mapping[str, str] | None = None
    ) -> list[Any]:
        """The answers of the scripts, once what they wrote is as durable as the vault promises."""
        with faults():
            # One connection, hence one order; and WAITAOF waits for its own connection's writes.
            client: Any = self._client
            pipe = client.pipeline(transaction=False)
            for script, args in calls:
                pipe.eval(script, 0, self._prefix, *args)
            if positions:
                pipe.hset(f"{self._prefix}positions", mapping=dict(positions))
            if self._is_durable:
                pipe.execute_command(*_WAITAOF)
            answers = pipe.execute()
            if self._is_durable:
                require_durable(answers[-1])
        return list(answers[: len(calls)])
