"""What does a segment's condition read, and how does it compare?

A person's facts under one protocol, so that a lane, which holds them in its working form, and a
preview, which reads the records of everybody, answer by the same rules.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final, Protocol

import msgspec

from schemas.activity import Entry
from schemas.segment_leaves import AGES, AMOUNTS, COUNTS
from schemas.segments import Condition
from schemas.subjects import ClearTrait, Consent, Purchase

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MICRO = 1_000_000
NEVER: Final = 1 << 62

Scalar = str | int | float | bool
Answer = tuple[bool, int]
"""Whether it holds, and until when (exclusive, UTC ms): NEVER while time alone changes nothing."""


class Facts(Protocol):
    """What is known of one whole person. Amounts in millionths, times UTC ms of the events."""

    @property
    def first_seen_ms(self) -> int: ...
    @property
    def last_seen_ms(self) -> int: ...
    @property
    def events(self) -> int: ...
    @property
    def orders(self) -> int: ...
    @property
    def refunds(self) -> int: ...
    @property
    def spent(self) -> Mapping[str, int]: ...
    @property
    def refunded(self) -> Mapping[str, int]: ...
    @property
    def purchases(self) -> Sequence[Purchase]: ...
    @property
    def consents(self) -> Sequence[Consent]: ...
    @property
    def activity(self) -> Iterable[Entry]: ...
    @property
    def clear_traits(self) -> Mapping[str, ClearTrait]: ...


ByName = Mapping[str, tuple[list[int], list[Entry]]]


class Look:
    """One evaluation: the facts, and what was found out about them on the way."""

    __slots__ = ("by_name", "facts", "found", "groups", "has_decided", "now_ms")

    def __init__(self, facts: Facts, groups: Sequence[Sequence[Consent]], now_ms: int) -> None:
        self.facts = facts
        self.groups = groups  # the decisions under each pid of the person
        self.has_decided = any(groups)
        self.now_ms = now_ms
        self.by_name: ByName | None = None
        self.found: dict[str, Answer] = {}


Rule = Callable[[Look], Answer]


def bounds_of(leaf: Condition, *, default_low: int = 0, factor: int = 1) -> tuple[int, int]:
    """The least and the most that it allows, inclusive, `factor` times."""
    if "exactly" in leaf:
        low = high = _times(leaf["exactly"], factor)
        return low, high
    high = _times(leaf["at_most"], factor) if "at_most" in leaf else NEVER
    if "at_least" in leaf:
        return _times(leaf["at_least"], factor), high
    return 0 if "at_most" in leaf else default_low, high


def _times(value: float, factor: int) -> int:
    return value if factor == 1 and isinstance(value, int) else round(Decimal(str(value)) * factor)


def computed_rule(leaf: Condition) -> tuple[int, Rule]:
    name: str = leaf["computed"]
    if name in COUNTS:
        low, high = bounds_of(leaf)

        def count(look: Look) -> Answer:
            return low <= getattr(look.facts, name) <= high, NEVER

        return 1, count
    if name in AMOUNTS:
        return 3, _amount(name, leaf["currency"], *bounds_of(leaf, factor=MICRO))
    assert name in AGES
    low, high = bounds_of(leaf)
    since = _SINCE[name]

    def age(look: Look) -> Answer:
        at_ms = since(look.facts)
        if at_ms is None:
            return False, NEVER
        days = (look.now_ms - at_ms) // DAY_MS
        if days < low:
            return False, at_ms + low * DAY_MS if low <= high else NEVER
        if days > high:
            return False, NEVER
        return True, NEVER if high == NEVER else at_ms + (high + 1) * DAY_MS

    return 3, age


def _amount(name: str, currency: str, low: int, high: int) -> Rule:
    """No comparison is true of an average without an order, nor of a currency never used."""

    def amount(look: Look) -> Answer:
        facts = look.facts
        if name == "spent":
            found = facts.spent.get(currency)
        elif name == "refunded":
            found = facts.refunded.get(currency)
        else:
            amounts = [
                each.amount_micro
                for each in facts.purchases
                if each.currency == currency and not each.is_refund
            ]
            if not amounts:
                return False, NEVER
            return low * len(amounts) <= sum(amounts) <= high * len(amounts), NEVER
        return found is not None and low <= found <= high, NEVER

    return amount


def _last_order_ms(facts: Facts) -> int | None:
    return max(
        (each.occurred_at_ms for each in facts.purchases if not each.is_refund), default=None
    )


_SINCE: Mapping[str, Callable[[Facts], int | None]] = {
    "days_since_first_seen": lambda facts: facts.first_seen_ms if facts.events else None,
    "days_since_last_seen": lambda facts: facts.last_seen_ms if facts.events else None,
    "days_since_last_order": _last_order_ms,
}


def trait_rule(leaf: Condition) -> Rule:
    name = leaf["trait"]
    values = frozenset(_typed(value) for value in (leaf["in"] if "in" in leaf else [leaf["is"]]))

    def trait(look: Look) -> Answer:
        found = look.facts.clear_traits.get(name)
        return found is not None and _typed(msgspec.json.decode(found.value)) in values, NEVER

    return trait


def _typed(value: Scalar | None) -> tuple[bool, Scalar | None]:
    """Tells true from 1, which Python does not."""
    return type(value) is bool, value
