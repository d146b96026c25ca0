"""What does Redis still hold of an erased person's profile?

The sink replaces an erased profile by a mark with the version of the record that erased it, so that
nothing older can come back. The mark goes last, when the log can bring nothing back any more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from runtime.settings import Settings
from schemas.errors import StoreUnavailable

ANSWER_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class ProfileOf:
    """`has_profile` if personal values are there; `mark` is (generation, offset) of its erasure."""

    has_profile: bool
    mark: tuple[int, int] | None


class ProfileLooks:
    """Looks at profiles. Raises StoreUnavailable while it cannot."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.redis.key_prefix
        self._client: redis.Redis = redis.Redis.from_url(
            settings.redis.url,
            socket_timeout=ANSWER_WITHIN_S,
            socket_connect_timeout=ANSWER_WITHIN_S,
            retry=Retry(NoBackoff(), 1),
        )

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def read(self, pids: Sequence[str]) -> list[ProfileOf]:
        """What there is of each pid (hex), in order."""
        try:
            pipe = self._client.pipeline(transaction=False)
            for pid in pids:
                pipe.hmget(f"{self._prefix}{pid}", ["p", "d", "g", "v"])
            rows = pipe.execute()
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable(f"Redis does not answer ({type(error).__name__})") from None
        return [
            ProfileOf(p is not None, (int(g), int(v)) if d is not None else None)
            for p, d, g, v in rows
        ]

    def remove_marks(self, pids: Sequence[str]) -> None:
        """The marks of these are gone."""
        try:
            self._client.delete(*(f"{self._prefix}{pid}" for pid in pids))
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable(f"Redis does not answer ({type(error).__name__})") from None
