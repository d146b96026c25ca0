"""Is nothing left behind, and nothing of somebody else's touched?"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.processes import (
    Child,
    free_ports,
    is_running,
    lock_directory,
    start_child,
    stop_left_over,
)
from schemas.errors import SettingInvalid
from tests.waiting import eventually

WAITS = [sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"]
IGNORES = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\n"
    "while True: signal.pause()",
]


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    started = _start(tmp_path, WAITS)
    yield started
    started.stop(within_s=5)


def _start(directory: Path, command: list[str]) -> Child:
    child = start_child(
        "waiter", command, log_file=directory / "waiter.log", pid_file=directory / "waiter.pid"
    )
    eventually(lambda: "up" in child.log_tail(), within_s=20)
    return child


def test_a_child_stops_on_sigterm_and_forgets_its_pid_file(child: Child) -> None:
    assert child.poll() is None
    assert child.stop(within_s=10) == -signal.SIGTERM
    assert not is_running(child.pid)
    assert not child.pid_file.exists()


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    assert _start(tmp_path, IGNORES).stop(within_s=0.2) == -signal.SIGKILL


def test_a_child_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from runtime.processes import start_child
d = Path({str(tmp_path)!r})
child = start_child("waiter", {WAITS!r}, log_file=d / "log", pid_file=d / "pid")
print(child.pid, flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        eventually(lambda: "up" in (tmp_path / "log").read_text(), within_s=20)
        assert is_running(pid)
        owner.kill()
    eventually(lambda: not is_running(pid), within_s=10)


def test_a_left_over_process_is_stopped(child: Child) -> None:
    assert stop_left_over(child.pid_file, within_s=10)
    eventually(lambda: child.poll() is not None, within_s=10)
    assert not child.pid_file.exists()


@pytest.mark.parametrize("field", ["started", "boot"])
def test_a_pid_that_now_belongs_to_another_is_left_alone(child: Child, field: str) -> None:
    identity = json.loads(child.pid_file.read_text())
    child.pid_file.write_text(json.dumps({**identity, field: "another"}))
    assert not stop_left_over(child.pid_file, within_s=10)
    assert child.poll() is None
    assert not child.pid_file.exists()


@pytest.mark.parametrize("text", ["", "x", "{}", "[1]", '{"pid": "?", "boot": 1, "started": 2}'])
def test_a_broken_pid_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    pid_file = tmp_path / "pid"
    pid_file.write_text(text)
    assert not stop_left_over(pid_file, within_s=1)
    assert not stop_left_over(tmp_path / "missing", within_s=1)
    assert not pid_file.exists()


def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    lock = lock_directory(tmp_path / "made")
    with pytest.raises(SettingInvalid, match=f"in use by process {os.getpid()}; stop that one"):
        lock_directory(tmp_path / "made")
    lock.release()
    lock_directory(tmp_path / "made").release()


def test_the_lock_of_a_killed_owner_is_free(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from runtime.processes import lock_directory
lock = lock_directory(Path({str(tmp_path)!r}))
print("locked", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None and owner.stdout.readline()
        with pytest.raises(SettingInvalid, match=f"process {owner.pid}"):
            lock_directory(tmp_path)
        owner.kill()
    lock_directory(tmp_path).release()


def test_ports_are_kept_unless_taken() -> None:
    first, second = free_ports(2)
    assert free_ports(2, [first, second]) == [first, second]
    with socket.create_server(("127.0.0.1", first)):
        kept, fresh = free_ports(2, [second, first])
        assert kept == second
        assert fresh not in (first, second)


def test_ports_lie_where_no_outgoing_connection_begins() -> None:
    assert all(15_000 <= port < 32_768 for port in free_ports(20))
