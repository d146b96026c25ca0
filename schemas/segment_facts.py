"""What does a segment's condition read, and how does it compare?

A person's facts under one protocol, so that a lane, which holds them in its working form, and a
preview, which reads the records of everybody, answer by the same rules.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final, Protocol

import msgspec

from schemas.activity import MAY_PROFILE, Entry
from schemas.segments import Condition
from schemas.subjects import ClearTrait, Consent, Purchase

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MICRO = 1_000_000
NEVER: Final = 1 << 62
ANY: Final = ""
"""In place of an event's name: whatever it is called."""

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
    def packed_activity(self) -> bytes: ...
    @property
    def clear_traits(self) -> Mapping[str, ClearTrait]: ...
    @property
    def visits_ms(self) -> Sequence[int]: ...  # when each began, in order
    @property
    def circumstances(self) -> Mapping[str, tuple[int, bytes, str]]: ...  # the last is the word


ByName = Mapping[str, tuple[list[int], list[Entry]]]


class Look:
    """One evaluation: the facts, and what was found out about them on the way."""

    __slots__ = (
        "by_name",
        "facts",
        "favourite",
        "groups",
        "has_decided",
        "now_ms",
        "numbers",
        "times",
    )

    def __init__(self, facts: Facts, groups: Sequence[Sequence[Consent]], now_ms: int) -> None:
        self.facts = facts
        self.groups = groups  # the decisions under each pid of the person
        self.has_decided = any(groups)
        self.now_ms = now_ms
        self.by_name: ByName | None = None
        self.favourite: tuple[str | None, int] | None = None
        self.numbers: dict[str, int] = {}  # behind answers: times, UTC ms
        self.times: Mapping[str, list[int]] = {}  # of the events that are counted


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


def window_ms(leaf: Condition) -> int:
    """How far back it looks; 0 for one that names no window."""
    days: int = leaf.get("within_days", 0)
    hours: int = leaf.get("within_hours", 0)
    return days * DAY_MS + hours * HOUR_MS


def count_in_window(
    times_ms: Sequence[int], first: int, low: int, high: int, length_ms: int
) -> Answer:
    """Whether `low` to `high` of `times_ms` (by time), from place `first` on, lie in a window of
    `length_ms` that holds all of these now."""
    count = len(times_ms) - first
    if count < low:
        return False, NEVER  # they only become fewer
    if count > high:
        at_ms = times_ms[first + count - high - 1] + length_ms
        return False, at_ms if low <= high else NEVER
    return True, times_ms[first + count - low] + length_ms if low else NEVER


def entries_of(look: "Look", names: Collection[str]) -> ByName:
    """What was allowed for personalisation when it happened, of each event in `names`; all of it
    under ANY, if that is one of them. Read once an evaluation: `names` are those that any
    condition asks for."""
    found = look.by_name
    if found is None:
        found = look.by_name = _by_name(look.facts.activity, names)
    return found


def _by_name(activity: Iterable[Entry], names: Collection[str]) -> ByName:
    """Of each event in `names` the entries by time, and their times."""
    found: dict[str, list[Entry]] = {}
    if ANY in names:
        activity = list(activity)
        found[ANY] = [entry for entry in activity if entry.flags & MAY_PROFILE]
    for entry in activity:
        if entry.flags & MAY_PROFILE and entry.name in names:
            found.setdefault(entry.name, []).append(entry)
    for entries in found.values():
        if len(entries) > 1:
            entries.sort()
    return {name: ([each.occurred_at_ms for each in of], of) for name, of in found.items()}


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
