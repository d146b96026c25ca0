"""Does intake stop when the vault has lost people, and go on as before once it is restored?

Making lost people anew would count them twice, and nothing would tell. So every call answers 503
until the backup is back, and then each person has the pid that they had.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from runtime.embedded import EmbeddedStack, Wanted
from runtime.settings import Settings
from tests.collecting import Running, collect_settings, running_collector
from tests.conftest import FreshName
from tests.waiting import eventually

Copy = dict[bytes, bytes]


@pytest.fixture
def settings(kafka: str, redis_url: str, tmp_path: Path, fresh_name: FreshName) -> Settings:
    return collect_settings(tmp_path, kafka, redis_url, fresh_name("lost"))


class Rows:
    """The vault's rows on a server that others use as well."""

    def __init__(self, client: redis.Redis, settings: Settings) -> None:
        self.client = client
        self.prefix = settings.vault.key_prefix

    def keys(self) -> list[bytes]:
        return list(self.client.scan_iter(f"{self.prefix}*"))

    def copy(self) -> Copy:
        found: Copy = {key: self.client.dump(key) for key in self.keys()}  # type: ignore[misc]
        return found

    def lose(self) -> None:
        self.client.delete(*self.keys())

    def restore(self, copy: Copy) -> None:
        if keys := self.keys():
            self.client.delete(*keys)
        for key, value in copy.items():
            self.client.restore(key, 0, value)


@pytest.fixture
def rows(redis_client: redis.Redis, settings: Settings) -> Rows:
    return Rows(redis_client, settings)


@pytest.fixture
def collector(settings: Settings) -> Iterator[Running]:
    with running_collector(settings) as running:
        yield running


def send(collector: Running, user: str) -> int:
    """The status of one call."""
    body = {"type": "track", "event": "E", "userId": user}
    return collector.post("/v1/track", body).status_code


def pids(collector: Running) -> list[bytes]:
    return [event.pid for event in collector.collected()]


def test_lost_vault_takes_nobody_in_until_it_is_restored(collector: Running, rows: Rows) -> None:
    assert send(collector, "ada") == 200
    backup = rows.copy()
    rows.lose()
    assert [send(collector, user) for user in ("ada", "new")] == [503, 503]
    assert rows.keys() == []
    rows.restore(backup)
    assert [send(collector, user) for user in ("ada", "new")] == [200, 200]
    assert sorted(Counter(pids(collector)).values()) == [1, 2]


def test_vault_that_lost_its_newest_people_takes_nobody_in(collector: Running, rows: Rows) -> None:
    """As a copy of yesterday would, or a replica that was behind."""
    assert send(collector, "ada") == 200
    yesterday = rows.copy()
    assert send(collector, "bob") == 200
    latest = rows.copy()
    rows.restore(yesterday)
    assert [send(collector, user) for user in ("bob", "ada")] == [503, 503]
    rows.restore(latest)
    assert send(collector, "bob") == 200
    assert sorted(Counter(pids(collector)).values()) == [1, 2]


def test_collector_that_starts_beside_a_lost_vault_takes_nobody_in(
    settings: Settings, rows: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_collector(settings) as before:
        assert send(before, "ada") == 200
    backup = rows.copy()
    rows.lose()
    with running_collector(settings) as collector:
        assert send(collector, "ada") == 503
        assert "Restore its latest backup" in capsys.readouterr().out
        rows.restore(backup)
        eventually(lambda: send(collector, "ada") == 200)
        assert len(set(pids(collector))) == 1


def test_empty_vault_beside_an_empty_log_is_a_new_one(
    settings: Settings, collector: Running, rows: Rows
) -> None:
    assert send(collector, "ada") == 200
    mark: Any = rows.client.hgetall(f"{rows.prefix}mark")
    assert mark[b"made"] == b"1"
    assert len(mark[b"id"]) == 32


def test_vault_of_before_marks_gets_one(settings: Settings, rows: Rows) -> None:
    with running_collector(settings) as before:
        assert send(before, "ada") == 200
    rows.client.delete(f"{rows.prefix}mark")
    with running_collector(settings) as collector:
        assert send(collector, "ada") == 200
        assert len(set(pids(collector))) == 1


def test_full_vault_takes_known_people_only_and_the_others_once_there_is_room(
    kafka: str, tmp_path: Path, fresh_name: FreshName
) -> None:
    wanted = Wanted(broker=None, redis=True, clickhouse=False)
    with EmbeddedStack(tmp_path / "valkey", wanted) as stack:
        settings = collect_settings(tmp_path, kafka, stack.addresses.redis_url, fresh_name("full"))
        with (
            redis.Redis.from_url(stack.addresses.redis_url) as client,
            running_collector(settings) as collector,
        ):
            rows = Rows(client, settings)
            assert send(collector, "ada") == 200
            key = f"{rows.prefix}key:{pids(collector)[0].hex()}"
            client.hset(key, "c", "1000")  # as if made long ago: to find her writes nothing
            client.config_set("maxmemory", "1")
            assert [send(collector, user) for user in ("ada", "new")] == [200, 503]
            client.config_set("maxmemory", "0")
            assert send(collector, "new") == 200
            assert len(set(pids(collector))) == 2
