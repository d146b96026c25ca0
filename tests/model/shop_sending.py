"""Of the messages that came due, are those sent that should be?

`sent_by_reference` looks at a calendar and a clock on the wall for what the reference found due, and
knows of a person what the log had by then: a message that waits for the morning is asked of anew, and
an order, a change or a withdrawal may have come meanwhile. What automation sent is compared with it
(tests/model/shop_post.py), and what the gate's own rules let go (consumers/rules/sending.py):
`sent_by_rules` asks them without a store, for runs without servers.
"""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from consumers.rules.local_time import Quiet, Zone
from consumers.rules.sending import (
    SEEN_BY,
    Dropped,
    Held,
    Limits,
    decide_by_caps,
    decide_by_cart,
    decide_by_change,
    decide_by_purchase,
    decide_by_sight,
    decide_by_time,
    window_of,
)
from schemas.consent import Basis, allowed_now, decisions_on
from schemas.subjects import Consent
from tests.model.cart_story import DAY_MS, EXPIRES_MS, MINUTE_MS, Fact, Message, Story

ZONES = ("UTC", "Europe/Prague", "America/Sao_Paulo", "Pacific/Auckland")
LIMITS = Limits(most_a_day=1, most_a_week=2, quiet=Quiet(22 * 60, 8 * 60), latest_ms=DAY_MS)
WITHDRAWN = "purpose/advertising", "purpose/analytics", "purpose/personalisation"
BASES: dict[str, Basis] = dict.fromkeys(SEEN_BY, "legitimate_interest")


def zone_name_of(pid: bytes) -> str:
    """Where the person lives."""
    return ZONES[pid[0] % len(ZONES)]


def sent_by_rules(story: Story, due: Sequence[tuple[int, Message]]) -> list[tuple[int, Message]]:
    """(when, message) of those that the gate's rules let go; `due` with their due time."""
    name = zone_name_of(story.pid)
    zone = Zone(name, "trait", ZoneInfo(name))
    sent: list[tuple[int, Message]] = []
    waiting = [(message.at_ms, due_ms, number, message)
               for number, (due_ms, message) in enumerate(due)]  # fmt: skip
    heapq.heapify(waiting)
    while waiting:
        now_ms, due_ms, number, message = heapq.heappop(waiting)
        known = [fact for fact in story.facts if fact.arrives_at_ms <= now_ms]
        decisions = [
            Consent(on, "granted" if fact.kind == "grant" else "withdrawn",
                    fact.arrives_at_ms, None, fact.arrives_at_ms)
            for fact in known if fact.kind in ("grant", "withdraw") for on in WITHDRAWN
        ]  # fmt: skip
        if any(fact.kind == "erase" for fact in known):
            continue
        on_sending = decisions_on(WITHDRAWN[0], decisions)
        if not allowed_now("legitimate_interest", on_sending, now_ms):
            continue
        if any(f.kind == "unsubscribe" and not _is_subscribed_again(known, f) for f in known):
            continue
        used = [fact for fact in known if _counts(story, fact.occurred_at_ms, fact.arrives_at_ms)]
        ordered = [fact.occurred_at_ms for fact in used if fact.kind == "order"]
        changed = [
            fact.occurred_at_ms
            for fact in used
            if fact.kind in ("add", "remove") or fact is _other_cart(used, message)
        ]
        verdicts = (
            decide_by_sight(message.anchor_ms, due_ms, BASES, [decisions], now_ms),
            decide_by_purchase(message.anchor_ms, ordered),
            decide_by_cart(message.anchor_ms, Counter(message.products), *_since_order(used)),
            decide_by_change(message.anchor_ms, changed),
            decide_by_time(due_ms, now_ms, zone, LIMITS, message.anchor_ms + EXPIRES_MS),
            decide_by_caps([at_ms for at_ms, _ in sent], window_of(now_ms, zone), zone, LIMITS),
        )
        against = next((each for each in verdicts if isinstance(each, Dropped | Held)), None)
        if isinstance(against, Held):
            heapq.heappush(waiting, (against.until_ms, due_ms, number, message))
        elif against is None:
            sent.append((now_ms, message))
    return sent


def sent_by_reference(
    story: Story, due: Sequence[tuple[int, Message]], waits: Sequence[Mapping[int, int]] = ()
) -> list[tuple[int, Message]]:
    """The same by a wall clock, and a calendar. `waits` says of each message at which times nobody
    could go on with it, and until when."""
    zone = ZoneInfo(zone_name_of(story.pid))
    sent: list[tuple[int, Message]] = []

    def local(at_ms: int) -> datetime:
        return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(zone)

    for number, (due_ms, message) in enumerate(due):
        away = waits[number] if waits else {}
        now_ms = message.at_ms
        while True:
            if now_ms in away:
                now_ms = away[now_ms]
                continue
            late = now_ms > min(due_ms + DAY_MS, message.anchor_ms + EXPIRES_MS)
            if late or _is_forbidden(story, message, now_ms):
                break
            if not 8 <= local(now_ms).hour < 22:
                while not 8 <= local(now_ms).hour < 22:
                    now_ms = now_ms // MINUTE_MS * MINUTE_MS + MINUTE_MS
                continue
            days = [local(at_ms).date() for at_ms, _ in sent]
            today = local(now_ms).date()
            this_week = [day for day in days if day.isocalendar()[:2] == today.isocalendar()[:2]]
            if today not in days and len(this_week) < 2:
                sent.append((now_ms, message))
            break
    return sent


def _is_forbidden(story: Story, message: Message, now_ms: int) -> bool:
    known = [fact for fact in story.facts if fact.arrives_at_ms <= now_ms]
    used = [f for f in known if _counts(story, f.occurred_at_ms, f.arrives_at_ms)]
    if _other_cart(used, message) is not None:
        return True
    ordered_ms, added = _since_order(used)
    if ordered_ms is not None and Counter(message.products) - added:
        return True  # something in it was bought
    for fact in known:
        # Who withdrew since may have bought unseen, whatever they allowed after that.
        if fact.kind == "withdraw" and fact.arrives_at_ms >= message.anchor_ms:
            return True
        if fact.kind == "erase":
            return True
        if fact.kind == "unsubscribe" and not _is_subscribed_again(known, fact):
            return True
        if _counts(story, fact.occurred_at_ms, fact.arrives_at_ms):
            if fact.kind == "order" and fact.occurred_at_ms >= message.anchor_ms:
                return True
            if fact.kind in ("add", "remove") and fact.occurred_at_ms > message.anchor_ms:
                return True
    return False


def _is_subscribed_again(known: Sequence[Fact], than: Fact) -> bool:
    since = [f for f in known if f.kind == "subscribe" and f.arrives_at_ms >= than.arrives_at_ms]
    return bool(since)


def _other_cart(used: Sequence[Fact], message: Message) -> Fact | None:
    """The last look at the cart after what the message is about, if it saw something else."""
    looks = [f for f in used if f.kind == "list" and f.occurred_at_ms > message.anchor_ms]
    last = max(looks, key=lambda fact: (fact.occurred_at_ms, fact.event_id), default=None)
    if last is None or sorted(last.products) == sorted(message.products):
        return None
    return last


def _since_order(used: Sequence[Fact]) -> tuple[int | None, Counter[str]]:
    """When the last order was, if nobody looked at the cart since; what was put there after it."""
    then = sorted(used, key=lambda fact: (fact.occurred_at_ms, fact.event_id))
    over = [n for n, fact in enumerate(then) if fact.kind in ("order", "list")]
    if not over or then[over[-1]].kind != "order":
        return None, Counter()
    since = then[over[-1] :]
    added = [each for fact in since if fact.kind == "add" for each in fact.products]
    return since[0].occurred_at_ms, Counter(added)


def _counts(story: Story, occurred_at_ms: int, arrives_at_ms: int) -> bool:
    """No decision lies between, and none stands against it."""
    decisions = [f.arrives_at_ms for f in story.facts if f.kind in ("withdraw", "grant")]
    then, now = (sum(at <= of for at in decisions) for of in (occurred_at_ms, arrives_at_ms))
    return then == now and then % 2 == 0
