"""What time is it? Asked here and passed on, so that rules and tests need no real clock.

Moments are of the house: when something happened, was decided, is due. They are read from `now_ms`,
which is this machine's clock, or the one that all processes of a fast demo share (ADR 0028): eight
bytes in a file, which stand still until the demo puts them forward. What is about the machine is
read from `real_ms`, and what lasts is measured by `time.monotonic` or by the server that forgets
it: neither goes faster in a fast demo.
"""

import mmap
import sys
import time
from collections.abc import Callable
from pathlib import Path

from schemas.errors import SettingInvalid

ClockMs = Callable[[], int]
"""Gives UTC milliseconds since 1970."""

_BYTES = 8
_shared: "memoryview[int] | None" = None


def now_ms() -> int:
    """UTC milliseconds since 1970: the time of this house."""
    return real_ms() if _shared is None else _shared[0]


def real_ms() -> int:
    """UTC milliseconds since 1970, by this machine's clock, whatever the house takes it for."""
    return time.time_ns() // 1_000_000


def follow(clock_file: str) -> None:
    """From now on this process's `now_ms` is the shared clock in that file; "": the machine's.

    Raises SettingInvalid when there is none.
    """
    global _shared
    _shared = _view_of(Path(clock_file), is_ours=False) if clock_file else None


class SharedClock:
    """The clock of a house as its owner puts it forward; everybody else follows its file."""

    def __init__(self, file: Path, at_ms: int) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(at_ms.to_bytes(_BYTES, sys.byteorder))
        self._view = _view_of(file, is_ours=True)

    def __call__(self) -> int:
        return self._view[0]

    def put_to(self, at_ms: int) -> None:
        """It shows `at_ms`, to everybody at once. Raises ValueError for a time before."""
        if at_ms < self._view[0]:
            raise ValueError("a clock that others go by is never put back")
        self._view[0] = at_ms


def _view_of(file: Path, *, is_ours: bool) -> "memoryview[int]":
    try:
        with file.open("r+b" if is_ours else "rb") as opened:
            access = mmap.ACCESS_WRITE if is_ours else mmap.ACCESS_READ
            mapped = mmap.mmap(opened.fileno(), _BYTES, access=access)
    except (OSError, ValueError) as error:
        raise SettingInvalid(f"[time] clock_file: {file} is not the clock of a demo") from error
    # One word of the machine: whoever reads meanwhile sees the old time or the new one.
    return memoryview(mapped).cast("q")
