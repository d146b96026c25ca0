"""Do the profiles know everything that the lanes have decided by now?

A profile is as old as the sink that writes it. Somebody who bought while the sink was down looks in
Redis as if they had not: so before a message goes, the sink must have come at least to where the
log of profiles ended when that was asked.
"""

import time
from typing import Any, cast

import redis

from runtime.log_ends import log_ends
from runtime.settings import Settings
from schemas.errors import StoreUnavailable

ANSWER_WITHIN_S = 5.0
CATCHES_UP_WITHIN_S = 3.0
_ASK_EVERY_S = 0.05


class ProfileFreshness:
    """For one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        topic = settings.topic_names.subjects
        self._topic = topic
        self._servers = settings.kafka.bootstrap_servers
        self._partitions = range(settings.kafka.partitions)
        self._generation = str(settings.kafka.generation)
        self._keys = [f"{settings.redis.key_prefix}cursor:{topic}:{p}" for p in self._partitions]
        self._client: redis.Redis = redis.Redis.from_url(
            settings.redis.url,
            socket_timeout=ANSWER_WITHIN_S,
            socket_connect_timeout=ANSWER_WITHIN_S,
        )

    def require(self) -> None:
        """Whatever was in a profile's log when this was called is in Redis.

        Raises StoreUnavailable when that does not come true within CATCHES_UP_WITHIN_S.
        """
        ends = log_ends(
            self._servers,
            self._topic,
            self._partitions,
            within_s=ANSWER_WITHIN_S,
            isolation="read_committed",
        )
        until_s = time.monotonic() + CATCHES_UP_WITHIN_S
        while any(at < end for at, (_, end) in zip(self._positions(), ends.values(), strict=True)):
            if time.monotonic() > until_s:
                raise StoreUnavailable("profiles are behind the log; see subjects-to-redis")
            time.sleep(_ASK_EVERY_S)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def _positions(self) -> list[int]:
        try:
            found = cast("list[Any]", self._client.mget(self._keys))
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable(f"Redis does not answer ({type(error).__name__})") from None
        return [self._position(value) for value in found]

    def _position(self, cursor: bytes | None) -> int:
        # Behind a '+' stands the mark of a batch under way (sinks/profile_store.py).
        text = (cursor or b"").partition(b"+")[0].decode()
        generation, _, position = text.partition(":")
        return int(position) if position and generation == self._generation else 0
