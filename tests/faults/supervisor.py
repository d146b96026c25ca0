"""Who starts again what has died, while a rig runs?

A part that ends is started after a pause, which doubles while it keeps ending soon; unless a fault
holds it down.
"""

import threading
import time
from collections.abc import Callable, Iterable

from tests.faults.parts import Part

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 3.0
STEADY_AFTER_S = 5.0
_TEND_EVERY_S = 0.05


class Supervisor:
    """A thread that tends parts. What it started ends with it, so `end` comes last."""

    def __init__(self, parts: Callable[[], Iterable[Part]]) -> None:
        self._parts = parts
        self._pauses: dict[str, float] = {}
        self._started: dict[str, float] = {}
        self._due: dict[str, float] = {}
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._tending = threading.Lock()
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    def start(self) -> None:
        """From now on what dies is started again."""
        self._thread.start()

    def let_go(self) -> None:
        """Nothing is started any more."""
        self._stopping.set()
        with self._tending:
            return

    def end(self) -> None:
        """The thread may end: nothing that it started runs any more."""
        self._stopped.set()

    def _supervise(self) -> None:
        while not self._stopping.wait(_TEND_EVERY_S):
            with self._tending:
                for part in self._parts():
                    if not part.is_held_down and not self._stopping.is_set():
                        self._tend(part)
        # What a thread has started is ended with it (runtime/tether.py).
        self._stopped.wait()

    def _tend(self, part: Part) -> None:
        now, name = time.monotonic(), part.name
        if part.is_alive():
            if now - self._started.setdefault(name, now) > STEADY_AFTER_S:
                self._pauses.pop(name, None)
        elif name not in self._due:
            pause = self._pauses.get(name, FIRST_PAUSE_S)
            self._pauses[name] = min(2 * pause, LONGEST_PAUSE_S)
            self._due[name] = now + pause
        elif now >= self._due[name]:
            del self._due[name]
            self._started[name] = now
            part.start()
