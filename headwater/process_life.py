"""How does a process of ours show its numbers, and how does it end?

When it is asked to, by a signal; and when the process that started it is gone, so that nothing of
a `headwater up` stays behind.
"""

import os
import signal
import threading
import time
from pathlib import Path

from headwater.keys import write_private
from runtime.metrics_port import PATH, serve_metrics
from runtime.settings import Settings

_LEAVES_AFTER_PARENT_S = 20.0


def show_metrics(settings: Settings, file: Path | None = None) -> None:
    """This process's numbers are on [metrics] port, or on a free one that `file` then names.

    Raises SettingInvalid when the port is taken.
    """
    keys = [key for role, key in settings.http.keys.items() if role in ("operator", "admin")]
    if file is not None:
        # Beside others on this host: a configured port would be everybody's.
        port = serve_metrics("127.0.0.1", 0, keys)
        write_private(file, f"http://127.0.0.1:{port}{PATH}\n")
    elif settings.metrics.port:
        serve_metrics(settings.metrics.host, settings.metrics.port, keys)


def stop_on_signal() -> threading.Event:
    """An event that is set once somebody asks this process to stop."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def leave_with_parent() -> None:
    """End this process some time after its parent, even if it is stuck in its work.

    The kernel's SIGTERM comes first (runtime/tether.py); this is for a process that hangs on it.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        time.sleep(_LEAVES_AFTER_PARENT_S)
        os._exit(1)

    threading.Thread(target=watch, name="leave with parent", daemon=True).start()
