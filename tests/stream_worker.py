"""A stream worker in a process of its own: what a test starts, pauses and kills."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.waiting import eventually

READY_WITHIN_S = 60.0
ENDS_WITHIN_S = 40.0


class Worker:
    """One worker process; ended by force when the block is left.

    `spoil` is Python that the process runs before it begins to work.
    """

    def __init__(self, directory: Path, name: str, settings_json: str, spoil: str = "") -> None:
        self.name = name
        self._program = f"{spoil}\nfrom tests.stream_worker import main\nmain()"
        self._settings = directory / f"{name}.json"
        self._settings.write_text(settings_json)
        self._ready = directory / f"{name}.ready"
        self._log = directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Start it; it may not have its lanes yet."""
        self._ready.unlink(missing_ok=True)
        root = Path(__file__).parent.parent
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", self._program, str(self._settings), str(self._ready)],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(root)},
            )
        return self

    def times_open(self) -> int:
        """How often this process has opened lanes."""
        return len(self._ready.read_text().splitlines()) if self._ready.exists() else 0

    def wait_open(self, times: int = 1) -> Self:
        """Its lanes are open, `times` times since it started."""

        def is_open() -> bool:
            assert self.exit_code() is None, f"{self.name} ended: {self.said()}"
            return self.times_open() >= times

        eventually(is_open, within_s=READY_WITHIN_S)
        return self

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: signal.Signals) -> int:
        """Send a signal and wait for the end; the exit code (negative: the signal that ended it)."""
        self.send_signal(number)
        return self.wait_end()

    def wait_end(self) -> int:
        """Wait until it has ended by itself; its exit code."""
        assert self._process is not None
        return self._process.wait(ENDS_WITHIN_S)

    def exit_code(self) -> int | None:
        """None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def threads(self) -> int:
        """How many threads it has (Linux)."""
        assert self._process is not None
        return len(list(Path(f"/proc/{self._process.pid}/task").iterdir()))

    def said(self) -> str:
        """All that it wrote to its log, also before it was started again."""
        return self._log.read_text(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if error is not None:
            sys.stderr.write(f"--- {self.name}\n{self.said()[-4000:]}\n")


def main() -> None:
    """Work until a signal, as `headwater run streams` does; add a line when lanes are open."""
    settings_file, ready_file = map(Path, sys.argv[1:])
    sys.argv = sys.argv[:1]  # Faust would read them

    from runtime.logs import configure_logs
    from runtime.settings import load_settings
    from streams.app import run_streams

    def say_open() -> None:
        with ready_file.open("a") as ready:
            ready.write("open\n")

    configure_logs(role="streams", as_json=False)
    run_streams(load_settings(settings_file, {}), on_ready=say_open)
