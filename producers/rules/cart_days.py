"""What do customers do with their carts in the four days of a fast demo?

Each customer plays one of the parts that a shop knows: who forgets a cart, who buys in time or too
late, who comes at night, who takes their agreement back. Everything happens at hours and half
hours, so that the demo's clock has few moments to stop at; and never at the very moment at which a
message to the same customer is due, so that there is one right answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from schemas.topics import DAY_MS

HOUR_MS: Final = 3_600_000
DAYS: Final = 4
ZONES: Final = ("UTC", "Europe/Prague", "America/New_York", "Asia/Tokyo")
PRODUCTS: Final = (("Teapot", "24.50"), ("Wool socks", "9.90"), ("Desk lamp", "41.00"))
TOPIC: Final = "cart-reminders"

Kind = Literal["add", "remove", "order", "refuse", "unsubscribe"]


@dataclass(frozen=True, slots=True)
class Customer:
    """Somebody with an account, an address and a time zone; the shop may write if they `agree` to
    advertising and `subscribe` to the topic, both before the first day."""

    number: int
    zone: str
    agrees: bool = True
    subscribes: bool = True

    @property
    def user_id(self) -> str:
        """By which the shop knows them."""
        return f"customer-{self.number}"


@dataclass(frozen=True, slots=True)
class Deed:
    """What a customer does, and when the shop's systems hear of it. UTC ms."""

    customer: Customer
    kind: Kind
    occurred_at_ms: int
    heard_at_ms: int
    number: int


@dataclass(frozen=True, slots=True)
class Story:
    """All customers, and their deeds in the order in which they are heard of."""

    customers: tuple[Customer, ...]
    deeds: tuple[Deed, ...]
    begins_at_ms: int

    @property
    def ends_at_ms(self) -> int:
        """Nothing is due any more by then."""
        return self.begins_at_ms + DAYS * DAY_MS


# A deed of a part: its kind, on which day, at what hour by the customer's clock, and how many hours
# later it is heard of. An hour of None is some hour of the day, and hours are counted from it then.
_Act = tuple[Kind, int, float, float]
_PARTS: Final[tuple[tuple[str, float | None, tuple[_Act, ...]], ...]] = (
    ("forgets", None, (("add", 0, 0, 0),)),
    ("looks twice", None, (("add", 0, 0, 0), ("add", 0, 0.5, 0))),
    ("buys at once", None, (("add", 0, 0, 0), ("order", 0, 0.5, 0))),
    ("buys after a reminder", None, (("add", 0, 0, 0), ("order", 0, 2.5, 0))),
    ("bought on paper", None, (("add", 0, 0, 0), ("order", 0, 0.5, 1))),
    ("comes at night", 0, (("add", 0, 21, 0),)),
    ("buys before breakfast", 0, (("add", 0, 21, 0), ("order", 1, 7.5, 0))),
    ("adds before breakfast", 0, (("add", 0, 21, 0), ("add", 1, 7.5, 0))),
    ("puts it back", None, (("add", 0, 0, 0), ("remove", 0, 0.5, 0))),
    ("has had enough", None, (("add", 0, 0, 0), ("refuse", 0, 3.5, 0))),
    ("unsubscribes", None, (("add", 0, 0, 0), ("unsubscribe", 0, 0.5, 0))),
    ("never agreed", None, (("add", 0, 0, 0),)),
    ("never subscribed", None, (("add", 0, 0, 0),)),
)


def tell_story(seed: int, deeds: int, monday: datetime) -> Story:
    """At least `deeds` deeds from `monday` on, a midnight in UTC: the same for the same seed."""
    rng = Random(seed)
    customers: list[Customer] = []
    told: list[Deed] = []
    while len(told) < deeds:
        for name, hour, acts in rng.sample(_PARTS, len(_PARTS)):
            if len(told) >= deeds:
                break
            zone = rng.choice(ZONES)
            agrees, subscribes = name != "never agreed", name != "never subscribed"
            customer = Customer(len(customers) + 1, zone, agrees, subscribes)
            customers.append(customer)
            from_hour = rng.choice((10, 13, 16)) if hour is None else hour
            told += _deeds(customer, monday, from_hour, acts, len(told))
    told.sort(key=lambda deed: (deed.heard_at_ms, deed.number))
    return Story(tuple(customers), tuple(told), _ms(monday))


def _deeds(
    customer: Customer, monday: datetime, from_hour: float, acts: tuple[_Act, ...], first: int
) -> Iterator[Deed]:
    zone = ZoneInfo(customer.zone)
    for number, (kind, day, hour, later) in enumerate(acts, first):
        wall = monday.replace(tzinfo=None) + timedelta(days=day, hours=from_hour + hour)
        at_ms = _ms(wall.replace(tzinfo=zone))
        yield Deed(customer, kind, at_ms, at_ms + round(later * HOUR_MS), number)


def monday_before(now_ms: int) -> datetime:
    """The newest Monday in UTC whose four days are over: nothing of them lies in the future."""
    latest = datetime.fromtimestamp(now_ms / 1000, UTC) - timedelta(days=DAYS)
    return (latest - timedelta(days=latest.weekday())).replace(
        hour=0, minute=0, second=0, microsecond=0
    )


def call_of(deed: Deed) -> dict[str, Any]:
    """The call that tells of it, as an SDK of Segment would; not for refusals."""
    product, price = PRODUCTS[deed.number % len(PRODUCTS)]
    call = {
        "type": "track",
        "userId": deed.customer.user_id,
        "messageId": f"deed-{deed.number}",
        "timestamp": _written(deed.occurred_at_ms),
    }
    if deed.kind == "order":
        order = {"order_id": f"order-{deed.number}", "total": price, "currency": "EUR"}
        return call | {"event": "Order Completed", "properties": order}
    if deed.kind == "remove":
        # What lay in the cart was put there by the deed before.
        product, price = PRODUCTS[(deed.number - 1) % len(PRODUCTS)]
    line = {"product_id": product, "name": product, "price": price, "currency": "EUR"}
    event = "Product Added" if deed.kind == "add" else "Product Removed"
    return call | {"event": event, "properties": line | {"quantity": 1}}


def sign_up_of(customer: Customer, at_ms: int) -> dict[str, Any]:
    """The call that tells who the customer is and by which clock they live."""
    traits = {
        "email": f"{customer.user_id}@example.com",
        "name": f"Customer {customer.number}",
        "timezone": customer.zone,
    }
    return {
        "type": "identify",
        "userId": customer.user_id,
        "messageId": f"sign-up-{customer.number}",
        "timestamp": _written(at_ms),
        "traits": traits,
    }


def agreements_of(customer: Customer, at_ms: int) -> list[dict[str, Any]]:
    """What they agreed to when they signed up, as rows of POST /v1/consents/lists."""
    row = {
        "subject": f"user:{customer.user_id}",
        "valid_from": _written(at_ms),
        "source": "sign-up form",
        "proof": {"method": "form", "text_version": "1", "language": "en"},
    }
    rows = []
    if customer.agrees:
        rows.append(row | {"purpose": "advertising", "status": "granted"})
    if customer.subscribes:
        rows.append(row | {"channel": "email", "topic": TOPIC, "status": "subscribed"})
    return rows


def refusal_of(deed: Deed) -> dict[str, Any]:
    """What they take back, as POST /v1/consents takes it."""
    about = {"subject": f"user:{deed.customer.user_id}", "source": "preferences"}
    if deed.kind == "refuse":
        return about | {"purpose": "advertising", "status": "withdrawn"}
    return about | {"channel": "email", "topic": TOPIC, "status": "unsubscribed"}


def _ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000


def _written(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
