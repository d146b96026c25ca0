"""What do people of a shop do to their carts, and which messages should they get for it?

A story is what happened to one person, with when the log heard of it: later than it happened, out of
order, and some of it twice. `messages_of` is the reference: it looks at a person at every moment at
which anything could change, with the facts that the log has by then put in the order in which they
happened, and asks the promise of the shipped journey in its own words. What the log hears after a
message was due cannot be known: it counts from then on.

Events happen in the first three minutes of a slot of ten; lanes are looked after at its fourth and
fifth, when they hear what arrived in it: what is due then is decided with all of that.
"""

import random
from dataclasses import dataclass, field
from typing import Literal

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
SLOT_MS = 10 * MINUTE_MS
LOOK_MS = 4 * MINUTE_MS
ARRIVE_MS = 5 * MINUTE_MS
WAIT_MS, NEXT_MS, REST_MS, EXPIRES_MS, MOST = HOUR_MS, 20 * HOUR_MS, 7 * DAY_MS, 7 * DAY_MS, 3
"""After so long without a change, and then after so long once more: less than a day, so that limits
by the day have something to do."""

UNTIL_MORNING = (0, 3, 6, 8, 20, 40)
"""So many slots after a cart was left behind: before its message is due, and while it waits at night."""

Kind = Literal[
    "add",
    "remove",
    "list",
    "order",
    "withdraw",
    "grant",
    "unsubscribe",
    "subscribe",
    "erase",
    "claim",
]
CHANGES: tuple[Kind, ...] = ("add", "remove", "list")
DECISIONS: tuple[Kind, ...] = ("withdraw", "grant", "unsubscribe", "subscribe", "erase")


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened; `event_id` orders what happened at one time. UTC ms.

    Who withdraws does so from all purposes; who unsubscribes, only from hearing of their cart. A claim,
    of `products` the pid of the claimant in hex, is no part of a random story.
    """

    kind: Kind
    occurred_at_ms: int
    arrives_at_ms: int
    event_id: bytes
    products: tuple[str, ...] = ()
    copies_at_ms: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """A message that is due: its number since the last rest, and the cart that it is about."""

    at_ms: int
    number: int
    anchor_ms: int
    products: tuple[str, ...]


@dataclass(slots=True)
class Story:
    """One person, and what happened to them."""

    pid: bytes
    facts: list[Fact] = field(default_factory=list)


def story_of(chance: random.Random, pid: bytes, start_ms: int, days: int) -> Story:
    """Some visits of one person to the shop: carts left behind, bought, emptied, come back to."""
    story = Story(pid)
    slots = days * DAY_MS // SLOT_MS
    slot = chance.randrange(slots)
    for _ in range(chance.randint(1, 4)):
        for _ in range(chance.randint(1, 4)):
            kind: Kind = chance.choices(CHANGES, (7, 2, 1))[0]
            _happens(chance, story, kind, start_ms, slot)
            slot += chance.choices((0, 1, 3, 8), (4, 3, 2, 1))[0]
        ends = chance.random()
        if ends < 0.4:
            slot += chance.choice((0, 1, 5, 6, 7, 30, 160))
            _happens(chance, story, "order", start_ms, slot)
        elif ends < 0.5:
            slot += chance.choice(UNTIL_MORNING)
            _happens(chance, story, "withdraw", start_ms, slot)
            slot += chance.choice((1, 4, 12, 200))
            _happens(chance, story, "grant", start_ms, slot)
        elif ends < 0.6:
            slot += chance.choice(UNTIL_MORNING)
            _happens(chance, story, "unsubscribe", start_ms, slot)
            slot += chance.choice((4, 60, 200))
            _happens(chance, story, "subscribe", start_ms, slot)
        elif ends < 0.68:
            slot += chance.choice(UNTIL_MORNING)
            _happens(chance, story, "list", start_ms, slot)
        elif ends < 0.71:
            _happens(chance, story, "erase", start_ms, slot + chance.choice((0, 4, 7, 200)))
        slot += chance.choice((2, 20, 144, 150, 400, 1_200))
        if slot >= slots:
            break
    return story


def _happens(chance: random.Random, story: Story, kind: Kind, start_ms: int, slot: int) -> None:
    slot_ms = start_ms + slot * SLOT_MS
    # What people decide is heard at once: whoever is told that it is in force may rely on it.
    is_decision = kind in DECISIONS
    late = 0 if is_decision else chance.choices((0, 1, 6, 30, 300), (80, 8, 6, 4, 2))[0]
    arrives_ms = slot_ms + late * SLOT_MS + ARRIVE_MS
    copies = [arrives_ms + chance.choice((0, 1, 9)) * SLOT_MS] if chance.random() < 0.15 else []
    occurred_ms = arrives_ms if is_decision else slot_ms + chance.randrange(3 * MINUTE_MS)
    products = tuple(chance.choices("abcd", k=chance.randint(0, 3) if kind == "list" else 1))
    story.facts.append(
        Fact(kind, occurred_ms, arrives_ms, chance.randbytes(16), products, tuple(copies))
    )


def look_after(at_ms: int) -> int:
    """The first time that lanes are looked after that is not before `at_ms`."""
    slot_ms = at_ms // SLOT_MS * SLOT_MS
    looks = (slot_ms + LOOK_MS, slot_ms + ARRIVE_MS, slot_ms + SLOT_MS + LOOK_MS)
    return next(look_ms for look_ms in looks if look_ms >= at_ms)


def messages_of(story: Story, until_ms: int) -> list[Message]:
    """Every message that should be due to the person by then, earliest first."""
    sent: list[Message] = []
    passed_over: set[int] = set()
    arrivals = sorted({fact.arrives_at_ms for fact in story.facts})
    now_ms = arrivals[0] if arrivals else until_ms + 1
    while now_ms <= until_ms:
        known = [fact for fact in story.facts if fact.arrives_at_ms <= now_ms]
        if any(fact.kind == "erase" for fact in known):
            break
        cart, anchor_ms = _cart(known)
        due_ms = _due(anchor_ms, sent) if cart and anchor_ms not in passed_over else None
        if due_ms is not None and due_ms <= now_ms:
            if now_ms > anchor_ms + EXPIRES_MS:
                due_ms = None
            elif _is_withdrawn(known):
                passed_over.add(anchor_ms)
                due_ms = None
            else:
                number = 1 if _begins_anew(anchor_ms, sent) else sent[-1].number + 1
                sent.append(Message(now_ms, number, anchor_ms, tuple(sorted(cart))))
                due_ms = _due(anchor_ms, sent)
        later = [at_ms for at_ms in arrivals if at_ms > now_ms]
        if due_ms is not None:
            later.append(look_after(due_ms))
        if not later:
            break
        now_ms = min(later)
    return sent


def _cart(known: list[Fact]) -> tuple[list[str], int]:
    """What is in the cart by all that is known, in the order in which it happened, and when it was
    changed last."""
    decisions = sorted(fact.arrives_at_ms for fact in known if fact.kind in ("withdraw", "grant"))
    withdrawn_ms = max((f.arrives_at_ms for f in known if f.kind == "withdraw"), default=-1)

    def was_allowed(fact: Fact) -> bool:
        before = [sum(at_ms <= of_ms for at_ms in decisions)
                  for of_ms in (fact.occurred_at_ms, fact.arrives_at_ms)]  # fmt: skip
        return before[0] == before[1] and before[0] % 2 == 0

    used = [f for f in known if f.kind in ("add", "remove", "list", "order") and was_allowed(f)]
    ordered_ms = max((f.occurred_at_ms for f in used if f.kind == "order"), default=-1)
    cart: list[str] = []
    anchor_ms = 0
    for fact in sorted(used, key=lambda fact: (fact.occurred_at_ms, fact.event_id)):
        if fact.kind == "order" or fact.occurred_at_ms <= max(ordered_ms, withdrawn_ms):
            continue
        anchor_ms = fact.occurred_at_ms
        if fact.kind == "list":
            cart = list(fact.products)
        elif fact.kind == "add":
            cart += fact.products
        elif fact.products[0] in cart:
            cart.remove(fact.products[0])
    return cart, anchor_ms


def _is_withdrawn(known: list[Fact]) -> bool:
    decisions = [fact for fact in known if fact.kind in ("withdraw", "grant")]
    return bool(decisions) and max(decisions, key=lambda f: f.arrives_at_ms).kind == "withdraw"


def _due(anchor_ms: int, sent: list[Message]) -> int | None:
    """An hour after the last change; NEXT_MS after that once more; of a cart that was changed since,
    three in all; and then nothing for a week."""
    due_ms = anchor_ms + WAIT_MS
    if sent:
        last = sent[-1]
        about_last = [each for each in sent if each.anchor_ms == last.anchor_ms]
        is_over = last.number == MOST or len(about_last) == 2
        if anchor_ms <= last.anchor_ms:
            if is_over:
                return None
            due_ms = last.at_ms + NEXT_MS
        elif due_ms < last.at_ms + REST_MS:
            if is_over:
                return None
            due_ms = max(due_ms, last.at_ms + NEXT_MS)
    return due_ms if due_ms <= anchor_ms + EXPIRES_MS else None


def _begins_anew(anchor_ms: int, sent: list[Message]) -> bool:
    if not sent:
        return True
    last = sent[-1]
    return anchor_ms > last.anchor_ms and anchor_ms + WAIT_MS >= last.at_ms + REST_MS
