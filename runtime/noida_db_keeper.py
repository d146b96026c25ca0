"""How does noida-db end only when nothing that it acknowledged can be lost?

noida-db takes SIGTERM as an order to end at once: what it acknowledged since it last wrote its file
(once a second) is gone. And however cleanly it ends, a transaction that was open is dropped, while
the next start answers its commit with "done" (0.2.3): it must not end under its clients. So this
process starts it with the signals that ask to end blocked, and takes them in its stead: while
`headwater up` lives they are refused with a line in the log; once that has died, noida-db hangs up
on its clients, saves, and ends.

Run as a file, `python -I -S noida_db_keeper.py PARENT_PID BINARY DATA_DIR PORT`, under a tether
(runtime/tether.py), whose SIGTERM tells of the parent's death. It ends when noida-db has ended,
with its exit code.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SAVES_WITHIN_S = 300.0
"""For each of the two commands that end it; the larger its log, the longer it saves."""

_ENDS_WITHIN_S = 30.0
_ENDS_AFTER_COMMAND_S = 0.2
_TETHER = Path(__file__).with_name("tether.py")
_ASKING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def end_noida_db(binary: str, data_dir: str, has_ended: Callable[[], bool]) -> bool:
    """It has saved all that it ever acknowledged, and has ended; False if it does neither in time.

    Exact under load too: `stop` hangs up on the clients before it saves, `down` alone only after.
    """
    until_s = time.monotonic() + _ENDS_WITHIN_S
    try:
        # Again and again, because one that is only just starting cannot be reached yet.
        while not has_ended() and time.monotonic() < until_s:
            for command in (["stop", "kafka"], ["down"]):
                subprocess.run(
                    [binary, *command, "--data-dir", data_dir],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=SAVES_WITHIN_S,
                    check=False,
                )
            asked_until_s = time.monotonic() + _ENDS_AFTER_COMMAND_S
            while not has_ended() and time.monotonic() < asked_until_s:
                time.sleep(0.01)
    except (OSError, subprocess.TimeoutExpired):
        return has_ended()
    return has_ended()


def main() -> None:
    """Keep noida-db until it ends; exit with its code."""
    parent, (binary, data_dir, port) = int(sys.argv[1]), sys.argv[2:]
    # Blocked, not ignored: noida-db installs handlers, which would undo that, but unblocks nothing.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ASKING | {signal.SIGCHLD})
    command = [binary, "start", "--data-dir", data_dir, "--only", "kafka", "--kafka-port", port]
    tether = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), "SIGKILL"]
    noida_db = subprocess.Popen([*tether, *command], stdin=subprocess.DEVNULL)
    while noida_db.poll() is None:
        number = signal.sigwait(_ASKING | {signal.SIGCHLD})
        if number not in _ASKING:
            continue
        if os.getppid() == parent:
            name = signal.Signals(number).name
            sys.stderr.write(f"{name} refused: noida-db would lose records; stop headwater up\n")
        elif not end_noida_db(binary, data_dir, lambda: noida_db.poll() is not None):
            sys.stderr.write("noida-db did not end; killed, its last records may be lost\n")
            noida_db.kill()
            noida_db.wait()
    sys.exit(noida_db.returncode if noida_db.returncode >= 0 else 1)


if __name__ == "__main__":
    main()
