"""How does a process end that must not go on?

Crash-only: a doubtful commit, a broken chain of offsets or a bug ends the process at once, without
acknowledging, aborting or saving anything. The transaction that was open is aborted by its next
owner, and the supervisor starts us again from what is committed (ADR 0002).
"""

import os
import sys
from typing import NoReturn

from runtime.logs import get_logger

EXIT_CRASHED = 70


def crash(why: str, **where: object) -> NoReturn:
    """Say why in one line and end the process with exit code 70.

    `where` names places and numbers, never a value of a person.
    """
    try:
        get_logger().critical(why, **where)
        sys.stderr.flush()
    finally:
        os._exit(EXIT_CRASHED)
