"""A whole Headwater, from the collector to the desk: what came in is told, and nothing else is held."""

import base64
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from runtime.settings import load_settings
from tests.integration.test_inventory import undescribed
from tests.up import ROOT, Up
from tests.waiting import eventually

CANARY = "kanárek-7f3a"
WINDOW = ("--from", "2020-01-01T00:00:00Z", "--to", "2100-01-01T00:00:00Z")


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    config = tmp_path / "headwater.toml"
    config.write_text("[kafka]\npartitions = 2\n")
    house = Up(tmp_path / "data", config)
    house.start()
    yield house
    if house.process is not None and house.process.poll() is None:
        house.end()


def send(up: Up, kind: str, **body: Any) -> None:
    secret = base64.b64encode(f"{up.ready['keys']['write']}:".encode()).decode()
    request = urllib.request.Request(
        f"{up.ready['url']}/v1/{kind}",
        json.dumps(body).encode(),
        {"Authorization": f"Basic {secret}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


def run(up: Up, *arguments: str) -> "subprocess.CompletedProcess[str]":
    ended = subprocess.run(
        [sys.executable, "-m", "headwater", *arguments, "--data-dir", str(up.data_dir)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == 0, ended.stderr
    return ended


def test_what_came_in_about_a_person_is_told_and_nothing_undescribed_is_held(up: Up) -> None:
    who = {"userId": CANARY}
    send(up, "identify", **who, messageId="i-1", traits={"email": f"{CANARY}@old.example"})
    send(up, "identify", **who, messageId="i-2", traits={"email": f"{CANARY}@new.example"})
    order = {"order_id": "o-1", "total": "12.50", "currency": "EUR", "note": CANARY}
    send(up, "track", **who, messageId="t-1", event="Order Completed",
         properties=order | {"campaign_id": "spring"})  # fmt: skip
    up.expect_orders(1)
    eventually(lambda: up.get("/v1/campaigns", "viewer"))
    subject = f"user:{CANARY}"

    def exported() -> Any:
        told = json.loads(run(up, "export", subject).stdout)
        assert len(told["facts"]) >= 3
        assert told["traits"]
        return told

    told = eventually(exported, within_s=60)

    assert told["identifiers"][0]["value"] == CANARY
    assert [trait["value"] for trait in told["traits"]] == [f"{CANARY}@new.example"]
    assert [event["type"] for event in told["events"]] == ["identify", "identify", "track"]
    assert told["events"][1]["changed_traits"][0]["from"] == f"{CANARY}@old.example"
    assert told["events"][2]["properties"] == order | {"campaign_id": "spring"}
    assert told["counters"][0]["metric"] in ("(none)", "orders", "visits")
    assert told["accesses"][0]["what"] == "export"
    assert "The export is complete." in run(up, "export", subject, "--format", "html").stdout

    assert json.loads(run(up, "inventory", "--json").stdout)["unclassed"] == []
    settings = load_settings(up.data_dir / "run" / "settings.json", {})
    with redis.Redis.from_url(settings.redis.url) as client:
        assert undescribed(client, settings) == set()
        prefixes = (settings.vault, settings.redis, settings.sending)
        known = [f"{each.key_prefix}*" for each in prefixes]
        ours = {key for pattern in known for key in client.scan_iter(pattern)}
        assert set(client.scan_iter("*")) - ours == set()

    found = json.loads(run(up, "incident", *WINDOW, "--json").stdout)
    assert (found["subject_count"], found["events"]) == (1, 3)
    assert CANARY not in json.dumps(found)
    named = json.loads(run(up, "incident", *WINDOW, "--json", "--identify").stdout)
    assert named["subjects"][0]["identifier"] == subject

    logs = [*up.data_dir.glob("logs/*"), up.data_dir.parent / "up.log"]
    assert [log.name for log in logs if CANARY.encode() in log.read_bytes()] == []
