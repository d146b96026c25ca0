"""Does the reconciler notice a false number while events come, say so everywhere, and take it back?"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
from clickhouse_connect.driver.client import Client
from prometheus_client import REGISTRY

from headwater.reconcile import reconcile
from headwater.verify import Verdict
from runtime.clickhouse import connect
from runtime.processes import free_ports
from runtime.settings import Metrics, Settings
from runtime.topics_admin import ensure_topics
from sinks.accepted_to_clickhouse import run_accepted_to_clickhouse
from sinks.migrations.apply import apply_migrations
from tests.browser import browsing
from tests.integration.serving import KEYS, serving, settings_of
from tests.sink_log import Lane, running
from tests.up import ROOT
from tests.waiting import eventually


@pytest.fixture
def settings(
    kafka: str, clickhouse_url: str, fresh_name: Any, tmp_path: Path
) -> Iterator[Settings]:
    made = settings_of(
        tmp_path, kafka=kafka, clickhouse_url=clickhouse_url, name=fresh_name("reconcile")
    )
    ensure_topics(made)
    with connect(made, database="default") as client:
        apply_migrations(client, made.clickhouse.database)
        yield made
        client.command(f"DROP DATABASE {made.clickhouse.database}")


@contextmanager
def traffic(settings: Settings) -> Iterator[None]:
    """Events that come and are counted inside."""
    lane, stop = Lane(settings), Event()
    lane.commit(300)

    def send() -> None:
        while not stop.wait(0.1):
            lane.commit(20)

    sender = Thread(target=send)
    with running(run_accepted_to_clickhouse, settings):
        sender.start()
        try:
            yield
        finally:
            stop.set()
            sender.join()


def change_a_fact(client: Client) -> None:
    """One order is worth a million more than what was counted."""
    _of_an_order(client, "amount_micro + 1000000000000")


def mend_the_fact(client: Client) -> None:
    _of_an_order(client, "amount_micro - 1000000000000")


def _of_an_order(client: Client, amount: str) -> None:
    # Always the same one: the first of its partition stays the first.
    client.command(
        f"INSERT INTO facts SELECT * REPLACE ({amount} AS amount_micro) FROM (SELECT * FROM facts "
        "FINAL WHERE metric = 'orders' AND kp = 0 AND idx = 0 ORDER BY off LIMIT 1)"
    )


AS_OPERATOR = {"Authorization": f"Bearer {KEYS['operator']}"}
OLD = "2020-01-01 00:00:00"


def add_an_old_counter(client: Client) -> None:
    """A number of long ago that no fact stands behind."""
    client.command(
        "INSERT INTO counters (campaign_id, metric, currency, minute, generation, kp, value, "
        f"last_off) VALUES ('spring', 'opened', '', '{OLD}', 1, 0, 3, 5)"
    )


def drop_the_old_counter(client: Client) -> None:
    client.command(f"DELETE FROM counters WHERE minute = '{OLD}'")


@pytest.mark.browser
def test_a_false_number_is_seen_in_metric_api_and_page_until_it_is_mended(
    settings: Settings,
) -> None:
    told: list[Verdict] = []
    stop = Event()
    looks = Thread(
        target=reconcile,
        args=(settings, stop),
        kwargs={"every_s": 0.1, "tell": told.append},
    )

    def wait_told(*verdicts: bool) -> None:
        eventually(lambda: tuple(verdict.is_verified for verdict in told) == verdicts, within_s=60)

    with traffic(settings), serving(settings) as served, connect(settings) as client:

        def answer() -> dict[str, Any]:
            found: dict[str, Any] = served.get("/v1/verification", "viewer").json()
            return found

        async def story() -> None:
            async with browsing() as page:
                await page.open(f"{served.url}/#key={KEYS['viewer']}")
                says = "document.getElementById('verified').textContent.startsWith('{}')"
                await page.until(says.format("not verified yet"))
                looks.start()
                wait_told(True)
                await page.until(says.format("live = verified, last at "))
                change_a_fact(client)
                wait_told(True, False)
                assert told[-1].differences[0].metric == "revenue"
                assert REGISTRY.get_sample_value("headwater_verify_differences") == 1
                false = answer()
                assert (false["verified"], false["differences"]) == (False, 1)
                assert false["last_verified_at"] < false["checked_at"]
                last = false["last_verified_at"][11:19]
                await page.until(
                    says.format("1 number differs from the facts; live = verified was")
                )
                assert f"{last} UTC" in await page.value("document.body.innerText")
                mend_the_fact(client)
                wait_told(True, False, True)
                assert REGISTRY.get_sample_value("headwater_verify_differences") == 0
                await page.until(says.format("live = verified, last at "))
                assert page.problems == []

        try:
            assert answer() == {
                "verified": None,
                "differences": None,
                "checked_at": None,
                "last_verified_at": None,
                "overdue": False,
            }
            asyncio.run(story())
        finally:
            stop.set()
            if looks.is_alive():
                looks.join(60)
        assert not looks.is_alive()
        assert answer()["overdue"] is False
        client.command(
            "ALTER TABLE verdicts UPDATE next_by = '2020-01-01 00:00:00' WHERE 1 "
            "SETTINGS mutations_sync = 1"
        )
        assert answer()["overdue"] is True


def test_the_command_tells_each_change_shows_its_metric_and_ends_cleanly(
    settings: Settings, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    config, output = tmp_path / "headwater.json", tmp_path / "out"
    shown = settings.model_copy(update={"metrics": Metrics(port=port)})
    config.write_text(shown.model_dump_json())
    command = [sys.executable, "-m", "headwater", "verify", "--watch", "--every", "0.1", "--json"]
    with output.open("wb") as out:
        process = subprocess.Popen(
            [*command, "--config", str(config)],
            stdout=out,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    def verdicts() -> list[bool]:
        return [json.loads(line)["verified"] for line in output.read_text().splitlines()]

    def metric(name: str) -> float:
        answer = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=AS_OPERATOR)
        assert answer.status_code == 200
        return float(
            next(line for line in answer.text.splitlines() if line.startswith(f"{name} ")).split()[
                1
            ]
        )

    try:
        with connect(settings) as client:
            eventually(lambda: verdicts() == [True], within_s=60)
            add_an_old_counter(client)
            eventually(lambda: verdicts() == [True, False], within_s=60)
            assert metric("headwater_verify_differences") == 1
            since_s = metric("headwater_verify_verified_at_seconds")
            assert 0 < since_s < metric("headwater_verify_checked_at_seconds")
            assert httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 401
            drop_the_old_counter(client)
            eventually(lambda: verdicts() == [True, False, True], within_s=60)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
