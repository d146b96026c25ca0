"""How does a cart left behind become a message that is due?

Asked of every person who is settled (streams/settle.py): the rules decide from the cart and from
how far the journey got (streams/rules/journeys.py). What only silence allows waits until the lane
knows all that is on its log (streams/known.py). Written in the lane's transaction, with the state
that says so, a message is due once, whatever happens to the lane.
"""

from runtime.metrics import counter
from schemas.carts import JourneyState
from schemas.codec import JOURNEY_DUE
from schemas.journeys import JourneyDue
from streams.outputs import Outputs
from streams.rules.cart import Cart, cart_of, was_ordered
from streams.rules.gate import Moment, gate_by_consent, groups_of
from streams.rules.journeys import (
    Due,
    Journey,
    decide,
    is_held_out,
    message_id_of,
    unseen_until_ms,
)
from streams.rules.person import Person
from streams.rules.whole import is_whole, whole_of


def settle_journeys(lane: Outputs, person: Person, now_ms: int) -> int:
    """Every message that is due to the person is said to be; when to look again, 0 for never."""
    rules = lane.settings.rules
    whole = whole_of(person, rules.visit_gap_ms)
    if not whole.cart or was_ordered(whole.cart) or not is_whole(person):
        return 0
    gate = rules.gate
    unseen_ms = -1
    if whole.consents or whole.kinship is not None:
        unseen_ms = unseen_until_ms(groups_of(whole), gate, now_ms)
        gate = gate_by_consent(gate, whole, Moment(now_ms, now_ms))
    ordered_ms = max((p.occurred_at_ms for p in whole.purchases if not p.is_refund), default=-1)
    cart = cart_of(whole.cart, max(unseen_ms, ordered_ms))
    known_ms = lane.known.until_ms.get(person.pid, -1)
    wakes: list[int] = []
    for journey in rules.journeys:
        before = _state_of(whole, journey)
        may = (
            gate.counts
            and gate.profiles
            and (not journey.in_segment or journey.in_segment in person.segments)
            and journey.not_in_segment not in person.segments
        )
        state, due, wake_at_ms = decide(journey, cart, before, known_ms, may=may)
        if state is not before and state is not None:
            others = (each for each in person.journeys if each.journey_id != journey.id)
            person.journeys = (*others, state)
            person.rare = None
        if due is not None and cart is not None:
            _say(lane, person.pid, journey, cart, due, known_ms)
        if 0 < wake_at_ms <= now_ms:
            lane.known.wanted[person.pid] = None
        if wake_at_ms:
            wakes.append(wake_at_ms)
    return min(wakes, default=0)


def _state_of(person: Person, journey: Journey) -> JourneyState | None:
    return next((each for each in person.journeys if each.journey_id == journey.id), None)


def _say(
    lane: Outputs, pid: bytes, journey: Journey, cart: Cart, due: Due, decided_at_ms: int
) -> None:
    record = JourneyDue(
        message_id_of(journey, pid, due),
        pid,
        journey.id,
        due.number,
        due.anchor_at_ms,
        due.due_at_ms,
        decided_at_ms,
        due.anchor_at_ms + journey.expires_ms,
        is_held_out(journey, pid),
        list(cart.lines),
        list(cart.totals),
        journey.campaign_id,
        journey.channel,
        journey.topic,
        journey.template,
        lane.settings.generation,
        lane.p,
        lane.seq,
        lane.index,
    )
    lane.index += 1
    lane.producer.send(lane.settings.topics.journeys, JOURNEY_DUE.encode(record), pid, lane.p)
    counter("headwater_journeys_due_total").labels(journey.id).inc()
