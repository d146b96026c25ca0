"""How does automation die between two steps of a message, and what does a reference need to know of it?

The real store, as a process has it that ends before a call or after it: from then on nothing of that
process does anything. What it left behind is noted, message by message. Some did not die but slept:
once another process has their message, they try to go on with it.
"""

import random
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from consumers.messages.store import CLAIMED_FOR_MS, Begun, Claimed, MessageStore, Put
from consumers.rules.messages import Decided, Message
from tests.mailing import Clock, Killed


@dataclass
class Fate:
    """What befalls automation, and what came of it: the faults that a reference must know of.

    `waits` says of each message at which times nobody could go on with it, and until when; those in
    `interrupted` were `sending` when their process died.
    """

    chance: random.Random
    deaths: float
    met: Counter[str] = field(default_factory=Counter)
    waits: dict[bytes, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))
    interrupted: set[bytes] = field(default_factory=set)
    asleep: dict[str, list[Callable[["MortalStore"], bool]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """Of messages (by id) the steps that a process was about to take; each tells whether it took it."""
    wrong: set[str] = field(default_factory=set)


class MortalStore(MessageStore):
    """The store as one process has it, which dies before a call or after it, and stays dead."""

    fate: Fate
    clock: Clock

    def live(self, fate: Fate, clock: Clock) -> None:
        """A process begins."""
        self.fate, self.clock = fate, clock
        self.read_to: dict[str, int] = {}
        self._is_dead = False
        self._claimed: dict[str, bool] = {}  # id -> whether it is being sent
        self._lock = threading.Lock()

    def schedule(self, put: Sequence[Put], now_ms: int, positions: Any) -> int:
        """As the store's."""
        self._at("before it is scheduled")
        new = super().schedule(put, now_ms, positions)
        self.read_to |= {p: int(at.partition(":")[2]) for p, at in positions.items()}
        self._at("after it was scheduled")
        return new

    def claim(self, owner: str, now_ms: int, most: int) -> list[Claimed]:
        """As the store's."""
        self._at("before the claim")
        found = super().claim(owner, now_ms, most)
        for each in found:
            if each.message.state == "claimed":
                self._claimed[each.message.id] = False
        for each in found:
            for go_on in self.fate.asleep.pop(each.message.id, ()):
                self.fate.met["woke up"] += 1
                if go_on(self):
                    self.fate.wrong.add("who slept went on with a message of another")
        if found:
            self._at("after the claim")
        return found

    def begin(self, message: Message, *args: Any, **more: Any) -> Begun:
        """As the store's."""
        begin = MessageStore.begin
        self._at(
            "before sending",
            message,
            lambda store: begin(store, message, *args, **more)[0] != "lost",
        )
        answer = super().begin(message, *args, **more)
        if answer[0] == "sending":
            self._claimed[message.id] = True
            self._at("after sending was written")
        return answer

    def move(self, message: Message, owner: str, decided: Decided, **more: Any) -> bool:
        """As the store's."""
        go_on = MessageStore.move
        self._at(
            f"before {decided.state} is written",
            message,
            lambda store: go_on(store, message, owner, decided, **more),
        )
        moved = super().move(message, owner, decided, **more)
        self._claimed.pop(message.id, None)
        if decided.state == "held" and decided.rule != "quiet_hours":
            assert decided.until_ms is not None
            self.fate.waits[bytes.fromhex(message.id)][decided.at_ms] = decided.until_ms
            self.fate.met[f"held by {decided.rule}"] += 1
        self._at(f"after {decided.state} was written")
        return moved

    def told(self, message: Message, owner: str) -> None:
        """As the store's."""
        self._at("before told is written")
        super().told(message, owner)

    def forget(self, pids: Sequence[bytes]) -> None:
        """As the store's."""
        self._at("before they are forgotten")
        super().forget(pids)

    def bury(self) -> None:
        """What the dead process left behind is known to the fate."""
        for id_, is_sending in self._claimed.items():
            message_id = bytes.fromhex(id_)
            if is_sending:
                self.fate.interrupted.add(message_id)
            else:
                self.fate.waits[message_id][self.clock.at_ms] = self.clock.at_ms + CLAIMED_FOR_MS
                self.fate.met["claims left behind"] += 1

    def _at(
        self,
        point: str,
        message: Message | None = None,
        go_on: Callable[["MortalStore"], bool] | None = None,
    ) -> None:
        with self._lock:  # several threads work for one process
            if not self._is_dead and self.fate.chance.random() < self.fate.deaths:
                self._is_dead = True
                self.fate.met["automation died"] += 1
                self.fate.met[f"died {point}"] += 1
            if self._is_dead:
                if message is not None and go_on is not None:
                    self.fate.asleep[message.id].append(go_on)
                raise Killed
