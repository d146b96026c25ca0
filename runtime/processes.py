"""How are child processes started so that none is ever left behind?

Three nets. A child is tied to its parent by the kernel (runtime/tether.py); it writes down who it
is, so that the next start stops one that was left anyway; and a data directory is locked, so that
two owners never start servers on one set of files.

The kernel sends the signal when the *thread* that started the child ends (prctl(2)), so start
children from a thread that lives as long as they should: the main thread, or a supervisor's own.
"""

import fcntl
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.errors import SettingInvalid

_TETHER = Path(__file__).with_name("tether.py")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
LOG_LIMIT_BYTES = 5_000_000
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Child:
    """A running (or ended) child of this process."""

    name: str
    pid: int
    log_file: Path
    pid_file: Path
    _process: "subprocess.Popen[bytes]"

    def poll(self) -> int | None:
        """Its exit code, or None while it runs; a signal's number negative."""
        return self._process.poll()

    def ask_to_end(self) -> None:
        """Send SIGTERM if it still runs."""
        if self._process.poll() is None:
            self._process.terminate()

    def stop(self, *, within_s: float) -> int:
        """End it with SIGTERM, after `within_s` with SIGKILL; it has ended afterwards."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(within_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        exit_code = self._process.wait()
        self.pid_file.unlink(missing_ok=True)
        return exit_code

    def log_tail(self, lines: int = 15) -> str:
        """The last lines that it wrote; empty if none."""
        return tail(self.log_file, lines)


def start_child(
    name: str,
    command: Sequence[str],
    *,
    log_file: Path,
    pid_file: Path,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Child:
    """Start `command` (by absolute path), tied to the calling thread, its output in `log_file`.

    `environment` is added to this process's own. Call `stop_left_over(pid_file)` before.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    if log_file.exists() and log_file.stat().st_size > LOG_LIMIT_BYTES:
        log_file.replace(log_file.with_suffix(".1.log"))
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), "SIGTERM", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            cwd=directory,
            # Its own group: Ctrl-C reaches us alone, and we stop the servers in the right order.
            start_new_session=True,
        )
    identity = {"pid": process.pid, "started": _started(process.pid), "boot": _boot_id()}
    pid_file.write_text(json.dumps(identity))
    return Child(name, process.pid, log_file, pid_file, process)


def stop_left_over(pid_file: Path, *, within_s: float) -> bool:
    """Stop the process that `pid_file` names if it still runs; tell whether it did.

    A process counts as the same only if it began at the same tick of the same boot: a number that
    the system has given to somebody else since is left alone.
    """
    try:
        identity = json.loads(pid_file.read_text())
        pid = int(identity["pid"])
        is_same = identity["boot"] == _boot_id() and identity["started"] == _started(pid)
    except (OSError, ValueError, KeyError, TypeError):
        pid_file.unlink(missing_ok=True)
        return False
    was_running = is_same and is_running(pid)
    if was_running:
        _signal(pid, signal.SIGTERM)
        if not _ended(pid, within_s):
            _signal(pid, signal.SIGKILL)
            _ended(pid, 10)
    pid_file.unlink(missing_ok=True)
    return was_running


def is_running(pid: int) -> bool:
    """True if there is such a process and it is not merely waiting to be collected."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _stat(pid)[:1] not in (["Z"], ["X"])


@dataclass(frozen=True, slots=True)
class DirectoryLock:
    """Sole use of a directory, until released or the process ends."""

    _file_descriptor: int

    def release(self) -> None:
        """Let others have it."""
        os.close(self._file_descriptor)


def lock_directory(directory: Path) -> DirectoryLock:
    """Take `directory` (made if missing) for this process alone.

    Raises SettingInvalid if another process has it, naming it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise SettingInvalid(
            f"data_dir {directory} is in use by process {owner}; stop that one, "
            "or choose another with --data-dir or HEADWATER_DATA_DIR"
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return DirectoryLock(descriptor)


def free_ports(count: int, wanted: Sequence[int] = ()) -> list[int]:
    """`count` different loopback ports that nobody uses: of `wanted` as many as are still free.

    They lie below the range from which the system takes the near end of outgoing connections.
    Otherwise a client that keeps trying a stopped server can be given that very port as its own,
    connect to itself, and keep the server from coming back.
    """
    candidates = itertools.chain(
        wanted, iter(lambda: random.randrange(15_000, _outgoing_from()), 0)
    )
    held: dict[int, socket.socket] = {}
    try:
        while len(held) < count:
            port = next(candidates)
            if port not in held and (bound := _bound(port)) is not None:
                held[port] = bound
        return list(held)
    finally:
        for each in held.values():
            each.close()


def tail(path: Path, lines: int) -> str:
    """The last `lines` lines of a file; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _bound(port: int) -> socket.socket | None:
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # As servers do, so that connections of a moment ago do not make a port look taken.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
    except OSError:
        bound.close()
        return None
    return bound


def _outgoing_from() -> int:
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        return max(16_000, min(32_768, int(text.split()[0])))
    except (OSError, ValueError, IndexError):
        return 32_768


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _ended(pid: int, within_s: float) -> bool:
    until_s = time.monotonic() + within_s
    while is_running(pid):
        if time.monotonic() > until_s:
            return False
        time.sleep(_POLL_S)
    return True


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third, state, on; empty where there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()


def _started(pid: int) -> str:
    """When a process began, in the system's own words; a number given anew has another."""
    # Field 22 of proc(5): start time in clock ticks after boot.
    if sys.platform == "linux":
        fields = _stat(pid)
        return fields[19] if len(fields) > 19 else "ended"
    ps = subprocess.run(
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return ps.stdout.strip() or "ended"


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
