"""Do the profiles know everything that was on the log when this was asked?

A profile is as old as the lane that decides what is in it, and as the sink that writes it. Somebody
who bought while either was down looks in Redis as if they had not: so before a message goes, the
ends of all inputs are asked for, and every lane must have said, in Redis, that it stood there. It
says so after the people whom it changed, and the sink keeps that order (sinks/profile_store.py).
"""

import threading
import time
from collections.abc import Mapping
from typing import Any, cast

import redis

from runtime.log_ends import ends_of_all
from runtime.retry import Stopped
from runtime.settings import Settings
from schemas.codec import CURSOR, Malformed
from schemas.errors import StoreRefused, StoreUnavailable
from schemas.subjects import applied_key

ANSWER_WITHIN_S = 5.0
CATCHES_UP_WITHIN_S = 5.0
"""A lane commits within 1.5 s (streams/lane.py), and the sink writes what it said at once."""
_ASK_EVERY_S = 0.05


class ProfileFreshness:
    """For one thread at a time; whoever waits in it stops once `stop` is set."""

    def __init__(self, settings: Settings, stop: threading.Event | None = None) -> None:
        self._stop = stop or threading.Event()
        topics = settings.topic_names
        self._inputs = topics.inputs
        self._servers = settings.kafka.bootstrap_servers
        self._partitions = settings.kafka.partitions
        self._generation = settings.kafka.generation
        prefix = settings.redis.key_prefix
        self._keys = [applied_key(prefix, topics.subjects, p) for p in range(self._partitions)]
        self._client: redis.Redis = redis.Redis.from_url(
            settings.redis.url,
            socket_timeout=ANSWER_WITHIN_S,
            socket_connect_timeout=ANSWER_WITHIN_S,
        )

    def require(self) -> None:
        """Whatever was on the log of any input when this was called is in the profiles.

        Raises StoreUnavailable when that does not come true within CATCHES_UP_WITHIN_S, Stopped
        when `stop` is set before it is known.
        """
        ends = ends_of_all(
            self._servers,
            self._inputs,
            self._partitions,
            within_s=ANSWER_WITHIN_S,
            stop=self._stop,
        )
        until_s = time.monotonic() + CATCHES_UP_WITHIN_S
        while behind := self._behind(ends):
            if time.monotonic() > until_s:
                topic, p = min(behind)
                raise StoreUnavailable(
                    f"profiles are behind {topic}[{p}]; see streams and subjects-to-redis"
                )
            if self._stop.wait(_ASK_EVERY_S):
                raise Stopped

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def _behind(self, ends: Mapping[tuple[str, int], int]) -> list[tuple[str, int]]:
        try:
            found = cast("list[Any]", self._client.mget(self._keys))
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable(f"Redis does not answer ({type(error).__name__})") from None
        applied: dict[tuple[str, int], int] = {}
        for p, value in enumerate(found):
            if value is not None:
                applied |= self._positions(p, value)
        return [place for place, end in ends.items() if applied.get(place, 0) < end]

    def _positions(self, p: int, value: bytes) -> dict[tuple[str, int], int]:
        try:
            cursor = CURSOR.decode(value)
        except Malformed as error:
            raise StoreRefused(f"{self._keys[p]} is no position of a lane ({error})") from None
        if cursor.generation != self._generation:
            return {}
        return {(each.topic, p): each.next_offset for each in cursor.positions}
