"""Does ClickHouse write its parts anew without deleted rows, and can whoever waits for it stop?"""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from consumers.erasures.fact_looks import FactLooks
from runtime.retry import Stopped
from runtime.settings import Settings
from tests.integration.serving import Rows, settings_of
from tests.waiting import eventually


@pytest.fixture
def settings(tmp_path: Path, clickhouse_url: str, fresh_name: Any) -> Settings:
    return settings_of(tmp_path, clickhouse_url=clickhouse_url, name=fresh_name("rewrite"))


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    """Of a database in which one of two facts was deleted."""
    with clickhouse_connect.get_client(dsn=settings.clickhouse.url) as made:
        rows = Rows.into(made, settings)
        for campaign in ("kept", "gone"):
            rows.fact(campaign, "opened", 1)
        # One part: two might be merged meanwhile, without the row.
        made.command("OPTIMIZE TABLE facts FINAL")
        made.command("DELETE FROM facts WHERE campaign_id = 'gone'")
        yield made
        made.command(f"DROP DATABASE {settings.clickhouse.database}")


def masked(client: Client) -> int:
    """Parts that still have the deleted row."""
    asked = (
        "SELECT count() FROM system.parts WHERE database = currentDatabase() AND active "
        "AND table = 'facts' AND has_lightweight_delete"
    )
    return int(client.query(asked).result_rows[0][0])


def rewriting(client: Client) -> bool:
    asked = (
        "SELECT count() FROM system.mutations WHERE database = currentDatabase() AND NOT is_done "
        "AND command LIKE '%APPLY DELETED MASK%'"
    )
    return bool(client.query(asked).result_rows[0][0])


def test_who_waits_for_parts_that_are_written_slowly_stops_when_asked_to(
    settings: Settings, client: Client
) -> None:
    assert masked(client) == 1
    stop = threading.Event()
    looks = FactLooks(settings, stop)
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            looks.rewrite()
        except BaseException as error:
            raised.append(error)

    client.command("SYSTEM STOP MERGES facts")
    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    eventually(lambda: rewriting(client))
    stop.set()
    waiting.join(30)
    looks.close()
    assert [type(each) for each in raised] == [Stopped]
    assert masked(client) == 1
    # The next process waits for it again.
    client.command("SYSTEM START MERGES facts")
    looks = FactLooks(settings, threading.Event())
    assert looks.rewrite() > 0
    looks.close()
    assert masked(client) == 0
