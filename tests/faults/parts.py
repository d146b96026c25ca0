"""What can be done to one process of a running Headwater, be it a server or a role?

Killed, stopped, put to sleep and woken, started again: each by its own process id. Who restarts it
is the rig's business (tests/faults/rig.py), unless a fault holds it down.
"""

import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from runtime.processes import Child, start_child
from runtime.servers import Server
from tests.waiting import eventually

ROOT = Path(__file__).parents[2]
READY_WITHIN_S = 90.0
STOPS_WITHIN_S = 30.0


class Part(ABC):
    """One process. Methods may be called from the fault's thread and from the supervisor's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_held_down = False
        """True while nobody but the fault may start it."""
        self.starts = 0
        self._lock = threading.RLock()

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """Its process id; None before its first start."""

    @property
    @abstractmethod
    def log_file(self) -> Path: ...

    @abstractmethod
    def is_alive(self) -> bool:
        """True while its process runs, asleep too."""

    @abstractmethod
    def is_ready(self) -> bool:
        """True once it does its work, as far as it says so itself."""

    @abstractmethod
    def _start(self) -> None: ...

    @abstractmethod
    def stop(self) -> None:
        """It has ended, by force if need be; for the end of a rig."""

    def start(self) -> None:
        """Start it, if it does not run."""
        with self._lock:
            if not self.is_alive():
                self._start()
                self.starts += 1

    def send(self, number: int) -> bool:
        """Send a signal; False when it has ended already."""
        with self._lock:
            if self.pid is None or not self.is_alive():
                return False
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return False
            return True

    def kill(self) -> bool:
        """End it in the middle of whatever it does."""
        return self.send(signal.SIGKILL)

    def terminate(self) -> bool:
        """Ask it to end."""
        return self.send(signal.SIGTERM)

    def pause(self) -> bool:
        """Put it to sleep: its connections stay, it answers nothing."""
        return self.send(signal.SIGSTOP)

    def go_on(self) -> bool:
        """Wake it; it knows nothing of the time between."""
        return self.send(signal.SIGCONT)

    def wait_ended(self, within_s: float = STOPS_WITHIN_S) -> None:
        """Return once it has ended."""
        eventually(lambda: not self.is_alive(), within_s=within_s)

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Return once it does its work."""
        eventually(self.is_ready, within_s=within_s, every_s=0.1)


class ServerPart(Part):
    """A server of runtime/servers.py."""

    def __init__(self, server: Server) -> None:
        super().__init__(server.name)
        self.server = server

    @property
    def pid(self) -> int | None:
        return self.server.pid

    @property
    def log_file(self) -> Path:
        return self.server.log_file

    @property
    def address(self) -> str:
        return self.server.address

    def is_alive(self) -> bool:
        return self.server.is_alive()

    def is_ready(self) -> bool:
        return self.is_alive() and self.server._is_ready()  # asked once, without waiting

    def _start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.go_on()
        self.server.stop()


class RolePart(Part):
    """`headwater run ROLE`, with the named points of tests/faults/points.py around it."""

    def __init__(
        self, name: str, roles: Sequence[str], directory: Path, settings_file: Path
    ) -> None:
        super().__init__(name)
        self.role = roles[0]
        self._log_file = directory / "logs" / f"{name}.log"
        self._pid_file = directory / "run" / f"{name}.pid"
        self._ready_file = directory / "run" / f"{name}.ready"
        self._child: Child | None = None
        self.prefix: tuple[str, ...] = ()
        """Words before its command, from its next start on: a namespace to run in."""
        self._command = [
            *(sys.executable, "-m", "tests.faults.points", str(directory / "points"), name),
            *("run", *roles, "--settings", str(settings_file)),
            *("--ready-file", str(self._ready_file)),
        ]

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def log_file(self) -> Path:
        return self._log_file

    @property
    def exit_code(self) -> int | None:
        """Its exit code, or None while it runs; a signal's number negative."""
        return self._child.poll() if self._child else None

    def is_alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def is_ready(self) -> bool:
        try:
            said = self._ready_file.read_text("utf-8").strip()
        except OSError:
            return False
        return said == str(self.pid) and self.is_alive()

    def _start(self) -> None:
        self._ready_file.unlink(missing_ok=True)
        self._child = start_child(
            self.name,
            [*self.prefix, *self._command],
            log_file=self._log_file,
            pid_file=self._pid_file,
            environment={"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"},
        )

    def stop(self) -> None:
        self.go_on()
        if self._child is not None:
            self._child.stop(within_s=STOPS_WITHIN_S)
