"""Which states has a message, and what is known of it?

    scheduled ─┐
    held ──────┼─► claimed ─► sending ─► sent
               │      │  ▲        │
               │      │  └────────┤ not taken, for now: held
               │      ▼           ▼
               │   held, dropped  failed, dropped
               └─ a claim that was left behind is taken over; a `sending` that was left behind is
                  `failed` (interrupted) unless its channel knows repetitions by the message's id

A message goes at most once: it is `sending`, durably, before its channel hears of it, and nobody
gets from there to `claimed` but over a channel that does not mind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from consumers.rules.sending import Rule, Value

State = Literal["scheduled", "claimed", "sending", "sent", "held", "failed", "dropped"]
STATES: tuple[State, ...] = (
    "scheduled", "claimed", "sending", "sent", "held", "failed", "dropped",
)  # fmt: skip
FINAL: frozenset[State] = frozenset({"sent", "failed", "dropped"})
EMAIL = "email"
Kind = Literal["journey", "segment"]
JOURNEY: Kind = "journey"
SEGMENT: Kind = "segment"

Words = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Message:
    """One message to or about one person. Times are UTC ms.

    `id` is 32 hexadecimal characters. `source` is the journey or segment that it comes from, `body`
    what it is about as it came from the log; empty once the message is over. `tries` counts how
    often it was claimed.
    """

    id: str
    pid: bytes
    kind: Kind
    source: str
    step: int
    channel: str
    campaign_id: str
    due_at_ms: int
    body: bytes
    state: State = "scheduled"
    at_ms: int = 0
    tries: int = 0

    @property
    def may_repeat(self) -> bool:
        """Its channel knows by the id what it has had already."""
        return self.channel != EMAIL


@dataclass(frozen=True, slots=True)
class Decided:
    """One decision over a message: which state it led to, by which rule ("" for none), and the
    values that decided. `until_ms` belongs to `held`."""

    at_ms: int
    state: State
    rule: Rule | Literal[""] = ""
    values: Words | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class History:
    """A message and every decision over it, oldest first."""

    message: Message
    decisions: Sequence[Decided]
