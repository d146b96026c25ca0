"""How do profiles get into Redis so that an older write never replaces a newer one?

Each profile is one hash, written by one script call that compares (generation, offset) of the
record first: Redis rolls nothing back, so the script checks before it writes. The cursor of a
partition is moved after all replies, and only over the value we last saw there: a server that
lost its newest writes, or was replaced, is noticed by its older cursor and written again from it.
Every pipeline of profiles ends with a mark on the cursor, because a server may lose them, and be
back under a new connection, before the cursor moves. With a cursor goes where the lane stood when
it wrote what is there now: a lane writes that after the people (streams/written_memory.py).
"""

import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import redis
from redis import exceptions as faults
from redis.backoff import NoBackoff
from redis.retry import Retry

from runtime.settings import Settings
from schemas.codec import SUBJECT
from schemas.errors import SettingInvalid, StoreRefused, StoreUnavailable
from schemas.held import Layout, fields_of, held
from schemas.segments import members_key
from schemas.subjects import applied_key

ANSWER_WITHIN_S = 15
CALLS_PER_PIPELINE = 1000
DURABLE_WITHIN_MS = 5000

# KEYS profile; ARGV generation, offset, framed SUBJECT or "" for an erased person, ids of segments
# with blanks between them, the pid, what stands before the id in the key of a segment.
# Answers 1 written, 2 erased, 0 something as new is there. The mark of an erasure has no expiry:
# it must outlast every replay and restored log.
_SET_IF_NEWER = """
local at = redis.call('HMGET', KEYS[1], 'g', 'v', 's')
if at[1] then
  local g, v = tonumber(at[1]), tonumber(at[2])
  local new_g, new_v = tonumber(ARGV[1]), tonumber(ARGV[2])
  if g > new_g or (g == new_g and v >= new_v) then return 0 end
end
if at[3] then
  for id in string.gmatch(at[3], '%S+') do redis.call('ZREM', ARGV[6] .. id, ARGV[5]) end
end
redis.call('DEL', KEYS[1])
if ARGV[3] == '' then
  redis.call('HSET', KEYS[1], 'g', ARGV[1], 'v', ARGV[2], 'd', '1')
  return 2
end
redis.call('HSET', KEYS[1], 'g', ARGV[1], 'v', ARGV[2], 'p', ARGV[3])
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 's', ARGV[4])
  for id in string.gmatch(ARGV[4], '%S+') do redis.call('ZADD', ARGV[6] .. id, 0, ARGV[5]) end
end
return 1
"""

# KEYS cursor, where the lane stood; ARGV the value that we know to be at the cursor ("" for none),
# the new value, the lane's own record or "" for no newer one. A retry finds the new value there,
# when only the answer was lost.
_MOVE_CURSOR = """
local at = redis.call('GET', KEYS[1]) or ''
if at ~= ARGV[1] and at ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
if ARGV[3] ~= '' then redis.call('SET', KEYS[2], ARGV[3]) end
return 1
"""

LAYOUT = (
    Layout(
        "{pid}",
        "redis",
        "until the person is erased",
        (
            held("g", "technical", "operation", "Generation of the record that wrote it"),
            held("v", "technical", "operation", "Offset of that record"),
            held("d", "technical", "accountability", "Set once the person was erased; then alone"),
            held("s", "behaviour", "personalisation", "Segments whose members list the person"),
            *(replace(field, name=f"p.{field.name}") for field in fields_of(SUBJECT.schema)),
        ),
    ),
    Layout(
        "segment:{id}",
        "redis",
        "until the person leaves it or is erased",
        (held("value", "identifier", "personalisation", "Pids of who is in the segment"),),
    ),
    Layout(
        "cursor:{topic}:{partition}",
        "redis",
        "as long as the store",
        (held("value", "technical", "operation", "How far the partition is written"),),
    ),
    Layout(
        "applied:{topic}:{partition}",
        "redis",
        "as long as the store",
        (held("value", "technical", "operation", "Up to where the lane knew every input by then"),),
    ),
)
"""What this module's scripts write."""

_PASSING = (
    faults.BusyLoadingError,
    faults.ClusterDownError,
    faults.MasterDownError,
    faults.OutOfMemoryError,
    faults.ReadOnlyError,
    faults.TryAgainError,
)
_PASSING_WORDS = ("OOM", "MISCONF", "NOREPLICAS", "LOADING", "BUSY ")


@dataclass(frozen=True, slots=True)
class ProfileWrite:
    """The newest record of one person in a batch; `value` of None erases.

    `segments` are those that the record says the person is in.
    """

    pid: bytes
    offset: int
    value: bytes | None
    segments: Sequence[str] = ()


class ProfileStore:
    """Profiles and cursors of one topic and generation. For one thread.

    Every method raises StoreUnavailable or StoreRefused, and after either may be called again.
    """

    def __init__(self, settings: Settings, topic: str) -> None:
        if not settings.redis.url:
            raise SettingInvalid(
                "[redis] url is not set; add it to headwater.toml, set HEADWATER_REDIS_URL, or "
                "start with `headwater up`"
            )
        self._generation = settings.kafka.generation
        self._topic = topic
        self._prefix = settings.redis.key_prefix
        self._segments = members_key(settings.redis.key_prefix, "")
        self._redis: redis.Redis = redis.Redis.from_url(
            settings.redis.url,
            socket_timeout=ANSWER_WITHIN_S,
            socket_connect_timeout=ANSWER_WITHIN_S,
            # The caller repeats a whole batch; a silent repeat of one call would hide a restart.
            retry=Retry(NoBackoff(), 0),
        )
        self._known: dict[int, bytes] = {}
        self._name = secrets.token_hex(4)  # of our marks: another process's must not look like ours
        self._batch = 0
        self._set_if_newer = self._redis.register_script(_SET_IF_NEWER)
        self._move_cursor = self._redis.register_script(_MOVE_CURSOR)

    def positions(self, partitions: Iterable[int]) -> dict[int, int | None]:
        """Of each partition the next offset by its cursor; None without one of this generation.

        From then on a cursor counts as lost when it is not as we saw it here or set it since.
        """
        self._known = self._cursors(list(partitions))
        return {p: self._parse(p, value) for p, value in self._known.items()}

    def without_lane(self, partitions: Iterable[int]) -> list[int]:
        """Partitions of which nothing says where their lane stood: a version wrote them that did
        not keep it."""
        wanted = list(partitions)
        with _answering("where lanes stood"):
            found = self._redis.mget([self._applied_key(p) for p in wanted])
        return [p for p, stood in zip(wanted, found, strict=True) if not stood]

    def lost_cursors(self, partitions: Iterable[int]) -> list[int]:
        """Partitions whose cursor somebody moved, or the server forgot."""
        found = self._cursors(list(partitions))
        return [p for p, value in found.items() if value != self._known.get(p)]

    def _cursors(self, partitions: list[int]) -> dict[int, bytes]:
        if not partitions:
            return {}
        with _answering("for cursors"):
            found = self._redis.mget([self._cursor_key(p) for p in partitions])
        values = [value if isinstance(value, bytes) else b"" for value in found]
        return dict(zip(partitions, values, strict=True))

    def write(self, writes: Sequence[ProfileWrite], partitions: Collection[int] = ()) -> list[int]:
        """Each profile is at least as new as its write. All of them answered, or it raises.

        Answers those of `partitions` whose cursor was lost meanwhile: profiles may be with it.
        """
        generation = str(self._generation)
        for at, start in enumerate(range(0, len(writes), CALLS_PER_PIPELINE)):
            mark = f"+{self._name}.{self._batch}.{at}".encode()
            marked = {p: _unmarked(self._known.get(p, b"")) + mark for p in partitions}
            with _answering("to write profiles"):
                pipeline = self._redis.pipeline(transaction=False)
                for write in writes[start : start + CALLS_PER_PIPELINE]:
                    pid = write.pid.hex()
                    self._set_if_newer(
                        keys=[self._prefix + pid],
                        args=[
                            generation,
                            write.offset,
                            write.value or b"",
                            " ".join(write.segments),
                            pid,
                            self._segments,
                        ],
                        client=pipeline,
                    )
                lost = self._set_cursors(pipeline, marked)
            if lost:
                return lost
        return []

    def move_cursors(
        self, positions: Mapping[int, int], applied: Mapping[int, bytes] = MappingProxyType({})
    ) -> list[int]:
        """Set cursors, and answer the partitions whose cursor was lost, which stays as it is.

        Of those, read on from where `positions` says. `applied` are the newest records before
        `positions` in which lanes say where they stand.
        """
        values = {p: f"{self._generation}:{at}".encode() for p, at in positions.items()}
        with _answering("to move cursors"):
            lost = self._set_cursors(self._redis.pipeline(transaction=False), values, applied)
        self._batch += 1
        return lost

    def _set_cursors(
        self,
        pipeline: Any,
        values: Mapping[int, bytes],
        applied: Mapping[int, bytes] = MappingProxyType({}),
    ) -> list[int]:
        """Do what the pipeline holds, then set cursors over what we know: where we could not."""
        for partition, value in values.items():
            self._move_cursor(
                keys=[self._cursor_key(partition), self._applied_key(partition)],
                args=[self._known.get(partition, b""), value, applied.get(partition, b"")],
                client=pipeline,
            )
        answers = pipeline.execute()
        moved = answers[len(answers) - len(values) :]
        lost = [partition for partition, done in zip(values, moved, strict=True) if not done]
        self._known |= {p: value for p, value in values.items() if p not in lost}
        return lost

    def make_durable(self) -> None:
        """All that this connection wrote is on disk there (WAITAOF, Redis 7.2)."""
        with _answering("to sync its log"):
            (local, _) = self._redis.waitaof(1, 0, DURABLE_WITHIN_MS)
        if local < 1:
            raise StoreUnavailable(f"Redis did not sync within {DURABLE_WITHIN_MS} ms")

    def close(self) -> None:
        """End the connection."""
        self._redis.close()

    def _cursor_key(self, partition: int) -> str:
        return f"{self._prefix}cursor:{self._topic}:{partition}"

    def _applied_key(self, partition: int) -> str:
        return applied_key(self._prefix, self._topic, partition)

    def _parse(self, partition: int, value: bytes) -> int | None:
        value = _unmarked(value)
        if not value:
            return None
        generation, _, position = value.decode().partition(":")
        if int(generation) > self._generation:
            raise StoreRefused(
                f"the cursor of {self._topic}[{partition}] in Redis is of generation {generation}; "
                f"[kafka] generation is {self._generation}: raise it to {generation}"
            )
        return int(position) if int(generation) == self._generation else None


def _unmarked(cursor: bytes) -> bytes:
    return cursor.partition(b"+")[0]


@contextmanager
def _answering(asked: str) -> Iterator[None]:
    try:
        yield
    except faults.AuthenticationError as error:
        raise StoreRefused(f"Redis refused us {asked}: {_brief(error)}") from error
    except faults.ResponseError as error:
        text = str(error)
        if isinstance(error, _PASSING) or any(word in text[:200] for word in _PASSING_WORDS):
            raise StoreUnavailable(f"Redis cannot do it now, {asked}: {_brief(error)}") from error
        if "appendonly is disabled" in text:
            raise StoreRefused(
                "Redis keeps no append-only file, so profiles would not survive it: "
                "set appendonly yes"
            ) from error
        if "unknown command" in text.lower():
            raise StoreRefused(
                "Redis has no WAITAOF; 7.2 or later, or Valkey, is needed"
            ) from error
        raise StoreRefused(f"Redis refused {asked}: {_brief(error)}") from error
    except (faults.RedisError, OSError) as error:
        raise StoreUnavailable(f"Redis did not answer {asked}: {type(error).__name__}") from error


def _brief(error: Exception) -> str:
    # The rest of a message may quote a key or a value.
    return f"{type(error).__name__} {str(error).split(' ', 1)[0][:40]}"
