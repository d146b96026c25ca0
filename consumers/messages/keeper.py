"""How is each decision over a message kept, and counted?"""

import asyncio
from collections.abc import Callable
from typing import Literal

from consumers.messages.store import MessageStore
from consumers.rules.messages import Decided, Message, State, Words
from consumers.rules.sending import Dropped, Held, Rule, retry_after_ms
from runtime.clock import ClockMs
from runtime.metrics import counter


class MessageKeeper:
    """Keeps decisions of one owner; for one event loop. `chance` gives numbers from 0 to 1."""

    def __init__(
        self, store: MessageStore, owner: str, clock: ClockMs, chance: Callable[[], float]
    ) -> None:
        self._store = store
        self.owner = owner
        self.clock = clock
        self._chance = chance

    async def drop(self, message: Message, dropped: Dropped) -> None:
        """It does not go, for this reason."""
        if dropped.rule == "erased":
            # Nothing may stay of them, not even that a message was dropped.
            await asyncio.to_thread(self._store.forget, [message.pid])
            count(message, "dropped", "erased")
            return
        await self.end(message, "dropped", dropped.rule, dropped.values)

    async def end(
        self, message: Message, state: State, rule: Rule | Literal[""], values: Words
    ) -> None:
        """It is over."""
        await self.move(message, Decided(self.clock(), state, rule, values))

    async def hold(self, message: Message, held: Held) -> None:
        """It comes again when that is over."""
        decided = Decided(self.clock(), "held", held.rule, held.values, held.until_ms)
        await self.move(message, decided, wake_ms=held.until_ms)

    async def hold_for_trouble(
        self, message: Message, rule: Rule, values: Words, *, is_unsent: bool = False
    ) -> None:
        """It is tried again after a pause that grows with the tries."""
        now = self.clock()
        until_ms = now + retry_after_ms(max(1, message.tries), self._chance())
        decided = Decided(now, "held", rule, values, until_ms)
        await self.move(message, decided, wake_ms=until_ms, is_unsent=is_unsent)

    async def move(
        self,
        message: Message,
        decided: Decided,
        *,
        wake_ms: int | None = None,
        is_unsent: bool = False,
        unreachable: str = "",
    ) -> bool:
        """The decision is in force and counted; False if the message is not ours any more."""
        moved = await asyncio.to_thread(
            lambda: self._store.move(
                message,
                self.owner,
                decided,
                wake_ms=wake_ms,
                is_unsent=is_unsent,
                unreachable=unreachable,
            )
        )
        if moved:
            count(message, decided.state, decided.rule)
        return moved


def count(message: Message, state: State, rule: str) -> None:
    """The decision shows in the metrics."""
    counter("headwater_messages_total").labels(message.source, state).inc()
    if state == "dropped":
        counter("headwater_messages_suppressed_total").labels(rule).inc()
