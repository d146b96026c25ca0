"""Which message about a cart left behind is due to a person, and when is the next?

Decided anew whenever a person is looked at, from the cart as it is then and from how far the
journey got: so a change puts a message off, and an order, a refusal or an emptied cart ends it,
without anything to cancel. Times of facts are event time; whether a message is due is asked of the
clock that the caller passes.

    first       `wait_ms` after the cart was changed last
    further     each of `follow_ups_ms` after the message before, while the cart stays as it is
    changed     a cart that was changed since the last message begins anew, but not before the first
                of `follow_ups_ms` has passed since that message
    rest        `cool_down_ms` after the last of them, or after `most_messages`: what would be due
                meanwhile never is
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from schemas.carts import JourneyState
from schemas.consent import allows_in_all, decisions_on, is_grant
from schemas.subjects import Consent
from streams.rules.cart import Cart
from streams.rules.gate import ANALYTICS, PERSONALISATION, Gate

MESSAGE_ID_BYTES = 16
_SHARES = 10_000
_AFTER_ALL = 1 << 30
"""Steps of a cart that was passed over: no message about it is due any more."""


@dataclass(frozen=True, slots=True)
class Journey:
    """One of `[[journeys]]`."""

    id: str
    wait_ms: int
    follow_ups_ms: tuple[int, ...]
    most_messages: int
    cool_down_ms: int
    expires_ms: int
    hold_out_percent: float = 0.0
    in_segment: str = ""
    not_in_segment: str = ""
    channel: str = "email"
    topic: str = ""
    template: str = ""
    campaign_id: str = ""


class Due(NamedTuple):
    """The `number`th message since the last cool-down, about the cart as of `anchor`."""

    number: int
    anchor_at_ms: int
    due_at_ms: int


class Decision(NamedTuple):
    """How far the journey is now, the message that is due, and when to look again (0: never)."""

    state: JourneyState | None
    due: Due | None
    wake_at_ms: int


def due_at_ms(journey: Journey, cart: Cart, state: JourneyState | None) -> int | None:
    """When the next message about this cart is due; None when there will be none."""
    anchor_ms = cart.anchor_at_ms
    first_ms = anchor_ms + journey.wait_ms
    if state is None:
        due_ms = first_ms
    elif anchor_ms <= state.anchor_at_ms:
        if state.step > len(journey.follow_ups_ms) or state.messages >= journey.most_messages:
            return None
        due_ms = state.last_at_ms + journey.follow_ups_ms[state.step - 1]
    elif first_ms < state.rests_until_ms:
        return None
    elif _is_new_round(journey, state, first_ms):
        due_ms = first_ms
    else:
        due_ms = max(first_ms, state.last_at_ms + journey.follow_ups_ms[0])
    return due_ms if due_ms <= anchor_ms + journey.expires_ms else None


def decide(
    journey: Journey, cart: Cart | None, state: JourneyState | None, known_ms: int, *, may: bool
) -> Decision:
    """What is due of what was to be sent by `known_ms`: up to then all facts are known.

    `may` says whether the person may be written to now, as far as the streams know: without it the
    cart is passed over, until it is changed.
    """
    if cart is None:
        return Decision(state, None, 0)
    at_ms = due_at_ms(journey, cart, state)
    if at_ms is None:
        return Decision(state, None, 0)
    if at_ms > known_ms:
        return Decision(state, None, at_ms)
    anchor_ms = cart.anchor_at_ms
    if known_ms > anchor_ms + journey.expires_ms:
        return Decision(state, None, 0)
    known = state or JourneyState(journey.id, 0, 0, 0, 0, 0)
    if not may:
        passed = JourneyState(
            journey.id, anchor_ms, _AFTER_ALL, known.messages, known.last_at_ms,
            known.rests_until_ms,
        )  # fmt: skip
        return Decision(passed, None, 0)
    step = known.step + 1 if anchor_ms <= known.anchor_at_ms else 1
    number = known.messages + 1
    if step == 1 and _is_new_round(journey, known, anchor_ms + journey.wait_ms):
        number = 1
    is_last = number >= journey.most_messages or step > len(journey.follow_ups_ms)
    rests_until_ms = known_ms + journey.cool_down_ms if is_last else 0
    said = JourneyState(journey.id, anchor_ms, step, number, known_ms, rests_until_ms)
    next_ms = due_at_ms(journey, cart, said)
    return Decision(said, Due(number, anchor_ms, at_ms), next_ms or 0)


def _is_new_round(journey: Journey, state: JourneyState, first_ms: int) -> bool:
    """True when what came before does not count any more."""
    if not state.messages or not journey.follow_ups_ms:
        return True
    if state.rests_until_ms:
        return first_ms >= state.rests_until_ms
    return first_ms >= state.last_at_ms + journey.cool_down_ms


def is_held_out(journey: Journey, pid: bytes) -> bool:
    """True for the share of people that gets no message, to compare with: always the same ones."""
    key = journey.id.encode()[:64]
    number = int.from_bytes(blake2b(pid, digest_size=8, key=key).digest(), "big")
    return number % _SHARES < journey.hold_out_percent * _SHARES / 100


def message_id_of(journey: Journey, pid: bytes, due: Due) -> bytes:
    """The same id however often this message is found due."""
    told = f"{journey.id}\0{due.anchor_at_ms}\0{due.number}\0".encode() + pid
    return blake2b(told, digest_size=MESSAGE_ID_BYTES).digest()


def unseen_until_ms(groups: Sequence[Sequence[Consent]], gate: Gate, now_ms: int) -> int:
    """Up to when the person may have ordered without our knowing: they refused it, or what they
    allowed was over, and nothing else allowed it. -1 for never.

    A cart from before counts no more, whatever they allowed since. `groups` are the decisions under
    each of their pids, `gate` is that of the configured bases.
    """
    newest = -1
    bases = ((ANALYTICS, gate.analytics_basis), (PERSONALISATION, gate.personalisation_basis))
    for about, basis in bases:
        decided = [decisions_on(about, group) for group in groups]
        for each in (one for group in decided for one in group):
            ended_ms = each.valid_to_ms
            if not is_grant(each):
                stamps = (each.valid_from_ms, each.recorded_at_ms)
                newest = max([newest, *(at_ms for at_ms in stamps if at_ms <= now_ms)])
            elif ended_ms is not None and newest < ended_ms <= now_ms:
                as_of_then = (ended_ms, ended_ms, gate.late_grant_ms)
                if not allows_in_all(basis, decided, *as_of_then):
                    newest = ended_ms
    return newest
