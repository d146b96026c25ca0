"""Until when does a lane know everything that its log holds?

A message must not be due because an order has not been read yet: a lane may lag, or an order may
lie right behind the change that it belongs to. So before anything that only silence allows, the
lane asks where its log ends, and waits until it has applied all up to there. What it decides then
is about people of whom nothing was applied since it asked: whoever changed is asked about again.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from runtime.logs import get_logger
from schemas.errors import StoreUnavailable

Ends = Callable[[], dict[str, int]]
"""Of each input the offset after its last record, also where the open transaction of a lane, dead
perhaps, hides it for a while; may raise StoreUnavailable."""


class Known:
    """One lane's question, and the answer that it waits for. Times are UTC ms of its clock."""

    __slots__ = ("_about", "_ask_ends", "_asked_ms", "_changed", "_ends", "until_ms", "wanted")

    def __init__(self, ends: Ends) -> None:
        self._ask_ends = ends
        self.wanted: dict[bytes, None] = {}  # of whom somebody needs to know
        self.until_ms: dict[bytes, int] = {}  # of whom everything is known, up to when
        self._about: frozenset[bytes] = frozenset()
        self._asked_ms = 0
        self._ends: dict[str, int] = {}
        self._changed: set[bytes] = set()

    @property
    def is_waiting(self) -> bool:
        """True from a question until its answer."""
        return bool(self._about)

    async def ask(self, now_ms: int, in_thread: Callable[[Ends], Awaitable[Any]]) -> None:
        """Begin to wait until all is applied that is on the log now.

        All that was applied must be settled, and nothing may be applied meanwhile. While the broker
        does not answer nobody is told anything, and whoever wants to know asks again.
        """
        if self._about:
            return
        about, self.wanted = frozenset(self.wanted), {}
        try:
            self._ends = await in_thread(self._ask_ends)
        except StoreUnavailable as error:
            get_logger().warning("the end of the log cannot be asked for", why=str(error))
            return
        self._about, self._asked_ms = about, now_ms
        self._changed.clear()

    def note(self, changed: Iterable[bytes]) -> None:
        """These people changed since the last barrier."""
        if self._about:
            self._changed.update(changed)

    def answered(self, next_offsets: Mapping[str, int], changed: Iterable[bytes]) -> list[bytes]:
        """Of whom all is known now, once everything up to the ends is applied; `changed` are those
        who changed since the last barrier. They stand in `until_ms` until `forget`."""
        if not self._about or any(next_offsets[at] < end for at, end in self._ends.items()):
            return []
        known = self._about - self._changed - frozenset(changed)
        self._about = frozenset()
        self.until_ms = dict.fromkeys(known, self._asked_ms)
        return list(known)

    def forget(self) -> None:
        """What was known is settled; from now on more may have happened."""
        self.until_ms = {}
