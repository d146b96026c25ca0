"""Do Redis' files forget what was deleted, once they are asked to?"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis

from consumers.erasures.redis_files import RedisFiles
from consumers.erasures.rewrites import TRIES_AGAIN_AFTER_MS, Rewrites
from consumers.erasures.stores import Limits, Stores
from consumers.rules.erasure import Erasure
from runtime.embedded import EmbeddedStack, Wanted
from runtime.retry import Stopped
from runtime.settings import Redis, Settings
from tests.mailing import Clock
from tests.waiting import eventually

Client = redis.Redis
HOUR_MS = 3_600_000


@pytest.fixture
def directory(redis_client: Client) -> Path:
    """Where the server's append-only files are."""
    chosen = redis_client.config_get("dir")
    assert isinstance(chosen, dict)
    return Path(str(chosen["dir"])) / "appendonlydir"


@pytest.fixture
def limited_url(redis_url: str, redis_client: Client) -> Iterator[str]:
    """As a user who may read and write, and nothing else."""
    name = f"limited-{uuid4().hex[:8]}"
    redis_client.acl_setuser(
        name, enabled=True, passwords=["+secret"], keys=["*"], categories=["+@read", "+@write"]
    )
    yield f"redis://{name}:secret@{urlsplit(redis_url).netloc}/0"
    redis_client.acl_deluser(name)


def files_with(directory: Path, text: str) -> list[str]:
    return [file.name for file in directory.iterdir() if text.encode() in file.read_bytes()]


def rewrite(url: str) -> bool:
    files = RedisFiles(Settings(redis=Redis(url=url)), threading.Event())
    try:
        return files.rewrite()
    finally:
        files.close()


def test_deleted_value_stays_in_the_file_until_it_is_written_anew(
    redis_url: str, redis_client: Client, directory: Path
) -> None:
    word = uuid4().hex
    redis_client.set(f"files:{word}", "value")
    redis_client.delete(f"files:{word}")
    assert files_with(directory, word)
    assert rewrite(redis_url)
    assert not files_with(directory, word)


def test_who_may_not_ask_for_it_is_told_so(limited_url: str) -> None:
    assert not rewrite(limited_url)


def test_what_was_refused_is_tried_again_after_a_pause_and_not_only_when_it_is_time(
    limited_url: str, redis_client: Client
) -> None:
    waiting = Erasure("cd" * 16, "ab" * 16, 1, 1_000, "withdrawn", rewritten_at_s=9)
    clock = Clock()
    files = RedisFiles(Settings(redis=Redis(url=limited_url)), threading.Event())
    tries: list[int] = []

    def rewrite_files() -> bool:
        tries.append(clock.at_ms)
        return files.rewrite()

    none: Any = None
    stores = Stores(none, none, none, none, none, none, rewrite_files)
    rewrites = Rewrites(stores, Limits(none, 1, 1, none, 24 * HOUR_MS, False), clock)

    def look() -> int:
        (found,) = rewrites.files([waiting], {waiting.erasure_id})
        return found.files_rewritten_at_ms

    first_ms = clock.at_ms
    assert look() == 0
    user = urlsplit(limited_url).username
    assert user is not None
    redis_client.acl_setuser(user, enabled=True, categories=["+@all"])
    clock.at_ms += TRIES_AGAIN_AFTER_MS - 1
    assert look() == 0, "did not pause"
    clock.at_ms += 1
    assert look() == clock.at_ms == first_ms + TRIES_AGAIN_AFTER_MS
    # One that was done is enough for a day.
    clock.at_ms += 24 * HOUR_MS - 1
    assert look() == 0
    clock.at_ms += 1
    assert look() == clock.at_ms
    assert len(tries) == 3
    files.close()


def test_who_waits_for_a_server_that_is_slow_at_it_stops_when_asked_to(tmp_path: Path) -> None:
    wanted = Wanted(broker=None, redis=True, clickhouse=False)
    with EmbeddedStack(tmp_path, wanted) as stack:
        url = stack.addresses.redis_url
        with redis.Redis.from_url(url) as client:
            client.set("one", "value")
            client.config_set("rdb-key-save-delay", 600_000_000)  # us for each key: ten minutes
            stop = threading.Event()
            files = RedisFiles(Settings(redis=Redis(url=url)), stop)
            raised: list[BaseException] = []

            def wait() -> None:
                try:
                    files.rewrite()
                except BaseException as error:
                    raised.append(error)

            waiting = threading.Thread(target=wait)
            waiting.start()

            def is_writing() -> bool:
                found = client.info("persistence")
                assert isinstance(found, dict)
                return bool(found["aof_rewrite_in_progress"])

            eventually(is_writing)
            stop.set()
            waiting.join(30)
            files.close()
            assert [type(each) for each in raised] == [Stopped]
            assert is_writing()
