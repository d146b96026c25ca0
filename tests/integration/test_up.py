"""Does `headwater up` start, mend, stop and leave nothing behind?

In a process of its own: signals go to processes. Half of what a house costs is starting it, so tests
that only need one that runs share it, and count from what is in it.
"""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.up import READY_WITHIN_S, ROOT, STOPS_WITHIN_S, Up, none_runs
from tests.waiting import eventually


def at(directory: Path) -> Up:
    """A house that was not started yet."""
    config = directory / "headwater.toml"
    config.write_text("[kafka]\npartitions = 2\n")
    return Up(directory / "data", config)


def leave(house: Up) -> None:
    """Nothing of it runs."""
    if house.is_running:
        assert house.process is not None
        children = house.children()
        house.process.terminate()
        try:
            house.process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            house.process.kill()
            house.process.wait()
        eventually(none_runs(children), within_s=STOPS_WITHIN_S)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    """A test's own, not started."""
    house = at(tmp_path)
    yield house
    leave(house)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    house = at(tmp_path_factory.mktemp("up"))
    yield house
    leave(house)


@pytest.fixture
def running(lasting: Up) -> Up:
    """One that runs and is whole, with what earlier tests sent to it; a test may end it."""
    if not lasting.is_running:
        lasting.start()
    eventually(lambda: lasting.is_whole() and lasting.orders() >= 0, within_s=READY_WITHIN_S)
    return lasting


def test_life_of_a_house_from_first_start_to_second(up: Up) -> None:
    up.start()
    assert stat.S_IMODE(up.ready_file.stat().st_mode) == 0o600
    assert up.ready["process_id"] == up.process.pid  # type: ignore[union-attr]
    keys = up.ready["keys"]
    # Whoever waits for the file may be quicker than what is printed after it.
    eventually(lambda: keys["admin"] in up.output)
    settings_file = up.data_dir / "run" / "settings.json"
    assert stat.S_IMODE(settings_file.stat().st_mode) == 0o600
    up.send("order-1")
    up.send("order-1")
    up.expect_orders(1)
    doctor = subprocess.run(
        [sys.executable, "-m", "headwater", "doctor", "--data-dir", str(up.data_dir)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert doctor.returncode == 0, doctor.stdout + doctor.stderr
    assert not [key for key in keys.values() if key in doctor.stdout]

    eventually(lambda: up.get("/v1/verification", "viewer")["verified"], within_s=60)

    def is_shown_of_all() -> bool:
        """A process that does not answer in time, on a busy machine, is left out until it does."""
        shown = up.metrics()
        for process in (
            "streams",
            "subjects-to-redis",
            "accepted-to-clickhouse",
            "reconciler",
            "erasure",
            "automation",
        ):
            assert f'headwater_process_answers{{process="{process}"}} 1.0' in shown
            assert shown.count(f'process_cpu_seconds_total{{process="{process}"}}') == 1
        return 'headwater_verify_differences{process="reconciler"} 0.0' in shown

    eventually(is_shown_of_all)
    lag = 'headwater_lane_lag_records{lane="1",process="streams",topic="erasures'
    eventually(lambda: lag in up.metrics(), within_s=60)  # once the watchdog has looked

    children = up.children()
    assert {"http", "streams", "subjects-to-redis", "accepted-to-clickhouse"} < set(children)
    assert up.end(signal.SIGTERM) == 0
    assert none_runs(children)()
    assert not settings_file.exists()
    assert not up.ready_file.exists()

    up.start()
    assert up.ready["keys"] == keys
    assert keys["admin"] not in up.output, "a later start shows the address only"
    up.send("order-1")
    up.send("order-2")
    up.expect_orders(2)
    assert up.verdict()["verified"] is True
    assert up.end(signal.SIGINT) == 0


def test_directory_in_use_is_refused_and_its_owner_left_alone(running: Up, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    second = Up(running.data_dir, running.config)
    children = running.children()
    in_run = sorted((running.data_dir / "run").iterdir())
    log = tmp_path / "other" / "up.log"
    with log.open("wb") as file:
        code = subprocess.run(
            [
                sys.executable,
                "-m",
                "headwater",
                "up",
                "--data-dir",
                str(second.data_dir),
                "--port",
                "0",
            ],
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        ).returncode
    assert code == 2
    assert f"is in use by process {running.ready['process_id']}" in log.read_text()
    assert running.children() == children
    assert sorted((running.data_dir / "run").iterdir()) == in_run, (
        "what the owner wrote is still there"
    )


def test_role_killed_at_work_comes_back_and_nothing_is_lost_or_doubled(running: Up) -> None:
    already = running.orders()
    restarts = running.output.count("starting it again in")
    sent = 0
    for name in ("streams", "accepted-to-clickhouse", "http", "subjects-to-redis"):
        before = running.children()[name]
        running.send(f"order-{uuid4()}")
        os.kill(before, signal.SIGKILL)
        running.send(f"order-{uuid4()}")
        sent += 2
        running.await_child(name, after=before)
    running.expect_orders(already + sent)
    assert running.output.count("starting it again in") == restarts + 4
    assert running.verdict()["verified"] is True


@pytest.mark.apache
def test_server_killed_at_work_comes_back_and_nothing_is_lost_or_doubled(running: Up) -> None:
    already = running.orders()
    sent = 0
    for name in ("clickhouse", "valkey", "kafka"):
        before = running.children()[name]
        running.send(f"order-{uuid4()}")
        os.kill(before, signal.SIGKILL)
        running.await_child(name, after=before)
        running.send(f"order-{uuid4()}")
        sent += 2
    running.expect_orders(already + sent)
    assert running.verdict()["verified"] is True


def test_kill_of_the_supervisor_leaves_no_orphan_and_the_next_start_works(running: Up) -> None:
    already = running.orders()
    first, second = f"order-{uuid4()}", f"order-{uuid4()}"
    running.send(first)
    running.expect_orders(already + 1)
    children = running.children()
    assert running.end(signal.SIGKILL) == -signal.SIGKILL
    eventually(none_runs(children), within_s=STOPS_WITHIN_S)
    running.start()
    running.send(first)
    running.send(second)
    running.expect_orders(already + 2)


def test_second_interrupt_does_not_cut_the_stopping_short(running: Up) -> None:
    children = running.children()
    assert running.process is not None
    running.process.send_signal(signal.SIGINT)
    eventually(lambda: "Stopping" in running.output)
    assert running.end(signal.SIGINT) == 0
    assert none_runs(children)()


def test_interrupt_while_starting_leaves_nothing_behind(up: Up) -> None:
    up.begin()
    run = up.data_dir / "run"
    eventually(lambda: run.exists() and len(up.children()) >= 2, within_s=READY_WITHIN_S)
    children = up.children()
    assert up.end(signal.SIGINT) == 0
    assert "Stopped before it was ready" in up.output
    assert none_runs(children)()


def test_taken_port_is_named_and_nothing_is_started(up: Up) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        up.begin("--port", str(port))
        assert up.process is not None
        assert up.process.wait(30) == 2
    assert f"port {port} is taken" in up.output
    assert "--port" in up.output
    assert up.children() == {}
