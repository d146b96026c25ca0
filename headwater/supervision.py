"""How is a part of Headwater kept running, and how is all of it asked to stop?

A part is a server or a process of roles. One that ends is started again after a pause that doubles
while it keeps failing, so that a part that cannot run costs little and comes back by itself when
the reason is gone.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

from runtime.processes import Child, start_child, stop_left_over
from schemas.errors import StreamError

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
STEADY_AFTER_S = 15.0
"""A part that ran this long has recovered: its next pause is the first one again."""
ROLE_STOPS_WITHIN_S = 20.0

Say = Callable[[str], None]


class Part(Protocol):
    """A server or a role, as the supervisor sees it."""

    name: str
    log_file: Path

    def start(self) -> None:
        """Start it; it may not be ready yet."""

    def is_alive(self) -> bool:
        """True while its process runs."""


class RoleProcess:
    """One process of roles: started, asked whether it is ready, stopped."""

    def __init__(self, name: str, roles: Sequence[str], data_dir: Path, settings_file: Path):
        self.name = name
        self.log_file = data_dir / "logs" / f"{name}.log"
        self._pid_file = data_dir / "run" / f"{name}.pid"
        self._ready_file = data_dir / "run" / f"{name}.ready"
        self._metrics_file = self._ready_file.with_suffix(".metrics")
        self._arguments = ["run", *roles, "--settings", str(settings_file)]
        self._arguments += ["--ready-file", str(self._ready_file)]
        self._child: Child | None = None

    def start(self) -> None:
        """Start it, after stopping one that a killed owner left."""
        self.stop_left_over()
        self._ready_file.unlink(missing_ok=True)
        self._metrics_file.unlink(missing_ok=True)
        self._child = start_child(
            self.name,
            [sys.executable, "-m", "headwater", *self._arguments],
            log_file=self.log_file,
            pid_file=self._pid_file,
            environment={"PYTHONSAFEPATH": "1", "PYTHONPATH": _python_path()},
        )

    def stop_left_over(self) -> None:
        """Stop a process of this name that a killed owner left, if there is one."""
        stop_left_over(self._pid_file, within_s=ROLE_STOPS_WITHIN_S)

    def is_alive(self) -> bool:
        """True while its process runs, ready or not."""
        return self._child is not None and self._child.poll() is None

    def is_ready(self) -> bool:
        """True once this very process has said so."""
        try:
            said = self._ready_file.read_text("utf-8").strip()
        except OSError:
            return False
        return self._child is not None and said == str(self._child.pid) and self.is_alive()

    @property
    def exit_code(self) -> int | None:
        """Its exit code, or None while it runs; a signal's number negative."""
        return self._child.poll() if self._child else None

    def begin_stop(self) -> None:
        """Ask it to end, without waiting."""
        if self._child is not None:
            self._child.ask_to_end()

    def stop(self) -> None:
        """It has ended afterwards, by force only when it takes too long."""
        if self._child is not None:
            self._child.stop(within_s=ROLE_STOPS_WITHIN_S)
        self._ready_file.unlink(missing_ok=True)
        self._metrics_file.unlink(missing_ok=True)


@dataclass(slots=True)
class Restarts:
    """Brings parts back, each with its own pause. `now_s` is any steady clock."""

    say: Say
    now_s: Callable[[], float] = time.monotonic
    _pause_s: dict[str, float] = field(default_factory=dict)
    _started_at_s: dict[str, float] = field(default_factory=dict)
    _due_at_s: dict[str, float] = field(default_factory=dict)

    def tend(self, part: Part) -> None:
        """Start `part` if it has ended and its pause is over; say so once when it ends."""
        now_s, name = self.now_s(), part.name
        if name in self._due_at_s:
            if now_s >= self._due_at_s[name]:
                del self._due_at_s[name]
                self._started_at_s[name] = now_s
                try:
                    part.start()
                except (StreamError, OSError) as error:
                    # It is not alive, so the next round tries again, later.
                    self.say(f"{name} cannot be started: {error}")
        elif part.is_alive():
            if now_s - self._started_at_s.setdefault(name, now_s) >= STEADY_AFTER_S:
                self._pause_s.pop(name, None)
        else:
            pause_s = self._pause_s.get(name, FIRST_PAUSE_S)
            self._pause_s[name] = min(2 * pause_s, LONGEST_PAUSE_S)
            self._due_at_s[name] = now_s + pause_s
            code = getattr(part, "exit_code", None)
            how = "" if code is None else f" with {say_exit(code)}"
            self.say(f"{name} ended{how}; starting it again in {pause_s:g} s (see {part.log_file})")


class StopRequest:
    """Whether somebody asked this process to stop, by Ctrl-C, SIGTERM or closing the terminal."""

    def __init__(self, say: Say) -> None:
        self.is_asked = False
        self._is_starting = True
        self._say = say

    def begin_waiting(self) -> None:
        """From now on a request is only noted; before, it interrupts."""
        self._is_starting = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Note the request; while starting, interrupt what waits."""
        if self.is_asked:
            # Killing servers in the middle of saving would only cost data.
            self._say("Still stopping; the servers are saving their data.")
            return
        self.is_asked = True
        if self._is_starting:
            raise KeyboardInterrupt


@contextmanager
def asked_to_stop(say: Say) -> Iterator[StopRequest]:
    """Take the signals that ask to stop; afterwards they are handled as before."""
    request = StopRequest(say)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, request.on_signal) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _python_path() -> str:
    ours = str(Path(__file__).parent.parent)
    theirs = os.environ.get("PYTHONPATH")
    return f"{ours}{os.pathsep}{theirs}" if theirs else ours


def say_exit(code: int) -> str:
    """An exit code in words; a signal's number is negative."""
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
