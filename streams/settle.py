"""What follows for a person from what happened, and from time passing?

A lane settles each person who changed once a barrier, right before it writes them: whatever the
events of a barrier add up to is decided from the person as they are then, and told in the same
transaction. So it costs nothing for each event, and a person who is due by time needs no record of
its own: they count as changed (streams/rules/wakes.py), and are settled like everybody else.
"""

from schemas.activity import MOST_ENTRIES
from schemas.topics import DAY_MS
from streams.outputs import Outputs
from streams.rules.person import Person
from streams.rules.whole import forget_whole, whole_of
from streams.subjects_to_journeys import settle_journeys
from streams.subjects_to_moves import tell_others

ASK_AGAIN_MS = 10_000
"""Of somebody who is due but of whom not all is known: the lane lags (streams/known.py)."""
LATEST_MS = 1 << 62


def settle(lane: Outputs, person: Person, now_ms: int) -> None:
    """What is said of `person` is what their facts say at `now_ms`, UTC ms of the lane's clock."""
    if person.erased_at_ms is not None:
        return
    rules = lane.settings.rules
    _forget_old(person, now_ms - rules.history_ms)
    if person.kinship is not None:
        tell_others(lane, person)
        forget_whole(person)
        whole_of(person, rules.visit_gap_ms)
    segments, next_ms = lane.membership.evaluate(person, now_ms)
    if segments != person.segments:
        lane.put_into(person, segments, now_ms)
    due_ms = settle_journeys(lane, person, now_ms) if rules.journeys else 0
    wake_at_ms = min(due_ms, next_ms) if due_ms and next_ms else due_ms or next_ms or 0
    if wake_at_ms or person.wake_at_ms:
        again_ms = min(now_ms + ASK_AGAIN_MS, next_ms or LATEST_MS) if wake_at_ms <= now_ms else 0
        lane.wakes.set(person, wake_at_ms, again_ms)


def _forget_old(person: Person, horizon_ms: int) -> None:
    # Once a day at most: what is a day too old does no harm, and looking costs.
    if not person.activity_since_ms:
        person.activity_since_ms = horizon_ms
    elif person.activity_since_ms < horizon_ms - DAY_MS or len(person.activity) > MOST_ENTRIES:
        person.activity.forget(horizon_ms)
        if person.cart and person.cart[-1].occurred_at_ms < horizon_ms:
            person.cart, person.rare = (), None
        person.activity_since_ms = horizon_ms
