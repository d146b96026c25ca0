"""In which order do the shop's calls reach a collector?

Not in the order of what happened: phones upload hours later, networks send twice, imports tell
of last year, and broken calls come in between. Some tens of people are under way at any moment;
each has a queue of calls, in the order in which they leave that person's devices. So memory
does not grow with the number of calls, and copies of a call land in the same batch and in far
ones alike.
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Final

from producers.rules.shop_bodies import BROKEN_REASONS, Body, Identity, body_of, broken_body
from producers.rules.shop_ledger import Note
from producers.rules.shop_story import Scene, customer_life, passer_by_life, reader_life

_PEOPLE_UNDER_WAY: Final = 48
_SPREAD_MS: Final = 3 * 60 * 60 * 1000  # a finite run's lives end within this time before its start
_SECOND: Final = 1000
_MINUTE: Final = 60 * _SECOND
_RESENT: Final = 0.05  # of all calls
_BROKEN: Final = 0.015


@dataclass(frozen=True, slots=True)
class ShopCall:
    """One call of Segment's protocol, and what the ledger is to know once it is acknowledged."""

    body: Body
    note: Note


def shop_calls(
    seed: int, events: int | None, start_ms: int, now_ms: Callable[[], int] | None = None
) -> Iterator[ShopCall]:
    """Exactly `events` calls, copies and broken ones included; without end when it is None.

    All events lie before `start_ms`, or before what `now_ms` answers at the time, where given;
    the freshest follow it closely. Equal arguments give equal calls, byte for byte; another
    seed or `start_ms` gives other people, message ids and orders, the same campaigns.
    """
    if events is None and now_ms is None:
        raise ValueError("an endless shop needs now_ms, or its time stands still")
    rng = Random(f"{seed}/{start_ms}")
    run = f"{rng.getrandbits(40):010x}"
    numbers = count(1)
    planned = sent = 0
    under_way: list[deque[ShopCall]] = []
    while events is None or sent < events:
        while len(under_way) < _PEOPLE_UNDER_WAY:
            if now_ms is not None:
                ends_at_ms = now_ms() - 1
            else:
                assert events is not None
                ends_at_ms = start_ms - 1 - _SPREAD_MS * max(0, events - planned) // events
            queue = deque(_calls_of_person(rng, run, next(numbers), ends_at_ms))
            planned += len(queue)
            under_way.append(queue)
        at = rng.randrange(len(under_way))
        for _ in range(rng.choice((1, 1, 2, 3, 5))):
            if not under_way[at] or sent == events:
                break
            yield under_way[at].popleft()
            sent += 1
        if not under_way[at]:
            under_way[at] = under_way[-1]
            under_way.pop()


def _calls_of_person(rng: Random, run: str, number: int, ends_at_ms: int) -> list[ShopCall]:
    """All that one person's devices send, in the order in which it leaves them."""
    who, scenes = _person(rng, run, number, ends_at_ms)
    # When a call leaves, what it tells (None: broken), and which message it is of this person.
    sendings: list[tuple[int, Scene | None, int]] = []
    for serial, scene in enumerate(scenes):
        leaves_ms = scene.moment.occurred_at_ms + _delay_ms(rng)
        if scene.is_late:
            leaves_ms = ends_at_ms + rng.randint(0, 4 * 60 * _MINUTE)
        sendings.append((leaves_ms, scene, serial))
        while rng.random() < _RESENT:
            leaves_ms += rng.choice((1, _SECOND, 10 * _MINUTE, 6 * 60 * _MINUTE))
            sendings.append((leaves_ms, scene, serial))
        if rng.random() < _BROKEN:
            sendings.append((leaves_ms, None, len(scenes) + serial))
    sendings.sort(key=lambda sending: sending[0])
    bodies: dict[int, Body] = {}
    calls = []
    for leaves_ms, told, serial in sendings:
        message_id = f"shop-{run}-{number}-{serial}"
        if told is None:
            reason = rng.choice(BROKEN_REASONS)
            at_ms = min(leaves_ms, ends_at_ms)
            body = broken_body(rng, who, at_ms, message_id, reason)
            note = Note(number, len(sendings), message_id, broken_because=reason)
        else:
            # A copy is the same call again: its body is not written a second time.
            if serial not in bodies:
                bodies[serial] = body_of(rng, who, told.moment, message_id)
            body = bodies[serial]
            note = Note(number, len(sendings), message_id, told.moment)
        calls.append(ShopCall(body, note))
    return calls


def _person(rng: Random, run: str, number: int, ends_at_ms: int) -> tuple[Identity, list[Scene]]:
    orders = f"order-{run}-{number}"
    name = f"{run}-{number}"
    match rng.randrange(10):
        case 0:
            reader = Identity("email", f"reader-{name}@mail.example")
            return reader, reader_life(rng, ends_at_ms=ends_at_ms)
        case 1 | 2 | 3:
            passer_by = Identity("anonymous", f"cookie-{name}")
            life = passer_by_life(rng, ends_at_ms=ends_at_ms, order_prefix=orders)
            return passer_by, life
        case _:
            customer = Identity("user", f"customer-{name}")
            return customer, customer_life(rng, ends_at_ms=ends_at_ms, order_prefix=orders)


def _delay_ms(rng: Random) -> int:
    """How long a call stays on its device: mostly a moment, sometimes a flight."""
    draw = rng.random()
    if draw < 0.8:
        return rng.randint(20, 2 * _SECOND)
    if draw < 0.93:
        return rng.randint(5 * _SECOND, 3 * _MINUTE)
    return rng.randint(20 * _MINUTE, 5 * 60 * _MINUTE)
