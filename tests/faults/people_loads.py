"""Which calls say who is who, fill carts, and let people enter and leave segments by time?

People have a user id, two devices, an e-mail address and a telephone, and new ones come all the
time. Some calls name two of these, most of one person, some of two. Shoppers fill a cart an hour
ago, so that a message about it comes due, and they leave segments, within seconds. Every call names
a campaign and a time that no other has.
"""

import hashlib
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tests.faults.loads import CAMPAIGNS, HOUR_MS, Call, Load, time_text

CALLS_A_PERSON = 80
"""Then somebody new comes, and the oldest of those who are there does not call any more."""
AT_ONCE = 16
CATEGORIES = ("shoes", "books", "toys")
CLAIMS, SHOPPERS = 0.08, 0.02
"""Parts of the calls that say who is who, and that begin a story of a cart."""
DUE_AFTER_MS = (1_000, 5_000)
LATER_CALLS = (40, 900)
"""So many calls after its beginning a story goes on, if it does."""

Body = dict[str, Any]
Deferred = tuple[int, Callable[[int, int, random.Random], Call]]


class People:
    """Makes the calls of one run; the same seed makes the same ones, but for times."""

    def __init__(self, run: str, begin_ms: int) -> None:
        self._run = run
        self._times: set[int] = set()
        self._shoppers = 0
        self._deferred: list[Deferred] = []
        digest = hashlib.sha256(f"{run} {begin_ms}".encode()).digest()
        self._phones = f"+4207{int.from_bytes(digest[:3], 'big') % 10**6:06d}"

    def make(self, number: int, load: Load, at_ms: int, chance: random.Random) -> Call:
        """The call of this number."""
        for at, deferred in enumerate(self._deferred):
            if deferred[0] <= number:
                del self._deferred[at]
                return deferred[1](number, at_ms, chance)
        kind = chance.random()
        if kind < SHOPPERS:
            self._begin_cart(number, chance)
            return self._deferred.pop(0)[1](number, at_ms, chance)
        if kind < SHOPPERS + CLAIMS:
            return self._claim(number, at_ms, chance)
        return self._anything(number, at_ms, chance)

    # -- who there is

    def _someone(self, number: int, chance: random.Random) -> int:
        newest = number // CALLS_A_PERSON + AT_ONCE
        return chance.randrange(newest - AT_ONCE, newest)

    def _name(self, kind: str, of: int) -> str:
        if kind == "phone":
            return f"phone:{self._phones}{of % 1000:03d}"
        if kind == "email":
            return f"email:e{of}@{self._run}.example"
        return f"{kind}:{self._run}/{kind[0]}{of}"

    def _any_name(self, kind: str, number: int, of: int, chance: random.Random) -> str:
        if chance.random() < 0.15:
            of = self._someone(number, chance)
        return self._name(kind, 2 * of + chance.randrange(2) if kind == "anonymous" else of)

    # -- calls

    def _anything(self, number: int, at_ms: int, chance: random.Random) -> Call:
        of = self._someone(number, chance)
        kind = chance.choices(("user", "anonymous", "email"), (5, 4, 1))[0]
        name = self._any_name(kind, number, of, chance)
        what = chance.random()
        if kind == "email" or what > 0.9:
            return self._identify(number, at_ms, (name,), chance)
        if what < 0.25:
            return self._order(number, at_ms, name, chance)
        if what < 0.75:
            event = chance.choice(("Email Sent", "Email Opened", "Product Viewed", "Product Added"))
            return self._track(number, at_ms, name, event, chance)
        body = {"type": "page", "name": "Shop"}
        return self._call(number, self._free(at_ms), name, "page", body, chance)

    def _claim(self, number: int, at_ms: int, chance: random.Random) -> Call:
        of = self._someone(number, chance)
        kinds = chance.choice(
            (
                *(("user", "anonymous"), ("user", "anonymous"), ("user", "email")),
                *(("user", "phone"), ("anonymous", "email"), ("anonymous", "phone")),
                *(("user", "anonymous", "email"), ("anonymous", "email", "phone")),
                *(("user", "previous"), ("user", "other user")),
            )
        )
        user = self._name("user", of)
        if kinds[1] == "other user" and chance.random() < 0.3:
            before = self._name("user", self._someone(number, chance))
        elif kinds[1] in ("previous", "other user"):
            before = self._any_name("anonymous", number, of, chance)
        else:
            named = tuple(self._any_name(kind, number, of, chance) for kind in kinds)
            return self._identify(number, at_ms, named, chance)
        previous = before.partition(":")[2]
        names = tuple(dict.fromkeys((user, f"anonymous:{previous}", f"user:{previous}")))
        body = {"type": "alias", "previousId": previous}
        return self._call(number, self._free(at_ms), user, "alias", body, chance, one_person=names)

    def _identify(
        self, number: int, at_ms: int, names: tuple[str, ...], chance: random.Random
    ) -> Call:
        body: Body = {"type": "identify", "traits": {"newest": number}}
        for name in names:
            kind, _, value = name.partition(":")
            if kind in ("email", "phone"):
                body["traits"][kind] = value
            else:
                body["userId" if kind == "user" else "anonymousId"] = value
        more: Body = {"one_person": names} if len(names) > 1 else {}
        return self._call(
            number, self._free(at_ms), names[0], "identify", body, chance, **more
        )  # fmt: skip

    def _track(
        self, number: int, at_ms: int, name: str, event: str, chance: random.Random, **more: Any
    ) -> Call:
        product = f"p{chance.randrange(4)}"
        properties = {"product_id": product, "category": chance.choice(CATEGORIES)}
        body: Body = {"type": "track", "event": event, "properties": properties}
        if event in ("Product Added", "Product Removed"):
            more["cart"] = more.get("cart") or ("remove" if "Rem" in event else "add")
        return self._call(
            number, self._free(at_ms), name, event, body, chance,
            product=product, category=properties["category"], **more,
        )  # fmt: skip

    def _order(self, number: int, at_ms: int, name: str, chance: random.Random) -> Call:
        total = f"{(number + 1) // 100}.{(number + 1) % 100:02d}"
        properties = {"order_id": f"{self._run}/{number}", "total": total, "currency": "EUR"}
        body: Body = {"type": "track", "event": "Order Completed", "properties": properties}
        call = self._call(
            number, self._free(at_ms), name, "Order Completed", body, chance, cart="order"
        )
        return replace(call, amount_micro=(number + 1) * 10_000)

    def _call(
        self, number: int, at_ms: int, name: str, event: str, body: Body,
        chance: random.Random, **more: Any,
    ) -> Call:  # fmt: skip
        kind, _, value = name.partition(":")
        campaign = f"{self._run}/{chance.choice(CAMPAIGNS)}"
        body = {
            "messageId": f"{self._run}/{number}",
            "timestamp": time_text(at_ms),
            "context": {"campaign": {"name": campaign}},
            **body,
        }
        if kind == "email":
            body.setdefault("traits", {})["email"] = value
        else:
            body["userId" if kind == "user" else "anonymousId"] = value
        more["made_at_ms"] = _now_ms()
        return Call(number, body, name, campaign, event, at_ms, more=more)

    def _free(self, at_ms: int) -> int:
        """The time, or the first one after it that no call of the run has."""
        while at_ms in self._times:
            at_ms += 1
        self._times.add(at_ms)
        return at_ms

    # -- carts

    def _begin_cart(self, number: int, chance: random.Random) -> None:
        """What one shopper does, put before everything else that is to come."""
        shopper = self._shoppers = self._shoppers + 1
        user = f"user:{self._run}/s{shopper}"
        device = f"anonymous:{self._run}/d{shopper}"
        full_ms = _now_ms() - HOUR_MS + chance.randint(*DUE_AFTER_MS)
        later = number + chance.randint(*LATER_CALLS)
        story = chance.choice(
            ("left", "left", "bought", "emptied", "bought before", "goes on", "buys", "device",
             "device buys")
        )  # fmt: skip
        told: list[Deferred] = []

        def happens(name: str, event: str, after_ms: int, at: int = number) -> None:
            def make(number: int, _: int, chance: random.Random) -> Call:
                if event == "order":
                    return self._order(number, full_ms + after_ms, name, chance)
                call = self._track(number, full_ms + after_ms, name, event, chance)
                # Of one shopper everything is about one product, so that it can be taken out.
                product = f"p{shopper % 4}"
                call.body["properties"]["product_id"] = call.more["product"] = product
                return call

            told.append((at, make))

        cart_of = device if "device" in story else user
        happens(cart_of, "Product Added", -2_000)
        happens(cart_of, "Product Added", 0)
        if story == "bought":
            happens(user, "order", 500)
        elif story == "emptied":
            happens(user, "Product Removed", 300)
            happens(user, "Product Removed", 600)
        elif story == "bought before":
            happens(user, "order", -5_000, later)
        elif story == "goes on":
            happens(user, "Product Added", chance.randint(1_000, 12_000), later)
        elif story == "buys":
            happens(user, "order", chance.randint(1_000, 12_000), later)
        elif "device" in story:

            def login(number: int, at_ms: int, chance: random.Random) -> Call:
                return self._identify(number, at_ms, (user, device), chance)

            told.append((number, login))
            if story == "device buys":
                happens(user, "order", 500)
        self._deferred = told + self._deferred


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _begin(run: str, begin_ms: int) -> Callable[..., Call]:
    return People(run, begin_ms).make


PEOPLE = Load("people", begin=_begin)
PEOPLE_STORM = Load("people, tenfold", rate_per_s=500, copies=10, begin=_begin)
PEOPLE_REVERSED = Load("people, reversed", apart_ms=-7_000, begin=_begin)


def segments(version: int, run: str, chance: random.Random) -> list[dict[str, Any]]:
    """Definitions that replace those of the version before; some stay, some change, some go."""
    window = {"within_hours": chance.choice((1, 2, 30))}
    few = {"at_least": chance.randint(1, 4)}
    conditions: dict[str, dict[str, Any]] = {
        # People leave it within seconds: shoppers do what they do an hour ago.
        "just_added": {"event": "Product Added", "within_hours": 1},
        "viewed": {"event": "Product Viewed", **window, **few},
        "spent": {"computed": "spent", "currency": "EUR", "at_least": chance.choice((5, 20, 60))},
        "hesitant": {
            "all": [
                {
                    "event": "Product Viewed",
                    "within_days": chance.randint(1, 3),
                    "where": {"category": chance.choice(CATEGORIES)},
                    **few,
                },
                {"not": {"event": "Order Completed", "within_hours": chance.choice((1, 3))}},
            ]
        },
        "busy": {"any": [{"computed": "events", "at_least": chance.randint(4, 30)},
                         {"segment": "spent"}]},
        "campaign": {
            "event": "Product Added",
            "within_days": 2,
            "where": {"campaign": f"{run}/{chance.choice(CAMPAIGNS)}"},
        },
    }  # fmt: skip
    if version % 2:
        conditions["odd"] = {"not": {"computed": "orders", "at_least": chance.randint(1, 3)}}
        del conditions["campaign"]
    named = conditions.items()
    return [{"id": id_, "name": f"{run} {version}", "condition": each} for id_, each in named]
