"""Where does the state of every erasure live, so that a crash leaves none half done or forgotten?

In the vault's own server, beside the suppressions, under the vault's promise of durability. State
and the position in erasures.requested are in one store on purpose: a copy of it that is put back
is older in both, so the requests since are read and done again. Certificates are a list that only
grows, each appended over the length that its signer saw, so two writers cannot fork the chain.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import msgspec
import orjson

from consumers.rules.certificate import Json
from consumers.rules.erasure import RANKS, Erasure
from runtime.settings import Settings
from runtime.vault_client import vault_client
from runtime.vault_faults import faults
from runtime.vault_rows import require_durable
from schemas.held import Layout, held

_WAITAOF = ("WAITAOF", 1, 0, 4000)

# ARGV prefix, id, rank, state, partition, due at ms or "" for never, "1" to begin only. Answers 1
# if it is stored. A final erasure stays final, whatever a slower writer saw.
_SAVE = """
local row = ARGV[1] .. 'erasure:' .. ARGV[2]
local had = redis.call('HGET', row, 'rank')
if had and (ARGV[7] == '1' or tonumber(had) > tonumber(ARGV[3])) then return 0 end
redis.call('HSET', row, 'rank', ARGV[3], 'state', ARGV[4])
local due = ARGV[1] .. 'erasures:due:' .. ARGV[5]
if ARGV[6] == '' then redis.call('ZREM', due, ARGV[2])
else redis.call('ZADD', due, ARGV[6], ARGV[2]) end
return 1
"""

# ARGV prefix, length that the signer saw, certificates. Answers 1 if they are appended.
_APPEND = """
local chain = ARGV[1] .. 'erasures:certificates'
if redis.call('LLEN', chain) ~= tonumber(ARGV[2]) then return 0 end
for i = 3, #ARGV do redis.call('RPUSH', chain, ARGV[i]) end
return 1
"""

_FINAL = "for good; the pid in it until the erasure is final"
LAYOUT = (
    Layout(
        "erasure:{id}",
        "vault",
        _FINAL,
        (
            held("subject", "identifier", "accountability", "Keyed hash of the identifier"),
            held("state", "identifier", "accountability", "Pid, and what each store still had"),
            held("rank", "technical", "accountability", "How far it is"),
            held(
                "together",
                "technical",
                "accountability",
                "Ids of the erasures of all pids of the person",
            ),
        ),
    ),
    Layout(
        "erasures:due:{partition}",
        "vault",
        "until they are final",
        (held("value", "technical", "operation", "When to look at which erasure again"),),
    ),
    Layout(
        "erasures:positions",
        "vault",
        "as long as the vault",
        (held("{topic}:{partition}", "technical", "operation", "Next request to read"),),
    ),
    Layout(
        "erasures:certificates",
        "vault",
        "for good",
        (held("value", "identifier", "accountability", "Certificates, with the keyed hash"),),
    ),
)


@dataclass(frozen=True, slots=True)
class Kept:
    """What is stored of one erasure: its subject's HMAC ("" if never told), and its state.

    `erasure` is None between the request and the role's first look at it. `together` are the ids of
    the erasures of all pids of the person, the asked-for one's root first; empty for one pid alone.
    """

    subject: str
    erasure: Erasure | None
    together: tuple[str, ...] = ()


class ErasureStore:
    """Erasures and certificates. Safe to share between threads.

    Every method raises StoreUnavailable or StoreRefused as the vault does, and may then be called
    again.
    """

    def __init__(self, url: str, prefix: str, *, is_durable: bool) -> None:
        self._prefix = prefix
        self._is_durable = is_durable
        self._client = vault_client(url)

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The store beside the vault of `[vault]`."""
        chosen = settings.vault
        return cls(settings.vault_url, chosen.key_prefix, is_durable=chosen.durable_writes)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    # -- erasures

    def read(self, erasure_ids: Sequence[str]) -> list[Kept | None]:
        """What is stored of each, in order; None for one that nobody asked for."""
        with faults():
            pipe = self._client.pipeline(transaction=False)
            for erasure_id in erasure_ids:
                pipe.hmget(f"{self._prefix}erasure:{erasure_id}", ["subject", "state", "together"])
            rows = pipe.execute()
        return [_kept(row) for row in rows]

    def join(self, erasure_ids: Sequence[str]) -> None:
        """These are of one person's pids, the first for whom they are asked for."""
        if len(erasure_ids) < 2:
            return
        with faults():
            client: Any = self._client
            pipe = client.pipeline(transaction=False)
            for erasure_id in erasure_ids:
                row = f"{self._prefix}erasure:{erasure_id}"
                pipe.hset(row, "together", " ".join(erasure_ids))
            if self._is_durable:
                pipe.execute_command(*_WAITAOF)
            answers = pipe.execute()
            if self._is_durable:
                require_durable(answers[-1])

    def begin(self, erasures: Iterable[Erasure], now_ms: int, positions: Mapping[str, str]) -> None:
        """Each is stored and due, but for those already known; then the positions are moved."""
        calls = [self._save_args(each, now_ms, is_new=True) for each in erasures]
        self._run([(_SAVE, args) for args in calls], positions)

    def save(self, due_at_ms: Sequence[tuple[Erasure, int | None]]) -> None:
        """Each is stored, and due again at its time, or never; a final one is not taken back."""
        self._run(
            [(_SAVE, self._save_args(each, due_ms, is_new=False)) for each, due_ms in due_at_ms]
        )

    def due(self, partitions: Iterable[int], now_ms: int, limit: int) -> list[str]:
        """Ids of erasures of these partitions that are to be looked at, longest due first."""
        with faults():
            pipe = self._client.pipeline(transaction=False)
            for p in partitions:
                pipe.zrangebyscore(
                    f"{self._prefix}erasures:due:{p}",
                    "-inf",
                    now_ms,
                    start=0,
                    num=limit,
                    withscores=True,
                )
            found = [pair for pairs in pipe.execute() for pair in pairs]
        return [id_.decode() for id_, _ in sorted(found, key=lambda pair: pair[1])[:limit]]

    def hasten(self, partitions: Iterable[int], now_ms: int) -> None:
        """Every erasure that is not final is due now: some store may have been put back."""
        with faults():
            for p in partitions:
                due = f"{self._prefix}erasures:due:{p}"
                ids = cast("list[bytes]", self._client.zrange(due, 0, -1))
                if ids:
                    self._client.zadd(due, dict.fromkeys(ids, now_ms), xx=True)

    # -- positions of the role

    def positions(self, topic: str, partitions: Iterable[int]) -> dict[int, str]:
        """Of each partition what was stored as its position; "" for none."""
        wanted = list(partitions)
        if not wanted:
            return {}
        with faults():
            row = self._client.hmget(
                f"{self._prefix}erasures:positions", [f"{topic}:{p}" for p in wanted]
            )
        values = [value.decode() if value else "" for value in cast("list[bytes | None]", row)]
        return dict(zip(wanted, values, strict=True))

    # -- certificates

    def chain(self, first: int = 1, last: int = -1) -> list[Json]:
        """Certificates from number `first` to `last`, both included; -1 is the newest."""
        with faults():
            found = self._client.lrange(
                f"{self._prefix}erasures:certificates", first - 1, last if last < 0 else last - 1
            )
        return [orjson.loads(text) for text in cast("list[bytes]", found)]

    def length(self) -> int:
        """How many certificates there are."""
        with faults():
            return int(self._client.llen(f"{self._prefix}erasures:certificates"))

    def append(self, after: int, signed: Sequence[Json]) -> bool:
        """These follow certificate number `after`; False if another came first."""
        texts = [orjson.dumps(each) for each in signed]
        (done,) = self._run([(_APPEND, [self._prefix, str(after), *texts])])
        return bool(done)

    def _save_args(self, erasure: Erasure, due_ms: int | None, *, is_new: bool) -> list[Any]:
        return [
            self._prefix,
            erasure.erasure_id,
            str(RANKS[erasure.status]),
            msgspec.json.encode(erasure),
            str(erasure.partition),
            "" if due_ms is None else str(due_ms),
            "1" if is_new else "",
        ]

    def _run(
        self, calls: Sequence[tuple[str, Sequence[Any]]], positions: Mapping[str, str] | None = None
    ) -> list[Any]:
        """The answers of the scripts, once what they wrote is as durable as the vault promises."""
        if not calls and not positions:
            return []
        with faults():
            # One connection, hence one order; and WAITAOF waits for its own connection's writes.
            client: Any = self._client
            pipe = client.pipeline(transaction=False)
            for script, args in calls:
                pipe.eval(script, 0, *args)
            if positions:
                pipe.hset(f"{self._prefix}erasures:positions", mapping=dict(positions))
            if self._is_durable:
                pipe.execute_command(*_WAITAOF)
            answers = pipe.execute()
            if self._is_durable:
                require_durable(answers[-1])
        return list(answers[: len(calls)])


def _kept(row: Sequence[bytes | None]) -> Kept | None:
    subject, state, together = row
    if subject is None and state is None:
        return None
    erasure = msgspec.json.decode(state, type=Erasure) if state else None
    return Kept((subject or b"").decode(), erasure, tuple((together or b"").decode().split()))
