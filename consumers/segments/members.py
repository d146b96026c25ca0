"""Who is in which segment, as the sink keeps it in Redis?

For each segment a sorted set of pids, changed by the same script call that writes a profile: so a
set and the profiles never contradict each other.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import redis
import redis.asyncio

from runtime.settings import Settings
from schemas.codec import SUBJECT
from schemas.errors import StoreUnavailable
from schemas.segments import members_key
from schemas.subjects import PID_BYTES, Subject

ANSWER_WITHIN_S = 5.0
PROFILES_A_LOOK = 1_000


class SegmentMembers:
    """Reads members and profiles. Raises StoreUnavailable while it cannot."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.redis.url
        self._prefix = settings.redis.key_prefix
        self._client = redis.asyncio.Redis.from_url(
            self._url, socket_timeout=ANSWER_WITHIN_S, socket_connect_timeout=ANSWER_WITHIN_S
        )

    async def sizes(self, ids: Sequence[str]) -> list[int]:
        """How many are in each."""
        pipe: Any = self._client.pipeline(transaction=False)
        for id_ in ids:
            pipe.zcard(members_key(self._prefix, id_))
        try:
            return [int(size) for size in await pipe.execute()]
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable("Redis does not answer") from error

    async def page(self, id_: str, after: str, limit: int) -> list[bytes]:
        """Up to `limit` pids behind `after` (hex; empty for the first), in order."""
        ask: Any = self._client.zrange(
            members_key(self._prefix, id_),
            f"({after}" if after else "-",
            "+",
            bylex=True,
            offset=0,
            num=limit,
        )
        try:
            return [bytes.fromhex(pid.decode()) for pid in await ask]
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable("Redis does not answer") from error

    def everybody(self) -> Iterator[Subject]:
        """Every profile once, or twice while keys move; for a thread of its own."""
        client: Any = redis.Redis.from_url(
            self._url, socket_timeout=ANSWER_WITHIN_S, socket_connect_timeout=ANSWER_WITHIN_S
        )
        seen: set[bytes] = set()
        length = len(self._prefix) + 2 * PID_BYTES
        try:
            keys: list[bytes] = []
            for key in client.scan_iter(match=f"{self._prefix}*", count=PROFILES_A_LOOK):
                # Cursors and segments are named by words.
                if len(key) == length and b":" not in key[len(self._prefix) :] and key not in seen:
                    seen.add(key)
                    keys.append(key)
                if len(keys) == PROFILES_A_LOOK:
                    yield from _profiles(client, keys)
                    keys = []
            yield from _profiles(client, keys)
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable("Redis does not answer") from error
        finally:
            client.close()

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()


def _profiles(client: Any, keys: Sequence[bytes]) -> Iterator[Subject]:
    pipe = client.pipeline(transaction=False)
    for key in keys:
        pipe.hget(key, "p")
    for value in pipe.execute():
        if value is not None:
            yield SUBJECT.decode(value)
