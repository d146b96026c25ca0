"""What can go wrong between a sink and its store?

One rule for both stores: a call may not arrive, arrive in part, arrive without its answer, or be the
caller's last; a caller may fall asleep, and what it was about to write lands later, beside its
successor's; a server that went back to an earlier state has cut its connections.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.model.memory_kafka import Died

FATES = ("dies early", "dies late", "torn", "lost", "answer lost", "sleeps", "goes back",
         "cut off", "forgets")  # fmt: skip
Write = Callable[[], None]
T = TypeVar("T")


class Server:
    """A store's process: a journal of writes, of which it can lose the newest."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.journal: list[Write] = []
        self.restarts = 0
        self.is_silent = False  # whoever was idle meanwhile connects again without a word
        self.is_calm = False
        self.may_go_back = True
        self.forgets = False  # in the middle of a batch, without a sign
        self.met: Counter[str] = Counter()
        self.asleep: list[list[Write]] = []  # what each sleeper is about to write, in its order

    def apply(self, write: Write) -> None:
        """Keep a write, and let it take effect."""
        self.journal.append(write)
        write()

    def clear(self) -> None:
        """Forget everything that writes left."""
        raise NotImplementedError

    def go_back(self, *, is_silent: bool = False) -> None:
        """The newest writes are lost, and so is every connection with what was under way on it."""
        self.is_silent = is_silent
        kept = self.chance.choice((0, self.chance.randint(0, len(self.journal)), len(self.journal)))
        kept = max(kept, len(self.journal) - self.chance.choice((1, 2, 3, 100)))
        del self.journal[kept:]
        self.clear()
        for write in self.journal:
            write()
        self.restarts += 1
        self.asleep.clear()
        self.met["went back"] += 1

    def wake_one(self) -> None:
        """A sleeper writes the next thing that it was about to write."""
        if self.asleep:
            sleeper = self.chance.choice(self.asleep)
            if sleeper:
                self.apply(sleeper.pop(0))
            else:
                self.asleep.remove(sleeper)


class Connection:
    """One process's way to a server."""

    def __init__(
        self,
        server: Server,
        unavailable: Callable[[], BaseException],
        connected: Callable[[], object] = lambda: None,
    ) -> None:
        self._server = server
        self._unavailable = unavailable
        self._connected = connected
        self._restarts = -1
        self.sleeper: list[Write] | None = None

    def ask(self, answer: Callable[[], T]) -> T:
        """What the server answers."""
        self._reach()
        if not self._server.is_calm and self._server.chance.random() < 0.02:
            raise self._unavailable()
        return answer()

    def write(self, writes: Sequence[Write], *, is_last: bool = False) -> None:
        """`writes` took effect, in this order. A sleeper ends with what `is_last`."""
        server, chance = self._server, self._server.chance
        if self.sleeper is not None:
            self.sleeper += writes
            if is_last:
                raise Died("asleep, and shut out")
            return
        self._reach()
        fate = ""
        if not server.is_calm and chance.random() < 0.08:
            fate = chance.choice(FATES)
            server.met[fate] += 1
        if fate == "dies early":
            raise Died("before a write")
        if fate == "goes back" and server.may_go_back:
            server.go_back()
            self._restarts = -1
        if fate in ("lost", "goes back"):
            raise self._unavailable()
        if fate == "sleeps":
            self.sleeper = list(writes)
            server.asleep.append(self.sleeper)
            if is_last:
                raise Died("asleep, and shut out")
            return
        is_part = fate in ("torn", "cut off")
        for write in writes[: chance.randint(0, len(writes))] if is_part else writes:
            server.apply(write)
        if fate == "forgets" and server.forgets:
            # It went back after it had answered, and the next call finds a new connection.
            server.go_back(is_silent=True)
        if fate in ("torn", "dies late"):
            raise Died("after a write")
        if fate in ("answer lost", "cut off"):
            raise self._unavailable()

    def _reach(self) -> None:
        known, self._restarts = self._restarts, self._server.restarts
        if known != self._restarts:
            self._connected()
            if known >= 0 and not self._server.is_silent:
                raise self._unavailable()
