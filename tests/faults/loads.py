"""Which calls does a run send, and what is each of them worth to a person who counts?

Every call can be told from every other one in the facts: an order by its amount, any other by the
millisecond at which it happened. Content comes from the seed alone; how much of it is sent depends
on time.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

CAMPAIGNS = ("spring", "summer", "o'hara ☂")
TRACKS = ("Email Sent", "Email Opened", "Product Viewed", "Product Added")
HOUR_MS = 3_600_000
STORM_WINDOW = 40


@dataclass(frozen=True)
class Load:
    """How calls are sent."""

    name: str = "plain"
    rate_per_s: float = 240
    """Calls a second, copies included."""
    calls_a_request: int = 20
    people: int = 60
    hot: float = 0.0
    """Part of the calls that belong to one single person."""
    copies: int = 1
    """Each request is sent so often, mixed with others."""
    repeated: float = 0.05
    """Part of the requests that are sent once more."""
    apart_ms: int = 1
    """Event time between a call and the next; negative: each happened before the one sent before."""
    broken: float = 0.02
    """Part of the calls that the collector must set aside."""
    poison: float = 0.0
    """Records a second that no lane can use, put straight onto the log."""
    clock_steps: bool = False
    """Senders' clocks are right, an hour late or an hour early, by the request."""
    begin: "Begin | None" = None
    """Begins what makes the calls that are not broken, given the run; None: `_call`."""


PLAIN = Load()
STORM = Load("storm", rate_per_s=500, copies=10)
REVERSED = Load("reversed", apart_ms=-7_000)
HOT = Load("hot key", rate_per_s=400, hot=0.5)
POISON = Load("poison", broken=0.1, poison=8)
CLOCKS = Load("clocks", clock_steps=True)


@dataclass(frozen=True)
class Call:
    """One call, and what it must count as."""

    id: int
    body: dict[str, Any]
    person: str
    campaign: str
    event: str
    occurred_at_ms: int | None
    """None when the collector decides."""
    amount_micro: int = 0
    is_broken: bool = False
    more: dict[str, Any] = field(default_factory=dict)
    """What else is to be known of it afterwards."""

    def line(self, attempts: int) -> dict[str, Any]:
        """The line of history once its fate is known; `attempts` negative: no answer ever came."""
        fate = "unknown" if attempts < 0 else "set aside" if self.is_broken else "acknowledged"
        line: dict[str, Any] = {
            "id": self.id,
            "via": "collector",
            "outcome": fate,
            "attempts": abs(attempts),
            "message_id": self.body["messageId"],
        }
        if not self.is_broken:
            line |= {
                "person": self.person,
                "campaign": self.campaign,
                "event": self.event,
                "occurred_at_ms": self.occurred_at_ms,
                "amount_micro": self.amount_micro,
                **self.more,
            }
        return line


Make = Callable[[int, Load, int, random.Random], Call]
"""Makes the call of a number that happened at a time, or of its own time."""
Begin = Callable[[str, int], Make]
"""Of a run and the time at which it begins."""


def make_calls(load: Load, run: str, chance: random.Random) -> Iterator[tuple[list[Call], bool]]:
    """Requests without an end: (their calls, True when they were sent before)."""
    begin_ms = int(datetime.now(UTC).timestamp() * 1000)
    window: list[list[Call]] = []
    waiting: list[list[Call]] = []
    number = 0
    make_good = load.begin(run, begin_ms) if load.begin is not None else None
    while True:
        calls = []
        skew_ms = chance.choice((-HOUR_MS, 0, HOUR_MS))
        for _ in range(load.calls_a_request):
            at_ms = begin_ms + number * load.apart_ms
            if chance.random() < load.broken:
                calls.append(_broken_call(number, load, run, at_ms, skew_ms, chance))
            elif make_good is not None:
                calls.append(make_good(number, load, at_ms, chance))
            else:
                calls.append(_call(number, load, run, at_ms, skew_ms, chance))
            number += 1
        yield calls, False
        # Copies come later and mixed: of each request here, copies - 1 are still to be sent.
        waiting += [calls] * (load.copies - 1)
        window = [*window[-STORM_WINDOW:], calls]
        if chance.random() < load.repeated:
            waiting.append(chance.choice(window))
        while len(waiting) > STORM_WINDOW or (waiting and chance.random() < 0.5):
            yield waiting.pop(chance.randrange(len(waiting))), True


def _call(
    number: int, load: Load, run: str, at_ms: int, skew_ms: int, chance: random.Random
) -> Call:
    person = f"{run}/{0 if chance.random() < load.hot else chance.randrange(load.people)}"
    campaign = f"{run}/{chance.choice(CAMPAIGNS)}"
    body: dict[str, Any] = {
        "messageId": f"{run}/{number}",
        "userId": person,
        "context": {"campaign": {"name": campaign}},
    }
    kind = chance.random()
    amount_micro = 0
    if load.clock_steps or kind < 0.3:
        event = "Order Completed"
        amount_micro = (number + 1) * 10_000
        body |= {"type": "track", "event": event}
        total = f"{(number + 1) // 100}.{(number + 1) % 100:02d}"
        body["properties"] = {"order_id": f"{run}/{number}", "total": total, "currency": "EUR"}
    elif kind < 0.8:
        event = chance.choice(TRACKS)
        body |= {"type": "track", "event": event, "properties": {"product_id": f"p{number}"}}
    elif kind < 0.9:
        event = "page"
        body |= {"type": "page", "name": "Shop"}
    else:
        event = "identify"
        body |= {"type": "identify", "traits": {"newest": number}}
    if load.clock_steps:
        wrong_ms = int(datetime.now(UTC).timestamp() * 1000) + skew_ms
        body |= {"timestamp": time_text(wrong_ms), "sentAt": time_text(wrong_ms + 5)}
        return Call(number, body, person, campaign, event, None, amount_micro)
    body["timestamp"] = time_text(at_ms)
    return Call(number, body, person, campaign, event, at_ms, amount_micro)


def _broken_call(
    number: int, load: Load, run: str, at_ms: int, skew_ms: int, chance: random.Random
) -> Call:
    """One that the collector must set aside without its neighbours noticing."""
    whole = _call(number, load, run, at_ms, skew_ms, chance)
    body = dict(whole.body)
    wrong = chance.randrange(5)
    if wrong == 0:
        body["type"] = "trakc"
    elif wrong == 1:
        del body["userId"]
    elif wrong == 2:
        body |= {"type": "track", "event": 17}
    elif wrong == 3:
        body["timestamp"] = "yesterday"
    else:
        body |= {"type": "track", "event": "Order Completed", "properties": {"total": "much"}}
    return Call(number, body, "", "", "", None, is_broken=True)


def time_text(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
