"""Do roles run against servers that the configuration names, as in production?"""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from headwater.roles import PROCESSES, ROLE_NAMES
from runtime.processes import free_ports, is_running
from tests.up import READY_WITHIN_S, ROOT, Up
from tests.waiting import eventually

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
KEYS = {"write": "write-key-of-this-test", "viewer": "viewer-key-of-this-test"}


@pytest.fixture
def config(tmp_path: Path, kafka: str, redis_url: str, clickhouse_url: str) -> Path:
    """A configuration of its own on the shared servers."""
    tag = secrets.token_hex(4)
    for name in ("kek", "pepper", "sign"):
        (tmp_path / name).write_text(secrets.token_hex(32))
    settings = {
        "data_dir": str(tmp_path / "data"),
        "kafka": {"bootstrap_servers": kafka, "topic_prefix": f"run-{tag}.", "partitions": 2},
        "redis": {"url": redis_url, "key_prefix": f"run-{tag}:"},
        "clickhouse": {"url": clickhouse_url, "database": f"run_{tag}"},
        "vault": {
            "key_prefix": f"vault-{tag}:",
            "key_encryption_key_file": str(tmp_path / "kek"),
            "pepper_file": str(tmp_path / "pepper"),
        },
        "erasure": {"signing_key_file": str(tmp_path / "sign")},
        "http": {"port": free_ports(1)[0], "keys": KEYS},
        "sources": [{"name": "shop", "write_key": KEYS["write"]}],
    }
    file = tmp_path / "headwater.json"
    file.write_text(json.dumps(settings))
    return file


def run(*arguments: str, config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headwater", *arguments, "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=120,
        env=ENVIRONMENT,
    )


@pytest.fixture
def roles(config: Path, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """All roles by one `headwater run`."""
    command = [sys.executable, "-m", "headwater", "run", *ROLE_NAMES, "--config", str(config)]
    with (tmp_path / "run.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT)
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(60)


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def test_topics_makes_what_is_missing_once(config: Path) -> None:
    first = run("topics", "--json", config=config)
    assert first.returncode == 0, first.stderr
    names = json.loads(first.stdout)["topics"]
    assert [line for line in json.loads(first.stdout)["made"] if line.startswith("topic ")] == [
        f"topic {name}" for name in names
    ]
    assert json.loads(run("topics", "--json", config=config).stdout)["made"] == []


def test_topics_with_another_partition_count_are_refused(config: Path) -> None:
    assert run("topics", config=config).returncode == 0
    settings = json.loads(config.read_text())
    settings["kafka"]["partitions"] = 3
    config.write_text(json.dumps(settings))
    refused = run("topics", config=config)
    assert refused.returncode == 1
    assert "has 2 partitions, [kafka] partitions says 3" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_doctor_says_what_is_missing_and_what_to_do(config: Path) -> None:
    found = {
        line["check"]: line for line in json.loads(run("doctor", "--json", config=config).stdout)
    }
    assert found["kafka"]["ok"] and found["redis"]["ok"] and found["clickhouse"]["ok"]
    assert found["vault"]["ok"] and found["keys"]["ok"] is False
    for check in ("topics", "migrations"):
        assert not found[check]["ok"]
        assert "run headwater topics" in found[check]["text"]
    assert found["mail"]["ok"]
    # Of a webhook the template is its receiver's.
    settings = json.loads(config.read_text())
    settings["webhooks"] = [{"name": "push", "url": "https://push.example", "secret_file": "s"}]
    settings["journeys"] = [
        {"id": "a", "topic": "cart", "channel": "push", "template": "theirs"},
        {"id": "b", "topic": "cart", "template": "ours"},
    ]
    config.write_text(json.dumps(settings))
    lines = json.loads(run("doctor", "--json", config=config).stdout)
    (mail,) = [line for line in lines if line["check"] == "mail"]
    assert not mail["ok"] and "ours.subject: there is no such template" in mail["text"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_all_roles_side_by_side_count_and_end_together(
    config: Path, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    assert run("topics", config=config).returncode == 0
    process = request.getfixturevalue("roles")
    settings = json.loads(config.read_text())
    url = f"http://127.0.0.1:{settings['http']['port']}"

    def is_ready() -> bool:
        assert process.poll() is None, (tmp_path / "run.log").read_text()
        try:
            return bool(urlopen(f"{url}/readyz", timeout=10).status == 200)
        except OSError:  # refused, cut off, or too slow while six processes begin
            return False

    eventually(is_ready, within_s=READY_WITHIN_S)
    outside = Up(tmp_path / "data", config, ready={"url": url, "keys": KEYS})
    outside.send("order-1")
    outside.expect_orders(1)
    assert run("verify", config=config).stdout.startswith("live = verified")
    children = children_of(process.pid)
    assert len(children) == len(PROCESSES)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, (tmp_path / "run.log").read_text()
    assert not [pid for pid in children if is_running(pid)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_role_that_dies_ends_the_others_for_whoever_restarts_them(
    config: Path, request: pytest.FixtureRequest
) -> None:
    assert run("topics", config=config).returncode == 0
    process = request.getfixturevalue("roles")
    children = eventually(
        lambda: found if len(found := children_of(process.pid)) == len(PROCESSES) else None
    )
    os.kill(children[-1], signal.SIGKILL)
    assert process.wait(90) == 1
    assert not [pid for pid in children if is_running(pid)]
