"""Does this message go to this person now, later or never?

What forbids it is asked in a fixed order, from what holds for good to what passes; the first to
forbid it decides, and says by which values. Quiet hours hold a message until they are over, and it
is asked of anew then; everything else drops it: a reminder that comes days later helps nobody.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from consumers.rules.local_time import Quiet, Zone, day_began_ms, quiet_until_ms, week_began_ms
from schemas.consent import Basis, allows_in_all, decisions_on, is_grant
from schemas.subjects import Consent

SEEN_BY: Final = ("analytics", "personalisation")
"""The purposes without which orders, and carts, are not seen (streams/rules/admit.py)."""

Value = str | int | bool

Rule = Literal[
    "erased",
    "unknown_person",
    "held_out",
    "suppressed",
    "no_address",
    "purpose",
    "subscription",
    "consent_interrupted",
    "purchase_since",
    "cart_changed",
    "too_late",
    "quiet_hours",
    "day_cap",
    "week_cap",
    "store_unavailable",
    "channel_unavailable",
    "channel_unknown",
    "refused_by_channel",
    "template_fault",
    "interrupted",
]
"""What may decide over a message."""


@dataclass(frozen=True, slots=True)
class Go:
    """Nothing forbids it."""


@dataclass(frozen=True, slots=True)
class Held:
    """Not before `until_ms`; then everything is asked anew."""

    until_ms: int
    rule: Rule
    values: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Dropped:
    """Never."""

    rule: Rule
    values: Mapping[str, Value]


Decision = Go | Held | Dropped
GO = Go()


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a person hears, and when not; counts are for each channel."""

    most_a_day: int
    most_a_week: int
    quiet: Quiet
    latest_ms: int
    """A message that was due so long ago is not sent any more."""


@dataclass(frozen=True, slots=True)
class Window:
    """Since when messages count against the limits, in the person's zone."""

    day_ms: int
    week_ms: int


def decide_by_sight(
    anchor_at_ms: int,
    due_at_ms: int,
    bases: Mapping[str, Basis],
    decided: Sequence[Sequence[Consent]],
    now_ms: int,
) -> Decision:
    """Who was out of a purpose of SEEN_BY for any time may have bought then: nobody knows.

    `decided` are the decisions of each pid of the person, `bases` those of the purposes. No refusal
    may touch the time since what the message is about; its lane asked that too, of what it knew.
    And since the message came due no yes may have ended, and none have been recorded: the overlay
    keeps no refusal that a later yes covers.
    """
    since_ms = min(due_at_ms, now_ms)
    for purpose in SEEN_BY:
        on_it = [decisions_on(f"purpose/{purpose}", each) for each in decided]
        unseen, moments = [], {since_ms, now_ms}
        for each in (one for of_pid in on_it for one in of_pid):
            stamps = (each.valid_from_ms, each.recorded_at_ms)
            if not is_grant(each):
                unseen += [at_ms for at_ms in stamps if at_ms >= anchor_at_ms]
            elif each.recorded_at_ms >= since_ms:
                unseen.append(each.recorded_at_ms)
            moments |= {each.valid_from_ms, each.valid_to_ms or now_ms}
        unseen += [
            at_ms
            for at_ms in moments
            if since_ms <= at_ms <= now_ms
            and not allows_in_all(bases[purpose], on_it, at_ms, at_ms)
        ]
        if unseen:
            values = {"purpose": purpose, "unseen_at_ms": min(unseen), "since_ms": anchor_at_ms}
            return Dropped("consent_interrupted", values)
    return GO


def decide_by_purchase(anchor_at_ms: int, ordered_at_ms: Iterable[int]) -> Decision:
    """Who bought after what the message is about does not hear of it."""
    later = [at_ms for at_ms in ordered_at_ms if at_ms >= anchor_at_ms]
    if later:
        return Dropped("purchase_since", {"ordered_at_ms": max(later), "since_ms": anchor_at_ms})
    return GO


def decide_by_cart(
    anchor_at_ms: int,
    told: Mapping[str, int],
    ordered_at_ms: int | None,
    added_since: Mapping[str, int],
) -> Decision:
    """Who bought part of what the message is about does not hear of it either, also when the order
    came to be known after the message was made and lies before the last change of the cart.

    `told` is how many of each product the message says are in the cart, `ordered_at_ms` when it was
    emptied by an order last (None if it was listed since, or never), `added_since` how many of each
    product were put there after that.
    """
    if ordered_at_ms is not None and any(n > added_since.get(each, 0) for each, n in told.items()):
        return Dropped("purchase_since", {"ordered_at_ms": ordered_at_ms, "since_ms": anchor_at_ms})
    return GO


def decide_by_change(anchor_at_ms: int, changed_at_ms: Iterable[int]) -> Decision:
    """A cart that was changed after the message was made is not what the message says: the journey
    begins anew with that change."""
    later = [at_ms for at_ms in changed_at_ms if at_ms > anchor_at_ms]
    if later:
        return Dropped("cart_changed", {"changed_at_ms": max(later), "since_ms": anchor_at_ms})
    return GO


def decide_by_age(
    due_at_ms: int, now_ms: int, limits: Limits, expires_at_ms: int | None = None
) -> Decision:
    """Too late once it was due for too long, or what it is about is too old."""
    latest_ms = due_at_ms + limits.latest_ms
    if expires_at_ms is not None:
        latest_ms = min(latest_ms, expires_at_ms)
    if now_ms > latest_ms:
        return Dropped("too_late", {"due_at_ms": due_at_ms, "latest_at_ms": latest_ms})
    return GO


def decide_by_time(
    due_at_ms: int, now_ms: int, zone: Zone, limits: Limits, expires_at_ms: int | None = None
) -> Decision:
    """Too late, in the quiet hours of the person, or in time."""
    aged = decide_by_age(due_at_ms, now_ms, limits, expires_at_ms)
    if isinstance(aged, Dropped):
        return aged
    until_ms = quiet_until_ms(now_ms, zone.rules, limits.quiet)
    if until_ms is not None:
        values = {"timezone": zone.name, "timezone_by": zone.known_by}
        return Held(until_ms, "quiet_hours", values)
    return GO


def window_of(now_ms: int, zone: Zone) -> Window:
    """The calendar day and week of the person."""
    return Window(day_began_ms(now_ms, zone.rules), week_began_ms(now_ms, zone.rules))


def decide_by_caps(
    sent_at_ms: Iterable[int], window: Window, zone: Zone, limits: Limits
) -> Decision:
    """Whether one message more is too many, on a channel on which these went."""
    sent = list(sent_at_ms)
    today = sum(at_ms >= window.day_ms for at_ms in sent)
    if today >= limits.most_a_day:
        return one_too_many("day", today, zone, limits)
    this_week = sum(at_ms >= window.week_ms for at_ms in sent)
    if this_week >= limits.most_a_week:
        return one_too_many("week", this_week, zone, limits)
    return GO


def one_too_many(span: Literal["day", "week"], sent: int, zone: Zone, limits: Limits) -> Dropped:
    """So many went on the calendar day or week of the person, and no more may."""
    where = {"timezone": zone.name, "timezone_by": zone.known_by}
    if span == "day":
        return Dropped("day_cap", {"sent": sent, "most": limits.most_a_day, **where})
    return Dropped("week_cap", {"sent": sent, "most": limits.most_a_week, **where})


def retry_after_ms(tries: int, chance: float) -> int:
    """How long to wait after the `tries`-th failure: twice as long each time, from 5 s to an hour,
    and somewhere in the upper half of it as `chance` (0 to 1) says, so that many who failed at once
    do not come back at once."""
    longest_ms = min(5000 * 2 ** min(tries - 1, 20), 3_600_000)
    return int(longest_ms * (0.5 + chance / 2))
