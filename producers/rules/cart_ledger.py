"""Which messages should a shop's customers get, and who belongs where, in the demo's four days?

Worked out from the story alone, customer by customer, from what docs/journeys.md and
docs/automation.md promise: a calendar, a clock on the wall, and a list of what went. It knows
nothing of lanes, timers and stores, which is why it can tell whether they are right.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo

from producers.rules.cart_days import HOUR_MS, Customer, Deed, Story

DAY_HOURS: Final = 24
ACTIVE, EAGER = "active_today", "eager"
EAGER_ADDS: Final = 2
QUIET_FROM, QUIET_TO = 22, 8
MOST_A_DAY, MOST_A_WEEK = 1, 2


@dataclass(frozen=True, slots=True)
class Plan:
    """A journey as the shop planned it, in hours; `only` is the segment one must be in."""

    id: str
    wait_hours: int
    follow_up_hours: int
    only: str = ""


PLANS: Final = (Plan("cart", 1, 24), Plan("cart-offer", 3, 48, EAGER))
MOST_MESSAGES: Final = 3
"""Of one journey, until the customer is left in peace for longer than the story lasts."""


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one message: `sent`, or the rule that stopped it, and until when it was held
    before. UTC ms."""

    user_id: str
    journey: str
    number: int
    at_ms: int
    outcome: str
    held_until_ms: tuple[int, ...] = ()

    def line(self) -> str:
        """For a person who looks for a difference."""
        held = "".join(f", held until {clock(at_ms)}" for at_ms in self.held_until_ms)
        return (
            f"{self.journey} {self.number} to {self.user_id}: {self.outcome} at "
            f"{clock(self.at_ms)}{held}"
        )


Way = Literal["entered", "left"]
Moved = tuple[str, Way, int]
"""A segment, which way, and when (UTC ms)."""


def clock(at_ms: int) -> str:
    """Weekday and time, in UTC: 'Mon 10:30'."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%a %H:%M")


def messages_of(story: Story) -> list[Told]:
    """What should become of every message, of all customers."""
    return [told for customer, deeds in _by_customer(story) for told in _Life(customer, deeds).run(
        story.ends_at_ms)]  # fmt: skip


def moves_of(story: Story) -> Counter[Moved]:
    """How many customers should enter and leave the two segments, and when."""
    moves: Counter[Moved] = Counter()
    for _, deeds in _by_customer(story):
        adds = [deed.occurred_at_ms for deed in deeds if deed.kind == "add"]
        if len(adds) >= EAGER_ADDS:
            moves[EAGER, "entered", adds[EAGER_ADDS - 1]] += 1
        until_ms = 0
        for at_ms in adds:
            if at_ms >= until_ms:
                moves[ACTIVE, "entered", at_ms] += 1
                if until_ms:
                    moves[ACTIVE, "left", until_ms] += 1
            until_ms = at_ms + DAY_HOURS * HOUR_MS
        if until_ms:
            moves[ACTIVE, "left", until_ms] += 1
    return moves


def differences(expected: Iterable[Told], found: Iterable[Told]) -> list[str]:
    """One line for each message that should not be, or should be and is not, or is otherwise."""
    should, are = Counter(expected), Counter(found)
    return [
        *(f"expected and not there: {told.line()}" for told in (should - are).elements()),
        *(f"there and not expected: {told.line()}" for told in (are - should).elements()),
    ]


def differing_moves(expected: Counter[Moved], found: Counter[Moved]) -> list[str]:
    """The same of who entered and left segments."""
    return [
        f"{segment}: expected {expected[move]} to have {way} at {clock(at_ms)}, got {found[move]}"
        for move in sorted(expected.keys() | found.keys())
        for segment, way, at_ms in (move,)
        if expected[move] != found[move]
    ]


def _by_customer(story: Story) -> Iterator[tuple[Customer, list[Deed]]]:
    for customer in story.customers:
        yield customer, [deed for deed in story.deeds if deed.customer == customer]


@dataclass(slots=True)
class _Progress:
    """How far one journey got with one customer."""

    about_ms: int = -1
    """The cart that the last message was about, by its last change."""
    steps: int = 0
    messages: int = 0
    last_ms: int = 0


@dataclass(slots=True)
class _Waiting:
    """A message that was due and has not come to its end."""

    plan: Plan
    number: int
    about_ms: int
    until_ms: int
    held: list[int] = field(default_factory=list)


class _Life:
    """Four days of one customer, from moment to moment."""

    def __init__(self, customer: Customer, deeds: Sequence[Deed]) -> None:
        self._customer = customer
        self._deeds = deeds
        self._zone = ZoneInfo(customer.zone)
        self._progress = {plan.id: _Progress() for plan in PLANS}
        self._waiting: list[_Waiting] = []
        self._sent_ms: list[int] = []
        self._told: list[Told] = []

    def run(self, ends_at_ms: int) -> list[Told]:
        now_ms = -1
        while (now_ms := self._next_ms(now_ms)) <= ends_at_ms:
            for plan in PLANS:
                if self._due_ms(plan, now_ms) == now_ms:
                    self._begin(plan, now_ms)
            ready = [each for each in self._waiting if each.until_ms == now_ms]
            if len(ready) > 1:
                raise ValueError("the story leaves open which of two messages goes first")
            self._waiting = [each for each in self._waiting if each.until_ms != now_ms]
            for each in ready:
                self._decide(each, now_ms)
        return self._told

    def _next_ms(self, now_ms: int) -> int:
        """The next moment at which anything may happen."""
        heard = [deed.heard_at_ms for deed in self._deeds]
        due = [at_ms for plan in PLANS if (at_ms := self._due_ms(plan, now_ms)) is not None]
        held = [each.until_ms for each in self._waiting]
        return min((at_ms for at_ms in (*heard, *due, *held) if at_ms > now_ms), default=1 << 62)

    def _known(self, now_ms: int, *kinds: str) -> list[int]:
        """When those deeds happened that the shop has heard of."""
        return [
            deed.occurred_at_ms
            for deed in self._deeds
            if deed.heard_at_ms <= now_ms and deed.kind in kinds
        ]

    def _cart_ms(self, now_ms: int) -> int | None:
        """When the cart was changed last; None while nothing is in it."""
        emptied_ms = max(self._known(now_ms, "order"), default=-1)
        adds = [at_ms for at_ms in self._known(now_ms, "add") if at_ms > emptied_ms]
        removes = [at_ms for at_ms in self._known(now_ms, "remove") if at_ms > emptied_ms]
        return max(adds + removes) if len(adds) > len(removes) else None

    def _due_ms(self, plan: Plan, now_ms: int) -> int | None:
        cart_ms, done = self._cart_ms(now_ms), self._progress[plan.id]
        if cart_ms is None:
            return None
        if cart_ms == done.about_ms:
            if done.steps != 1 or done.messages >= MOST_MESSAGES:
                return None  # it has had both, or was passed over
            return done.last_ms + plan.follow_up_hours * HOUR_MS
        first_ms = cart_ms + plan.wait_hours * HOUR_MS
        if not done.messages:
            return first_ms
        if done.steps > 1 or done.messages >= MOST_MESSAGES:
            return None  # left in peace
        return max(first_ms, done.last_ms + plan.follow_up_hours * HOUR_MS)

    def _begin(self, plan: Plan, now_ms: int) -> None:
        cart_ms, done = self._cart_ms(now_ms), self._progress[plan.id]
        assert cart_ms is not None
        done.steps = done.steps + 1 if cart_ms == done.about_ms else 1
        done.about_ms = cart_ms
        if plan.only and len(self._known(now_ms, "add")) < EAGER_ADDS:
            done.steps = 0  # passed over
            return
        done.messages, done.last_ms = done.messages + 1, now_ms
        self._waiting.append(_Waiting(plan, done.messages, cart_ms, now_ms))

    def _decide(self, message: _Waiting, now_ms: int) -> None:
        outcome = self._stopped_by(message, now_ms)
        if outcome == "quiet_hours":
            message.until_ms = self._morning_ms(now_ms)
            message.held.append(message.until_ms)
            self._waiting.append(message)
            return
        if outcome == "sent":
            self._sent_ms.append(now_ms)
        user_id, held = self._customer.user_id, tuple(message.held)
        self._told.append(Told(user_id, message.plan.id, message.number, now_ms, outcome, held))

    def _stopped_by(self, message: _Waiting, now_ms: int) -> str:
        if not self._customer.agrees or self._known(now_ms, "refuse"):
            return "purpose"
        if not self._customer.subscribes or self._known(now_ms, "unsubscribe"):
            return "subscription"
        if any(at_ms >= message.about_ms for at_ms in self._known(now_ms, "order")):
            return "purchase_since"
        if any(at_ms > message.about_ms for at_ms in self._known(now_ms, "add", "remove")):
            return "cart_changed"
        local = self._local(now_ms)
        if local.hour >= QUIET_FROM or local.hour < QUIET_TO:
            return "quiet_hours"
        days = [self._local(at_ms).date() for at_ms in self._sent_ms]
        if days.count(local.date()) >= MOST_A_DAY:
            return "day_cap"
        week = local.date().isocalendar()[:2]
        if sum(day.isocalendar()[:2] == week for day in days) >= MOST_A_WEEK:
            return "week_cap"
        return "sent"

    def _morning_ms(self, now_ms: int) -> int:
        local = self._local(now_ms)
        day = local.date() + timedelta(days=local.hour >= QUIET_FROM)
        morning = datetime(day.year, day.month, day.day, QUIET_TO, tzinfo=self._zone)
        return int(morning.timestamp()) * 1000

    def _local(self, at_ms: int) -> datetime:
        return datetime.fromtimestamp(at_ms / 1000, self._zone)
