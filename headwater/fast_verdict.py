"""Is what the house did in the days of the fast demo what its shop expects?

Asked of the house as anybody may ask it: what became of each customer's messages, and how many each
campaign counts as sent.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from headwater.caller import Caller
from producers.rules.cart_days import Story
from producers.rules.cart_ledger import (
    ACTIVE,
    EAGER,
    PLANS,
    Moved,
    Told,
    differences,
    differing_moves,
    messages_of,
    moves_of,
)

MESSAGES = "/v1/messages?limit=1000"
COUNTED_WITHIN_S = 30.0
HALF_HOUR_MS = 1_800_000
_LOOK_AGAIN_S = 0.25


@dataclass(frozen=True, slots=True)
class Judged:
    """Every message as the house tells of it, the counters, and one line for each difference."""

    found: list[Told]
    campaigns: dict[str, object]
    wrong: list[str]


def judge(
    caller: Caller, story: Story, moves: Counter[Moved], wait: Callable[[float], bool]
) -> Judged:
    """Compare with the shop's ledger; `moves` are the changes of segments, of ours and others.

    `wait` is given seconds, and answers True when nobody wants to wait any more. Raises
    StoreUnavailable, StoreRefused.
    """
    expected = messages_of(story)
    found = [told for each in story.customers for told in _told(caller, each.user_id)]
    sent = Counter(told.journey for told in expected if told.outcome == "sent")
    ours = Counter({move: n for move, n in moves.items() if move[0] in (ACTIVE, EAGER)})
    campaigns, miscounted = _counted(caller, sent, wait)
    wrong = [
        *differences(expected, found),
        *differing_moves(moves_of(story), ours),
        *miscounted,
    ]
    return Judged(found, campaigns, wrong)


def milliseconds(written: str) -> int:
    """RFC 3339 as UTC ms."""
    return round(datetime.fromisoformat(written).timestamp() * 1000)


def _told(caller: Caller, user_id: str) -> Iterator[Told]:
    answer: Any = caller.get(f"{MESSAGES}&subject=user:{user_id}", "operator")
    for message in answer["messages"]:
        last, state = message["decisions"][-1], message["state"]
        held = [each for each in message["decisions"] if each["rule"] == "quiet_hours"]
        yield Told(
            user_id,
            message["journey_id"],
            message["step"],
            # Whatever had to be tried again went some seconds after its moment.
            milliseconds(last["at"]) // HALF_HOUR_MS * HALF_HOUR_MS,
            last["rule"] if state == "dropped" else state,
            tuple(milliseconds(each["until"]) for each in held),
        )


def _counted(
    caller: Caller, sent: Counter[str], wait: Callable[[float], bool]
) -> tuple[dict[str, object], list[str]]:
    """The campaigns, and those whose counter `sent` does not come to what the ledger says."""
    until_s = time.monotonic() + COUNTED_WITHIN_S
    while True:
        answer: Any = caller.get("/v1/campaigns", "viewer")
        counted = {each["campaign_id"]: each["counters"] for each in answer["campaigns"]}
        wrong = [
            f"campaign {plan.id}: expected {sent[plan.id]} sent, got {got}"
            for plan in PLANS
            if (got := counted.get(plan.id, {}).get("sent", 0)) != sent[plan.id]
        ]
        if not wrong or time.monotonic() > until_s or wait(_LOOK_AGAIN_S):
            return answer, wrong
