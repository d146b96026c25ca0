"""Is every event of a log in the campaign that a look at all of them gives it?

Shares no code with the product: a few lines over what a lane said, and over what is left of it.
"""

from collections.abc import Mapping, Sequence

import orjson

from schemas.consent import Basis, allows
from schemas.events import Accepted, Reattributed, Retracted
from schemas.moves import Linked
from schemas.requests import Erased

Said = Accepted | Retracted | Reattributed | Erased | Linked
BY_TOUCH = 2


def left_of(said: Sequence[Said]) -> dict[int, Accepted]:
    """By place, the accepted events that nothing after them takes back."""
    return {
        number: event
        for number, event in enumerate(said)
        if isinstance(event, Accepted)
        and not any(
            isinstance(later, Retracted) and later.pid == event.pid and not _allowed(event, later)
            for later in said[number:]
        )
    }


def _allowed(event: Accepted, said: Retracted) -> bool:
    legal: Basis = "consent" if said.basis == "consent" else "legitimate_interest"
    times = (event.occurred_at_ms, event.received_at_ms)
    return allows(legal, said.decisions, *times, 1_000 * said.late_grant_s)


def campaigns_said(said: Sequence[Said]) -> dict[int, str]:
    """By place, the campaign of each accepted event after all that was said later."""
    found: dict[int, str] = {}
    by_touch: set[int] = set()
    for number, each in enumerate(said):
        if isinstance(each, Accepted):
            found[number] = each.campaign_id
            if each.attributed_by == BY_TOUCH:
                by_touch.add(number)
        elif isinstance(each, Reattributed):
            for at in list(found):
                event = said[at]
                assert isinstance(event, Accepted)
                if event.pid == each.pid:
                    _apply(each, event, at, found, by_touch)
    return found


def _apply(
    said: Reattributed, event: Accepted, at: int, found: dict[int, str], by_touch: set[int]
) -> None:
    for span in said.spans:
        if at in by_touch and span.from_ms <= event.occurred_at_ms < span.until_ms:
            found[at] = span.campaign_id
    for one in said.events:
        if event.event_id.startswith(one.tie):
            found[at] = one.campaign_id
            by_touch.discard(at)


def wrong_campaigns(
    said: Sequence[Sequence[Said]],
    roots: Mapping[bytes, bytes],
    without: set[bytes],
    window_ms: int,
) -> bool:
    """True if an event that counts, of somebody not in `without`, is where it must not be.

    `said` of each partition; `roots` tells whose person a pid is, of those that belong together.
    """
    left: list[tuple[Accepted, str]] = []
    for of_one in said:
        found = campaigns_said(of_one)
        left += [
            (event, found[at]) for at, event in left_of(of_one).items() if event.pid not in without
        ]
    touches = [
        (roots.get(event.pid, event.pid), event.occurred_at_ms, event.event_id, named)
        for event, _ in left
        if (named := orjson.loads(event.clear).get("properties", {}).get("campaign_id"))
    ]
    for event, campaign in left:
        begin_ms, who = event.occurred_at_ms - window_ms, roots.get(event.pid, event.pid)
        theirs = [
            touch[1:]
            for touch in touches
            if touch[0] == who and begin_ms < touch[1] <= event.occurred_at_ms
        ]
        own = [named for _, _, id_, named in touches if id_ == event.event_id]
        if campaign != (own[0] if own else max(theirs)[2] if theirs else "(none)"):
            return True
    return False
