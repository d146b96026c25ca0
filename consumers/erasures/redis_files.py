"""When do the files of Redis forget what was deleted from it?

Redis appends to its file what it is told: the data key of a person stays in it beside the command
that deleted it, until the file is written anew from memory. By itself Redis does that once the file
has doubled and is past 64 MB, which in a small house is never. A snapshot, where it makes any, is
as old as the last one. So both are asked for here, and waited for.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, ResponseError
from redis.retry import Retry

from runtime.retry import Stopped
from runtime.settings import Settings
from schemas.errors import StoreUnavailable

ANSWER_WITHIN_S = 5.0
REWRITTEN_WITHIN_S = 600.0
ASK_EVERY_S = 0.05

Info = Mapping[str, Any]


class RedisFiles:
    """The files of the servers of vault and profiles. For one thread; `stop` ends its waiting."""

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self._stop = stop
        # Two names of one server cost a rewrite more; one name is one server.
        self._clients: list[redis.Redis] = [
            redis.Redis.from_url(
                url,
                socket_timeout=ANSWER_WITHIN_S,
                socket_connect_timeout=ANSWER_WITHIN_S,
                retry=Retry(NoBackoff(), 1),
            )
            for url in dict.fromkeys((settings.vault_url, settings.redis.url))
        ]

    def close(self) -> None:
        """Give the connections back."""
        for client in self._clients:
            client.close()

    def rewrite(self) -> bool:
        """No file has anything that had been deleted when this was called; False where a server
        does not let us.

        Raises StoreUnavailable when one does not answer, fails at it, or takes longer than ten
        minutes; Stopped as soon as `stop` is set meanwhile: the server goes on, and nobody knows.
        """
        try:
            with _faults():
                for client in self._clients:
                    self._rewrite_of(client)
        except (NoPermissionError, ResponseError):
            return False
        return True

    def _rewrite_of(self, client: "redis.Redis") -> None:
        has_log = bool(_info(client)["aof_enabled"])
        if has_log:
            # One that runs may have passed what was deleted since it began.
            self._await_idle(client, _is_rewriting)
            client.bgrewriteaof()
            found = self._await_idle(client, _is_rewriting)
            if found["aof_last_bgrewrite_status"] != "ok":
                raise StoreUnavailable("Redis could not write its append-only file anew")
        configured: Any = client.config_get("save")
        if not has_log or configured.get("save"):
            self._await_idle(client, _is_saving)
            client.bgsave()
            found = self._await_idle(client, _is_saving)
            if found["rdb_last_bgsave_status"] != "ok":
                raise StoreUnavailable("Redis could not write its snapshot anew")

    def _await_idle(self, client: "redis.Redis", is_busy: Callable[[Info], bool]) -> Info:
        until_s = time.monotonic() + REWRITTEN_WITHIN_S
        while is_busy(found := _info(client)):
            if time.monotonic() > until_s:
                raise StoreUnavailable("Redis did not end writing its files anew")
            if self._stop.wait(ASK_EVERY_S):
                raise Stopped
        return found


def _info(client: "redis.Redis") -> Info:
    found: Any = client.info("persistence")
    return dict(found)


def _is_rewriting(found: Info) -> bool:
    return bool(found["aof_rewrite_in_progress"] or found["aof_rewrite_scheduled"])


def _is_saving(found: Info) -> bool:
    return bool(found["rdb_bgsave_in_progress"])


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (NoPermissionError, ResponseError):
        raise
    except (redis.RedisError, OSError) as error:
        raise StoreUnavailable(f"Redis does not answer ({type(error).__name__})") from None
