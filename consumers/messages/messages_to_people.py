"""How does a message that is due get to its person, once at most, or not at all for a reason?

The state machine of consumers/rules/messages.py, driven: claim what is due, ask the gate, begin,
hand over, and keep what became of it. Every step is on disk before the next, and whatever ends this
process between two steps leaves a state from which another goes on rightly. What went out, and what
the mail server refused, comes back as events through the collector's own way, under the message's
id, so that it counts once however often it is told.
"""

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal
from uuid import uuid4

from consumers.messages.channels import Channels, Handed, Mail
from consumers.messages.gate import Allowed, MessageGate
from consumers.messages.keeper import MessageKeeper, count
from consumers.messages.store import Claimed, MessageStore
from consumers.messages.templates_of_messages import TemplateFault
from consumers.rules.messages import EMAIL, JOURNEY, SEGMENT, Decided, Message, State
from consumers.rules.sending import (
    Dropped,
    Held,
    decide_by_age,
    one_too_many,
    window_of,
)
from runtime.clock import ClockMs, now_ms
from runtime.consent_overlay import SEND_WITHIN_MS
from runtime.logs import get_logger
from runtime.metrics import gauge
from runtime.sealing import IdType
from schemas.codec import JOURNEY_DUE
from schemas.errors import PersonTooLarge, StoreUnavailable
from schemas.journeys import JourneyDue

AT_ONCE = 20
LONGEST_PAUSE_S = 0.5
TOLD_WITHIN_MS = 30_000
ASKS_AGAIN_AFTER_S = 2.0
"""A channel that takes longer to open: meanwhile they may have bought, or been erased."""


@dataclass(frozen=True, slots=True)
class Report:
    """Something that happened to a message, to be told as an event of its person."""

    what: Literal["Email Sent", "Email Bounced"]
    message: Message
    id_type: IdType
    external_id: str
    at_ms: int


Tell = Callable[[Report], Awaitable[None]]
"""The event is safe. Raises StoreUnavailable; then it is told again, under the same id."""


class Sender:
    """Sends what is due; belongs to one event loop.

    `require_fresh` raises StoreUnavailable while profiles do not know what was decided by now, and
    Stopped when nobody is to wait for it; `chance` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        store: MessageStore,
        gate: MessageGate,
        channels: Channels,
        tell: Tell,
        clock: ClockMs = now_ms,
        *,
        require_fresh: Callable[[], None] = lambda: None,
        owner: str | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._gate = gate
        self._channels = channels
        self._tell = tell
        self._require_fresh = require_fresh
        self._stale = ""
        self._looked_s = 0.0
        self._looking = asyncio.Lock()
        self._keeper = MessageKeeper(store, owner or uuid4().hex, clock, chance)

    async def run(self, stop: threading.Event) -> None:
        """Send until `stop` is set; waits for stores that are away. Raises StoreRefused; Stopped
        if it is set while a batch is asked about, which goes to others once its claim is over."""
        while not stop.is_set():
            try:
                worked = await self.step()
            except StoreUnavailable as error:
                get_logger().warning("store_unavailable", doing="send", fault=str(error))
                worked = 0
            if not worked:
                await asyncio.sleep(LONGEST_PAUSE_S)

    async def step(self) -> int:
        """What is due now was sent, held or dropped; how many. Raises StoreUnavailable when some
        could not be: they come again once their claim is over."""
        await self._show_overdue()
        claim = self._store.claim
        claimed = await asyncio.to_thread(claim, self._keeper.owner, self._keeper.clock(), AT_ONCE)
        if any(each.message.kind == JOURNEY for each in claimed):
            await self._look_whether_stale()
        outcomes = await asyncio.gather(*map(self._handle, claimed), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return len(claimed)

    async def _handle(self, claimed: Claimed) -> None:
        message = claimed.message
        if claimed.was_interrupted:
            count(message, "failed", "interrupted")
        elif message.state in ("sent", "failed"):
            await self._report(message, message.state)
        elif message.kind == SEGMENT:
            await self._send_change(message)
        else:
            await self._send(message, JOURNEY_DUE.decode(message.body))

    async def _show_overdue(self) -> None:
        wake_ms = await asyncio.to_thread(self._store.next_wake_ms)
        overdue_ms = 0 if wake_ms is None else max(0, self._keeper.clock() - wake_ms)
        gauge("headwater_messages_overdue_seconds").set(overdue_ms / 1000)

    async def _look_again(self) -> None:
        async with self._looking:  # one look is enough for all who opened a channel meanwhile
            if time.monotonic() - self._looked_s > ASKS_AGAIN_AFTER_S:
                await self._look_whether_stale()

    async def _look_whether_stale(self) -> None:
        self._looked_s = time.monotonic()
        try:
            await asyncio.to_thread(self._require_fresh)
        except StoreUnavailable as error:
            self._stale = str(error)
        else:
            self._stale = ""

    # -- messages of journeys

    async def _send(self, message: Message, due: JourneyDue) -> None:
        asked_s, now = time.monotonic(), self._keeper.clock()
        aged = decide_by_age(due.due_at_ms, now, self._gate.limits, due.expires_at_ms)
        if isinstance(aged, Dropped):
            # Of somebody erased, whose message was read again from an old copy of the log, not even
            # that it is too late is kept.
            is_erased = await self._gate.identified(message.pid) is None
            await self._keeper.drop(message, Dropped("erased", {}) if is_erased else aged)
            return
        allowed = await self._ask(message, due)
        # Whatever is raised from here on is no reason to hold it: it may have gone.
        if allowed is not None:
            await self._hand_over(message, due, allowed, asked_s)

    async def _ask(self, message: Message, due: JourneyDue) -> Allowed | None:
        """None: it is held, or does not go."""
        try:
            if self._stale:
                raise StoreUnavailable(self._stale)
            found = await self._gate.ask(message, due, self._keeper.clock())
        except (StoreUnavailable, PersonTooLarge) as error:
            await self._keeper.hold_for_trouble(message, "store_unavailable", {"what": str(error)})
            return None
        if isinstance(found, Held):
            await self._keeper.hold(message, found)
        elif isinstance(found, Dropped):
            await self._keeper.drop(message, found)
        else:
            return found
        return None

    async def _hand_over(
        self, message: Message, due: JourneyDue, allowed: Allowed, asked_s: float
    ) -> None:
        try:
            mail = self._channels.write(message, due, allowed, self._keeper.clock())
        except TemplateFault as fault:
            await self._keeper.end(message, "failed", "template_fault", {"reason": fault.reason})
            return
        if not self._channels.has(message.channel):
            await self._keeper.drop(
                message, Dropped("channel_unknown", {"channel": message.channel})
            )
            return
        handed = None
        try:
            opened = self._channels.opened(message.channel)
            async with opened as hand:
                if await self._may_begin(message, due, allowed, asked_s):
                    handed = await hand(mail)
                    await self._settle(message, allowed, handed)
        except (StoreUnavailable, PersonTooLarge) as error:
            if handed is not None:
                # Our own store did not take what became of it. It stays `sending`: who would hold
                # it now that the store is back, perhaps, would send it again.
                raise
            await self._keeper.hold_for_trouble(
                message, "channel_unavailable", {"what": str(error)}, is_unsent=True
            )

    async def _may_begin(
        self, message: Message, due: JourneyDue, allowed: Allowed, asked_s: float
    ) -> bool:
        """It is `sending`, within the time of a permission that was asked for last of all."""
        if time.monotonic() - asked_s > ASKS_AGAIN_AFTER_S:
            await self._look_again()
            if await self._ask(message, due) is None:
                return False
        asked_s = time.monotonic()
        refused = await self._gate.confirm(allowed, due)
        if refused is not None:
            await self._keeper.drop(message, refused)
            return False
        now = self._keeper.clock()
        limits = self._gate.limits
        caps = (window_of(now, allowed.zone), limits.most_a_day, limits.most_a_week)
        begin = self._store.begin
        answer, sent = await asyncio.to_thread(
            begin, message, self._keeper.owner, now, caps, allowed.pids
        )
        if answer == "lost":
            return False
        if answer != "sending":
            await self._keeper.drop(message, one_too_many(answer, sent, allowed.zone, limits))
            return False
        if (time.monotonic() - asked_s) * 1000 < SEND_WITHIN_MS:
            return True
        # It has not begun: the channel has heard nothing. Ask again.
        await self._keeper.move(
            message,
            Decided(now, "held", "store_unavailable", {"what": "slow"}, now + 1000),
            wake_ms=now + 1000,
            is_unsent=True,
        )
        return False

    async def _settle(self, message: Message, allowed: Allowed, handed: Handed) -> None:
        """What the channel said is kept, and told."""
        if handed.outcome == "not_now":
            values = handed.values
            await self._keeper.hold_for_trouble(
                message, "channel_unavailable", values, is_unsent=True
            )
            return
        now = self._keeper.clock()
        if handed.outcome == "taken":
            await self._over(message, allowed, Decided(now, "sent", values=handed.values))
        elif handed.outcome == "in_doubt":
            await self._keeper.end(message, "failed", "interrupted", handed.values)
        else:
            decided = Decided(now, "failed", "refused_by_channel", handed.values)
            address = allowed.address if handed.is_recipients else None
            mark = "" if address is None else self._gate.mark_of(address)
            await self._over(message, allowed, decided, is_unsent=True, unreachable=mark)

    async def _over(
        self,
        message: Message,
        allowed: Allowed,
        decided: Decided,
        *,
        is_unsent: bool = False,
        unreachable: str = "",
    ) -> None:
        """Sent, or refused: kept so that it is told even if we end before it is."""
        is_told = message.channel == EMAIL
        moved = await self._keeper.move(
            message,
            decided,
            wake_ms=decided.at_ms + TOLD_WITHIN_MS if is_told else None,
            is_unsent=is_unsent,
            unreachable=unreachable,
        )
        if moved and is_told:
            await self._tell_of(
                message, decided.state, decided.at_ms, allowed.id_type, allowed.external_id
            )

    async def _report(self, message: Message, state: State) -> None:
        """What a process that ended had not told."""
        row = await self._gate.identified(message.pid)
        if row is not None:
            await self._tell_of(message, state, message.at_ms, row[1], row[2])
        else:
            await asyncio.to_thread(self._store.forget, [message.pid])

    async def _tell_of(
        self, message: Message, state: State, at_ms: int, id_type: IdType, external_id: str
    ) -> None:
        what: Literal["Email Sent", "Email Bounced"] = (
            "Email Sent" if state == "sent" else "Email Bounced"
        )
        try:
            await self._tell(Report(what, message, id_type, external_id, at_ms))
        except StoreUnavailable as error:
            get_logger().warning("store_unavailable", doing="tell", fault=str(error))
            return
        await asyncio.to_thread(self._store.told, message, self._keeper.owner)

    # -- changes of segments

    async def _send_change(self, message: Message) -> None:
        aged = decide_by_age(message.due_at_ms, self._keeper.clock(), self._gate.limits)
        try:
            if await self._gate.identified(message.pid) is None:
                await self._keeper.drop(message, Dropped("erased", {}))
                return
            if isinstance(aged, Dropped):
                await self._keeper.drop(message, aged)
                return
            if not self._channels.has(message.channel):
                await self._keeper.drop(
                    message, Dropped("channel_unknown", {"channel": message.channel})
                )
                return
            begin = self._store.begin
            answer, _ = await asyncio.to_thread(
                begin, message, self._keeper.owner, self._keeper.clock(), None
            )
            if answer != "sending":
                return
            async with self._channels.opened(message.channel) as hand:
                handed = await hand(Mail(message.id, b"", message.body))
        except StoreUnavailable as error:
            await self._keeper.hold_for_trouble(message, "store_unavailable", {"what": str(error)})
            return
        if handed.outcome == "not_now":
            await self._keeper.hold_for_trouble(message, "channel_unavailable", handed.values)
        elif handed.outcome == "taken":
            await self._keeper.end(message, "sent", "", handed.values)
        else:
            await self._keeper.end(message, "failed", "refused_by_channel", handed.values)
