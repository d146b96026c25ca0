"""What does the fast demo say of a moment, and of the days, in plain words?"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from producers.rules.cart_days import Deed
from producers.rules.cart_ledger import Moved, Told, clock

DEEDS: Final[Mapping[str, str]] = {
    "add": "put something into the cart",
    "remove": "put it back",
    "order": "ordered",
    "refuse": "took back the consent to advertising",
    "unsubscribe": "unsubscribed",
}
RULES: Final[Mapping[str, str]] = {
    "purpose": "no consent to advertising",
    "subscription": "not subscribed",
    "purchase_since": "bought meanwhile",
    "cart_changed": "the cart was changed meanwhile",
    "day_cap": "had one that day already",
    "week_cap": "had two that week already",
    "quiet_hours": "night at the customer's",
}
"""The rules of docs/automation.md that these days meet; others are shown by their name."""

_PASSED: Final[Mapping[str, str]] = {"entered": "", "left": " as time passed"}

Decided = tuple[str, str, int | None]
"""State, rule, and until when a held one is held (UTC ms)."""


def line_of(
    now_ms: int,
    deeds: Sequence[Deed],
    decided: Iterable[Decided],
    moved: Counter[Moved],
) -> str:
    """One moment; empty when there is nothing to say."""
    kinds = Counter(
        DEEDS[deed.kind] + (f" at {clock(deed.occurred_at_ms)}, heard of only now"
                            if deed.occurred_at_ms < deed.heard_at_ms else "")
        for deed in deeds
    )  # fmt: skip
    parts = [
        *(f"{n} {what}" for what, n in kinds.items()),
        *(_messages(n, what) for what, n in sorted(Counter(map(_decision, decided)).items())),
        *(f"{n} {way} {segment}{_PASSED[way]}" for (segment, way, _), n in sorted(moved.items())),
    ]
    return f"{clock(now_ms)}  {'; '.join(parts)}" if parts else ""


def _messages(n: int, what: str) -> str:
    return f"{n} message{'' if n == 1 else 's'} {what}"


def _decision(decided: Decided) -> str:
    state, rule, until_ms = decided
    why = RULES.get(rule, rule)
    if state == "sent":
        return "sent"
    until = f" until {clock(until_ms)}" if until_ms is not None else ""
    return f"{state}{until} ({why})"


def summary_of(found: Sequence[Told]) -> Iterator[str]:
    """What became of all messages."""
    outcomes = Counter(told.outcome for told in found)
    held = [told for told in found if told.held_until_ms]
    yield f"Of {len(found)} messages that came due {outcomes.pop('sent', 0)} were sent."
    yield (
        f"{len(held)} of them were held over night, each until 8 in the morning by its customer's "
        "own clock, and then asked of anew."
    )
    for rule, n in sorted(outcomes.items(), key=lambda item: (-item[1], item[0])):
        yield f"  {n:>4} not sent: {RULES.get(rule, rule)}"
