"""How do coroutines run when only the model moves the time, and threads work only when it says so?

An asyncio loop without sockets: sleeping moves the clock, and what is handed to a thread waits until
the model lets it run, so that a seed decides every order.
"""

import asyncio
import selectors
from collections.abc import Callable
from typing import Any

from schemas.errors import StreamError
from tests.model.memory_kafka import Clock


class Call:
    """Work that a coroutine handed to a thread; `run` does it and answers."""

    __slots__ = ("_future", "_work")

    def __init__(self, work: Callable[[], Any], future: "asyncio.Future[Any]") -> None:
        self._work = work
        self._future = future

    def run(self) -> None:
        """Do the work. An exception goes to whoever waits, and out, unless it is of our own tree."""
        try:
            answer = self._work()
        except StreamError as error:
            if not self._future.done():
                self._future.set_exception(error)
            return
        except BaseException as error:
            if not self._future.done():
                self._future.set_exception(error)
            raise
        if not self._future.done():
            self._future.set_result(answer)


class _NoFiles(selectors.SelectSelector):
    """Waits for nothing but time."""

    def __init__(self, clock: Callable[[], Clock]) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits, and nothing will ever happen")
        if timeout > 0:
            self._clock().now_s += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """`clock` is the time of the model under way; `handed_over` takes what threads should do."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.handed_over: Callable[[Call, Any], None] = lambda _call, _owner: None
        super().__init__(_NoFiles(lambda: self.clock))

    def time(self) -> float:
        return self.clock.now_s

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        future = self.create_future()
        self.handed_over(Call(lambda: func(*args), future), asyncio.current_task())
        return future

    def is_idle(self) -> bool:
        """True when no coroutine but the one that asks can go on now."""
        return not self._ready  # type: ignore[attr-defined]

    def forget_timers(self) -> None:
        """Nothing that was to happen later will."""
        self._scheduled.clear()  # type: ignore[attr-defined]

    def _write_to_self(self) -> None:
        """There is one thread."""
