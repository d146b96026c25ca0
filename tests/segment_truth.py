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
from schemas.traits import Measures, Thresholds

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
BASES: dict[str, Basis] = {"personalisation": "legitimate_interest", "advertising": "consent"}
EVENTS = ("Product Viewed", "Order Completed", "page")
CATEGORIES = ("shoes", "books", "toys")
PRODUCTS = ("p1", "p2")
CAMPAIGNS = ("spring", "autumn")
COMPARED = ("at_least", "at_most", "exactly")
GAP_MS = 30 * 60_000
KEPT_DAYS = 9
RECENCY_DAYS, FREQUENCY, EUR_CENTS = (1, 3, 5, 9), (4, 3, 2, 1), (3_000, 2_000, 1_500, 500)
MEASURES = Measures(
    Thresholds(RECENCY_DAYS, FREQUENCY, {"EUR": tuple(each * 10_000 for each in EUR_CENTS)}),
    KEPT_DAYS,
)
WORDS = {
    "country": ("CZ", "SK", "BR"),
    "device": ("desktop", "mobile"),
    "channel": ("direct", "email", "paid_search"),
    "timezone": ("Europe/Prague", "America/Sao_Paulo"),
}


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
    words: Mapping[str, str] = field(default_factory=dict)
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


def _window_ms(condition: Mapping[str, Any]) -> int:
    days, hours = condition.get("within_days", 0), condition.get("within_hours", 0)
    return int(days * DAY_MS + hours * HOUR_MS)


def _count(condition: Mapping[str, Any], events: Sequence[Happened], now_ms: int) -> int:
    window_ms = _window_ms(condition)
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
    if name == "favourite_category" or name in WORDS:
        liked = _favourite(events, now_ms) if name not in WORDS else _newest(name, events)
        return liked in (condition["in"] if "in" in condition else [condition["is"]])
    orders: dict[int, Happened] = {}
    for each in events:
        if each.name == "Order Completed" and each.order_id is not None:
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
    returned = {
        currency: sum(each.cents for each in events if _gives_back(each, currency))
        for currency in {each.currency for each in events if _gives_back(each, each.currency)}
    }
    value: Any = None
    if "within_days" in condition or "within_hours" in condition:
        value = _lately(name, events, orders, now_ms - _window_ms(condition))
    elif name in ("recency", "frequency", "monetary"):
        age_days = min(
            (_days_since(each.occurred_at_ms, now_ms) for each in orders.values()), default=None
        )
        asked = f"{name} in {condition['currency']}" if "currency" in condition else name
        value = None if age_days is None else _score(asked, age_days, len(orders), paid, returned)
    elif name == "orders":
        value = len(orders)
    elif name == "events":
        value = len(events)
    elif name == "visits":
        value = len(_visits(events))
    elif name == "refunds":
        value = sum(each.name == "Order Refunded" for each in events)
    elif name == "refunded":
        value = returned.get(condition["currency"])
    elif name == "spent":
        value = sum(found) if (found := paid.get(condition["currency"])) else None
    elif name == "average_order_value":
        found = paid.get(condition["currency"])
        value = Fraction(sum(found), len(found)) if found else None
    elif times[name]:
        at_ms = min(times[name]) if "first" in name else max(times[name])
        value = _days_since(at_ms, now_ms)
    if value is not None and name in ("spent", "refunded", "average_order_value"):
        value = Fraction(value) / 100
    return value is not None and _fits(condition, value, 0)


def _days_since(at_ms: int, now_ms: int) -> int:
    """Whole days. What a clock ahead of ours says is yet to come happened today."""
    return (now_ms - min(at_ms, now_ms)) // DAY_MS


def _gives_back(event: Happened, currency: str) -> bool:
    return event.name == "Order Refunded" and event.currency == currency


def _score(
    name: str,
    age_days: int,
    orders: int,
    paid: Mapping[str, Sequence[int]],
    returned: Mapping[str, int],
) -> int | None:
    """5, less one for each step that is not reached. Euros alone have steps."""
    if name == "recency":
        return 5 - len([most for most in RECENCY_DAYS if age_days > most])
    if name == "frequency":
        return 5 - len([least for least in FREQUENCY if orders < least])
    if name != "monetary in EUR" or "EUR" not in paid:
        return None
    kept = sum(paid["EUR"]) - returned.get("EUR", 0)
    return 5 - len([least for least in EUR_CENTS if kept < least])


def _lately(
    name: str, events: Sequence[Happened], orders: Mapping[int, Happened], since_ms: int
) -> int:
    """How many began or happened after `since_ms`."""
    if name == "visits":
        return len([at_ms for at_ms in _visits(events) if at_ms > since_ms])
    if name == "orders":
        return len([each for each in orders.values() if each.occurred_at_ms > since_ms])
    wanted = {"product_views": "Product Viewed", "cart_adds": "Product Added"}.get(name)
    return len(
        [
            each
            for each in events
            if each.may_profile
            and each.name != "identify"
            and wanted in (None, each.name)
            and each.occurred_at_ms > since_ms
        ]
    )


def _visits(events: Sequence[Happened]) -> list[int]:
    """When each began."""
    times = sorted(each.occurred_at_ms for each in events)
    return [
        at_ms
        for place, at_ms in enumerate(times)
        if place == 0 or at_ms - times[place - 1] >= GAP_MS
    ]


def _favourite(events: Sequence[Happened], now_ms: int) -> str | None:
    met: dict[str, list[int]] = {}
    for each in events:
        if (
            each.may_profile
            and each.category
            and each.name in ("Product Viewed", "Product Added", "Order Completed")
            and now_ms < each.occurred_at_ms + KEPT_DAYS * DAY_MS
        ):
            met.setdefault(each.category, []).append(each.occurred_at_ms)
    by_name = sorted(met)
    by_newest = sorted(by_name, key=lambda name: max(met[name]), reverse=True)
    by_count = sorted(by_newest, key=lambda name: len(met[name]), reverse=True)
    return by_count[0] if by_count else None


def _newest(name: str, events: Sequence[Happened]) -> str | None:
    told = [each for each in events if each.may_profile and name in each.words]
    return max(told, key=lambda each: each.occurred_at_ms).words[name] if told else None


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
    kind = chance.choice(("event", "event", *["computed"] * 4, "consent", "trait", "segment"))
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
            *("orders", "events", "visits", "refunds"),
            *("spent", "refunded", "average_order_value"),
            *("days_since_first_seen", "days_since_last_seen", "days_since_last_order"),
            *("recency", "frequency", "monetary"),
            *("events", "visits", "product_views", "cart_adds", "orders"),
            *("favourite_category", "favourite_category", *WORDS),
        )
    )
    if name in ("spent", "refunded", "average_order_value"):
        currency = chance.choice(("EUR", "CZK"))
        return {"computed": name, "currency": currency} | _random_comparison(chance, 0, 60)
    if name in ("recency", "frequency"):
        return {"computed": name} | _random_comparison(chance, 1, 5, top=5)
    if name == "monetary":
        currency = chance.choice(("EUR", "EUR", "CZK"))
        return {"computed": name, "currency": currency} | _random_comparison(chance, 1, 5, top=5)
    if name == "favourite_category" or name in WORDS:
        values = WORDS.get(name, CATEGORIES)
        if chance.random() < 0.7:
            return {"computed": name, "is": chance.choice(values)}
        return {"computed": name, "in": chance.sample(values, 2)}
    if name in ("product_views", "cart_adds") or (
        name in ("events", "visits", "orders") and chance.random() < 0.6
    ):
        window = chance.choice(
            ({"within_days": chance.randint(1, 12)}, {"within_hours": chance.randint(1, 100)})
        )
        return {"computed": name} | window | _random_comparison(chance, 0, 4)
    return {"computed": name} | _random_comparison(chance, 0, 8)


def _random_comparison(
    chance: random.Random, least: int, most: int, *, may_lack: bool = False, top: int = 1_000
) -> dict[str, Any]:
    kind = chance.choice(("at_least", "at_most", "exactly", "between", "lacking"))
    if kind == "lacking" and may_lack:
        return {}
    low = chance.randint(least, most)
    if kind in COMPARED:
        return {kind: low}
    return {"at_least": low, "at_most": min(top, low + chance.randint(0, 3))}
