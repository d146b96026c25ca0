"""How do all who keep something on the vault's server connect to it?

One retry on a fresh connection, for one that the server closed meanwhile; whoever needs more waits
where it can be told to stop.
"""

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

ANSWER_WITHIN_S = 5.0


def vault_client(url: str) -> "redis.Redis":
    """A blocking client; safe to share between threads."""
    return redis.Redis.from_url(
        url,
        socket_timeout=ANSWER_WITHIN_S,
        socket_connect_timeout=ANSWER_WITHIN_S,
        retry=Retry(NoBackoff(), 1),
    )


def async_vault_client(url: str) -> "redis.asyncio.Redis":
    """A client for the event loop that first uses it."""
    return redis.asyncio.Redis.from_url(
        url,
        socket_timeout=ANSWER_WITHIN_S,
        socket_connect_timeout=ANSWER_WITHIN_S,
        retry=AsyncRetry(NoBackoff(), 1),
    )
