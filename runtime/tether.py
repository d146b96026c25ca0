"""How does a child process die with its parent, also when the parent is killed with -9?

Run as a file, `python -I -S tether.py PARENT_PID SIGNAL COMMAND...`: it asks Linux to send the
signal (SIGTERM, say) when its parent ends (prctl(2), PR_SET_PDEATHSIG), and then becomes the
command, which keeps the request over exec. Imports only what starts in milliseconds. On other
systems it only becomes the command: there the next start finds and stops what a killed one left.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the command, tied to the parent; exit 1 if the parent is already gone."""
    parent, number, command = int(sys.argv[1]), signal.Signals[sys.argv[2]], sys.argv[3:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        # The parent may have ended before the request: then nobody would ever send the signal.
        if os.getppid() != parent:
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - our own fixed commands, by absolute path


if __name__ == "__main__":
    main()
