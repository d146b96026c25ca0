"""What does a segment's condition mean, said as plainly as possible?

The reference that the lane's rules are held against: it sees every fact at once, knows nothing of
wake-ups, indexes or short cuts, and is asked at whatever moment.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from schemas.consent import Basis, allowed_now, decisions_on
from schemas.decisions import consents_on_topic
from schemas.segments import Segment
from schemas.subjects import Consent

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
BASES: dict[str, Basis] = {"personalisation": "legitimate_interest", "advertising": "consent"}
EVENTS = ("Product Viewed", "Order Completed", "page")
CATEGORIES = ("shoes", "books", "toys")
PRODUCTS = ("p1", "p2")
CAMPAIGNS = ("spring", "autumn")
COMPARED = ("at_least", "at_most", "exactly")


@dataclass(frozen=True, slots=True)
class Happened:
    """One event as it is told once; copies are not told again."""

    name: str
    occurred_at_ms: int
    category: str = ""
    product: str = ""
    campaign: str = ""
    order_id: int | None = None
    cents: int = 0
    currency: str = ""
    traits: Mapping[str, Any] = field(default_factory=dict)
    may_profile: bool = True


def members(
    segments: Sequence[Segment],
    events: Sequence[Happened],
    consents: Sequence[Consent],
    now_ms: int,
) -> set[str]:
    """The segments that somebody of whom all this is known is in at `now_ms`."""
    personal = decisions_on("purpose/personalisation", consents)
    if not allowed_now(BASES["personalisation"], personal, now_ms):
        return set()
    conditions = {each.id: each.condition for each in segments}
    return {
        id_ for id_ in conditions if _holds(conditions[id_], conditions, events, consents, now_ms)
    }


def _holds(
    condition: Mapping[str, Any],
    others: Mapping[str, Mapping[str, Any]],
    events: Sequence[Happened],
    consents: Sequence[Consent],
    now_ms: int,
) -> bool:
    def also(inner: Mapping[str, Any]) -> bool:
        return _holds(inner, others, events, consents, now_ms)

    if "all" in condition:
        return all(also(each) for each in condition["all"])
    if "any" in condition:
        return any(also(each) for each in condition["any"])
    if "not" in condition:
        return not also(condition["not"])
    if "segment" in condition:
        return also(others[condition["segment"]])
    if "consent" in condition:
        about = condition["consent"]
        if "/" in about:
            channel, topic = about.split("/")
            return allowed_now("consent", consents_on_topic(channel, topic, consents), now_ms)
        return allowed_now(BASES[about], decisions_on(f"purpose/{about}", consents), now_ms)
    if "trait" in condition:
        told = [each for each in events if condition["trait"] in each.traits and each.may_profile]
        if not told:
            return False
        value = max(told, key=lambda each: each.occurred_at_ms).traits[condition["trait"]]
        wanted = condition["in"] if "in" in condition else [condition["is"]]
        return any(type(value) is type(each) and value == each for each in wanted)
    if "event" in condition:
        return _fits(condition, _count(condition, events, now_ms), 1)
    return _computed(condition, events, now_ms)


def _count(condition: Mapping[str, Any], events: Sequence[Happened], now_ms: int) -> int:
    window_ms = (
        condition.get("within_days", 0) * DAY_MS + condition.get("within_hours", 0) * HOUR_MS
    )
    where = condition.get("where", {})
    count = 0
    for each in events:
        said = {"category": each.category, "product_id": each.product, "campaign": each.campaign}
        count += (
            each.name == condition["event"]
            and each.may_profile
            and now_ms < each.occurred_at_ms + window_ms
            and all(
                said[key] in ([wanted] if isinstance(wanted, str) else wanted)
                for key, wanted in where.items()
            )
        )
    return count


def _computed(condition: Mapping[str, Any], events: Sequence[Happened], now_ms: int) -> bool:
    name = condition["computed"]
    orders: dict[int, Happened] = {}
    for each in events:
        if each.order_id is not None:
            before = orders.get(each.order_id)
            if before is None or each.occurred_at_ms < before.occurred_at_ms:
                orders[each.order_id] = each
    paid = {
        currency: [each.cents for each in orders.values() if each.currency == currency]
        for currency in {each.currency for each in orders.values()}
    }
    times = {
        "days_since_first_seen": [each.occurred_at_ms for each in events],
        "days_since_last_seen": [each.occurred_at_ms for each in events],
        "days_since_last_order": [each.occurred_at_ms for each in orders.values()],
    }
    value: Any = None
    if name == "orders":
        value = len(orders)
    elif name == "events":
        value = len(events)
    elif name == "spent":
        value = sum(found) if (found := paid.get(condition["currency"])) else None
    elif name == "average_order_value":
        found = paid.get(condition["currency"])
        value = Fraction(sum(found), len(found)) if found else None
    elif times[name]:
        at_ms = min(times[name]) if "first" in name else max(times[name])
        value = (now_ms - at_ms) // DAY_MS
    if value is not None and name in ("spent", "average_order_value"):
        value = Fraction(value) / 100
    return value is not None and _fits(condition, value, 0)


def _fits(condition: Mapping[str, Any], value: Any, least: int) -> bool:
    if not any(key in condition for key in COMPARED):
        return bool(value >= least)
    return bool(
        ("at_least" not in condition or value >= Fraction(str(condition["at_least"])))
        and ("at_most" not in condition or value <= Fraction(str(condition["at_most"])))
        and ("exactly" not in condition or value == Fraction(str(condition["exactly"])))
    )


# -- any condition


def random_condition(chance: random.Random, depth: int, others: Sequence[str]) -> dict[str, Any]:
    """A condition of at most `depth` levels that may name `others`."""
    if depth > 1 and chance.random() < 0.65:
        kind = chance.choice(("all", "any", "all", "any", "not"))
        if kind == "not":
            return {"not": random_condition(chance, depth - 1, others)}
        count = chance.randint(1, 4)
        return {kind: [random_condition(chance, depth - 1, others) for _ in range(count)]}
    return random_leaf(chance, others)


def random_leaf(chance: random.Random, others: Sequence[str]) -> dict[str, Any]:
    kind = chance.choice(
        ("event", "event", "event", "computed", "computed", "consent", "trait", "segment")
    )
    if kind == "segment" and others:
        return {"segment": chance.choice(others)}
    if kind == "consent":
        return {"consent": chance.choice(("advertising", "personalisation", "email/news"))}
    if kind == "trait":
        name, values = chance.choice((("plan", ("gold", "free")), ("vip", (True, 1, False))))
        if chance.random() < 0.5:
            return {"trait": name, "is": chance.choice(values)}
        return {"trait": name, "in": chance.sample(values, 2)}
    if kind == "computed":
        return _random_computed(chance)
    leaf: dict[str, Any] = {"event": chance.choice(EVENTS)}
    if chance.random() < 0.5:
        leaf["within_days"] = chance.randint(1, 12)
    else:
        leaf["within_hours"] = chance.randint(1, 100)
    where: dict[str, Any] = {}
    if chance.random() < 0.4:
        where["category"] = chance.choice((*CATEGORIES, list(CATEGORIES[:2])))
    if chance.random() < 0.2:
        where["product_id"] = chance.choice(PRODUCTS)
    if chance.random() < 0.2:
        where["campaign"] = chance.choice(CAMPAIGNS)
    if where:
        leaf["where"] = where
    return leaf | _random_comparison(chance, 0, 4, may_lack=True)


def _random_computed(chance: random.Random) -> dict[str, Any]:
    name = chance.choice(
        (
            "orders",
            "events",
            "spent",
            "average_order_value",
            "days_since_first_seen",
            "days_since_last_seen",
            "days_since_last_order",
        )
    )
    if name in ("spent", "average_order_value"):
        currency = chance.choice(("EUR", "CZK"))
        return {"computed": name, "currency": currency} | _random_comparison(chance, 0, 60)
    return {"computed": name} | _random_comparison(chance, 0, 8)


def _random_comparison(
    chance: random.Random, least: int, most: int, *, may_lack: bool = False
) -> dict[str, Any]:
    kind = chance.choice(("at_least", "at_most", "exactly", "between", "lacking"))
    if kind == "lacking" and may_lack:
        return {}
    low = chance.randint(least, most)
    if kind in COMPARED:
        return {kind: low}
    return {"at_least": low, "at_most": low + chance.randint(0, 3)}
