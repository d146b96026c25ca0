"""How does a process die at one certain line of the product, which knows nothing of it?

`python -m tests.faults.points DIRECTORY PART run ROLE ...` is `headwater run ROLE ...` with named
methods wrapped from outside. Each passing looks whether DIRECTORY holds a file of the point's name;
whoever renames it first does what it says: `kill`, `term`, `stop`, or a number of seconds and one
of these, for a point that lies within a call. The clock of the part is the machine's plus the
seconds in DIRECTORY/clock.PART, if there is such a file.
"""

import functools
import importlib
import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "stop": signal.SIGSTOP}


@dataclass(frozen=True, slots=True)
class Point:
    """A moment of a role: before, within or after a call of `module`'s `method`."""

    role: str
    moment: Literal["before", "within", "after"]
    module: str
    method: str


def _points(role: str, module: str, **methods: tuple[str, tuple[str, ...]]) -> dict[str, Point]:
    return {
        f"{role}.{moment}-{name}": Point(role, moment, module, method)  # type: ignore[arg-type]
        for name, (method, moments) in methods.items()
        for moment in moments
    }


_ALL = ("before", "within", "after")
POINTS: Mapping[str, Point] = MappingProxyType(
    _points(
        "streams",
        "streams.lane",
        fence=("LaneProducer.fence", ("before", "after")),
        rebuild=("Lane._rebuild", ("within", "after")),
        apply=("Lane._apply", ("after",)),
        commit=("LaneProducer.commit", _ALL),
        close=("Lane.close", ("before", "after")),
    )
    | _points(
        "streams",
        "runtime.lane_transport",
        flow=("LaneConsumer.perform_seek", ("before", "after")),
    )
    | _points(
        "accepted-to-clickhouse",
        "sinks.counter_store",
        start=("CounterStore.progress", ("after",)),
        facts=("CounterStore.insert_facts", _ALL),
        counters=("CounterStore.insert_counters", ("within", "after")),
        progress=("CounterStore.insert_progress", ("within", "after")),
    )
    | _points(
        "subjects-to-redis",
        "sinks.profile_store",
        start=("ProfileStore.positions", ("after",)),
        profiles=("ProfileStore.write", _ALL),
        cursors=("ProfileStore.move_cursors", ("within", "after")),
        sync=("ProfileStore.make_durable", ("within", "after")),
    )
    | _points(
        "collector",
        "producers.calls_to_collected",
        people=("AsyncVault.resolve", ("after",)),
        send=("Deliveries.send", _ALL),
    )
)


def main() -> None:
    """Run the role with its points; never returns normally before the role ends."""
    directory, part, *arguments = sys.argv[1:]
    role = arguments[1]
    sys.argv = ["headwater"]  # Faust reads the arguments when it is imported
    _shift_clock(Path(directory) / f"clock.{part}")
    for name, point in POINTS.items():
        if point.role == role:
            wrap(point, functools.partial(_pass_by, Path(directory), name))
    sys.argv = ["headwater", *arguments]
    from headwater.cli import main as headwater

    headwater()


def owner_of(point: Point) -> Any:
    """The class of the point's method, as its module knows it."""
    return getattr(importlib.import_module(point.module), point.method.partition(".")[0])


def wrap(point: Point, pass_by: Callable[[bool], None]) -> None:
    """The product's method calls `pass_by` at the point's moment, each time.

    Raises AttributeError when the product has no such method any more.
    """
    owner, name = owner_of(point), point.method.partition(".")[2]
    wrapped: Callable[..., Any] = getattr(owner, name)
    is_late = point.moment == "within"

    if inspect.iscoroutinefunction(wrapped):

        @functools.wraps(wrapped)
        async def passing(*arguments: Any, **options: Any) -> Any:
            if point.moment != "after":
                pass_by(is_late)
            answer = await wrapped(*arguments, **options)
            if point.moment == "after":
                pass_by(is_late)
            return answer

    else:

        @functools.wraps(wrapped)
        def passing(*arguments: Any, **options: Any) -> Any:
            if point.moment != "after":
                pass_by(is_late)
            answer = wrapped(*arguments, **options)
            if point.moment == "after":
                pass_by(is_late)
            return answer

    setattr(owner, name, passing)


def _pass_by(directory: Path, name: str, is_late: bool) -> None:
    try:
        what = (directory / name).read_text().split()
        (directory / name).rename(directory / f"{name}.{os.getpid()}.hit")
    except OSError:
        return  # not armed, or another process was faster
    number = SIGNALS[what[-1]]
    if is_late and len(what) > 1:

        def strike() -> None:
            time.sleep(float(what[0]))
            os.kill(os.getpid(), number)

        threading.Thread(target=strike, daemon=True).start()
    else:
        os.kill(os.getpid(), number)


def _shift_clock(file: Path) -> None:
    from runtime import clock

    true_now_ms = clock.now_ms

    def now_ms() -> int:
        try:
            return true_now_ms() + round(float(file.read_text()) * 1000)
        except (OSError, ValueError):
            return true_now_ms()

    # Before anything else of the product is imported, so that all of it has this one.
    clock.now_ms = now_ms


if __name__ == "__main__":
    main()
