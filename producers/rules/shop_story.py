"""What happens to one customer of the synthetic shop?

A person's whole life in the shop is written at once: e-mails of a few campaigns, visits, carts,
orders, refunds. Gaps between visits lie on both sides of the 30 minutes that end one, some to the
millisecond, so that an event arriving late starts, joins or moves a visit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from random import Random
from typing import Final

from producers.rules.shop_ledger import VISIT_GAP_MS, Moment

# Campaign id -> the name people read. Only an event without an id is counted by its name.
CAMPAIGNS: Final[Mapping[str, str]] = {
    "spring-sale": "Spring Sale 🌷",
    "newsletter-42": "Newsletter, issue 42",
    "welcome-series": "Welcome to the shop",
    "win-back": "We miss you",
    "summer-preview": "Summer preview – أهلاً بالصيف",
    "loyalty-points": "Your points",
}
_CAMPAIGN_IDS: Final = tuple(CAMPAIGNS)
_CURRENCIES: Final = ("EUR", "EUR", "EUR", "USD", "USD", "GBP", "JPY")

_SECOND: Final = 1000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
DAY_MS: Final = 24 * _HOUR
_YEAR: Final = 365 * DAY_MS

# Between two visits; the middle ones sit exactly on and beside the edge.
_GAPS_MS: Final = (
    9 * _MINUTE,
    28 * _MINUTE,
    VISIT_GAP_MS - 1,
    VISIT_GAP_MS,
    VISIT_GAP_MS + 1,
    33 * _MINUTE,
    70 * _MINUTE,
)


@dataclass(frozen=True, slots=True)
class Scene:
    """A moment, and whether it reaches the collector only after the rest of the person's life."""

    moment: Moment
    is_late: bool = False


def customer_life(rng: Random, *, ends_at_ms: int, order_prefix: str) -> list[Scene]:
    """A known customer's life: e-mails, the visits they lead to, and sometimes old history."""
    diary = _Diary(rng, order_prefix)
    for campaign in rng.sample(_CAMPAIGN_IDS, rng.choice((1, 1, 2, 3))):
        if _receive_email(diary, campaign):
            diary.wait(2 * _SECOND, 20 * _SECOND)
            _visit(diary, campaign, signs_in=rng.random() < 0.3)
        diary.wait(1 * _MINUTE, 40 * _MINUTE)
    if rng.random() < 0.4:
        _visit(diary, None, signs_in=rng.random() < 0.3)
    if rng.random() < 0.05:
        _history(diary)
    return diary.scenes(ends_at_ms)


def passer_by_life(rng: Random, *, ends_at_ms: int, order_prefix: str) -> list[Scene]:
    """The life of somebody whom the shop knows by a cookie only: one to three visits."""
    diary = _Diary(rng, order_prefix)
    for _ in range(rng.choice((1, 1, 2, 3))):
        _visit(diary, rng.choice((None, *_CAMPAIGN_IDS)), signs_in=False)
        diary.at_ms += rng.choice(_GAPS_MS)
    if rng.random() < 0.05:
        _history(diary)
    return diary.scenes(ends_at_ms)


def reader_life(rng: Random, *, ends_at_ms: int) -> list[Scene]:
    """The life of a newsletter's reader whom the shop knows by their e-mail address only."""
    diary = _Diary(rng, "")
    diary.note("identify", None)
    for campaign in rng.sample(_CAMPAIGN_IDS, 2):
        diary.wait(1 * _MINUTE, 40 * _MINUTE)
        _receive_email(diary, campaign)
    return diary.scenes(ends_at_ms)


class _Diary:
    """Collects moments on a clock that starts at zero."""

    def __init__(self, rng: Random, order_prefix: str) -> None:
        self.rng = rng
        self.at_ms = 0
        self._order_prefix = order_prefix
        self._orders = 0
        self._scenes: list[Scene] = []

    def wait(self, least_ms: int, most_ms: int) -> None:
        self.at_ms += self.rng.randint(least_ms, most_ms)

    def next_order_id(self) -> str:
        self._orders += 1
        return f"{self._order_prefix}-{self._orders}"

    def note(
        self,
        name: str,
        campaign: str | None,
        *,
        order_id: str | None = None,
        price: tuple[Decimal, str] | None = None,
        by_machine: bool = False,
        is_late: bool = False,
    ) -> None:
        amount, currency = price or (None, None)
        moment = Moment(name, self.at_ms, campaign, order_id, amount, currency, by_machine)
        self._scenes.append(Scene(moment, is_late))

    def scenes(self, ends_at_ms: int) -> list[Scene]:
        """The moments in order, the last one at `ends_at_ms`, no two at the same millisecond."""
        ordered = sorted(self._scenes, key=lambda scene: scene.moment.occurred_at_ms)
        times: list[int] = []
        for scene in ordered:
            earliest = times[-1] + 1 if times else scene.moment.occurred_at_ms
            times.append(max(scene.moment.occurred_at_ms, earliest))
        shift_ms = ends_at_ms - times[-1]
        return [
            replace(scene, moment=replace(scene.moment, occurred_at_ms=at_ms + shift_ms))
            for scene, at_ms in zip(ordered, times, strict=True)
        ]


def _receive_email(diary: _Diary, campaign: str) -> bool:
    """Note one e-mail's fate; true when the person clicked it just now."""
    rng = diary.rng
    if rng.random() < 0.04:
        diary.note("Email Suppressed", campaign)
        return False
    diary.note("Email Sent", campaign)
    diary.wait(500, 20 * _SECOND)
    if rng.random() < 0.06:
        diary.note("Email Bounced", campaign)
        return False
    diary.note("Email Delivered", campaign)
    if rng.random() < 0.35:
        diary.wait(300, 5 * _SECOND)
        diary.note("Email Opened", campaign, by_machine=True)
    if rng.random() < 0.45:
        return False
    for _ in range(rng.choice((1, 1, 1, 2))):
        diary.wait(20 * _SECOND, 15 * _MINUTE)
        diary.note("Email Opened", campaign)
    if rng.random() < 0.06:
        diary.wait(2 * _SECOND, 30 * _SECOND)
        diary.note("Unsubscribed" if rng.random() < 0.7 else "Email Marked as Spam", campaign)
        return False
    if rng.random() < 0.5:
        return False
    for _ in range(rng.choice((1, 1, 1, 2))):
        diary.wait(1 * _SECOND, 40 * _SECOND)
        diary.note("Email Link Clicked", campaign)
    return True


def _visit(diary: _Diary, campaign: str | None, *, signs_in: bool) -> None:
    """Note a walk through the shop; half of the visitors' clients name the campaign only once."""
    rng = diary.rng
    diary.note(rng.choice(("page", "page", "page", "screen")), campaign)
    if rng.random() < 0.5:
        campaign = None
    if signs_in:
        _step(diary, "identify", campaign)
    for _ in range(rng.randint(0, 4)):
        _step(diary, rng.choice(("page", "Products Searched", "Product Viewed")), campaign)
    if rng.random() < 0.15:
        diary.at_ms += rng.choice(_GAPS_MS)
        diary.note("page", campaign)
    if rng.random() < 0.5:
        return
    _step(diary, "Product Viewed", campaign)
    _step(diary, "Product Added", campaign)
    if rng.random() < 0.35:
        return
    _step(diary, "Checkout Started", campaign)
    if rng.random() < 0.25:
        return
    _order(diary, campaign)


def _step(diary: _Diary, name: str, campaign: str | None) -> None:
    diary.wait(2 * _SECOND, 4 * _MINUTE)
    diary.note(name, campaign)


def _order(diary: _Diary, campaign: str | None, *, is_late: bool = False) -> None:
    rng = diary.rng
    price, order_id = _price(rng), diary.next_order_id()
    diary.wait(5 * _SECOND, 5 * _MINUTE)
    diary.note("Order Completed", campaign, order_id=order_id, price=price, is_late=is_late)
    if rng.random() < 0.08:
        # The thank-you page loaded again: another event, the same order.
        diary.wait(1 * _SECOND, 2 * _MINUTE)
        diary.note("Order Completed", campaign, order_id=order_id, price=price, is_late=is_late)
    if rng.random() < 0.12:
        diary.wait(5 * _MINUTE, 2 * _HOUR)
        back = (price[0] / 2).quantize(Decimal(1)) if rng.random() < 0.5 else price[0]
        diary.note(
            "Order Refunded",
            campaign if rng.random() < 0.7 else None,
            order_id=order_id,
            price=(back, price[1]),
            is_late=is_late,
        )


def _price(rng: Random) -> tuple[Decimal, str]:
    """An amount and its currency: free, whole, in cents, or finer than a counter keeps."""
    currency = rng.choice(_CURRENCIES)
    if rng.random() < 0.02:
        return Decimal(0), currency  # paid by voucher
    if currency == "JPY":
        return Decimal(rng.randint(300, 40_000)), currency
    cents = Decimal(rng.randint(150, 45_000)).scaleb(-2)
    if rng.random() < 0.05:
        # A converted price. The digits after the sixth never lie half-way, so that every rule
        # of rounding to the nearest gives the same amount.
        cents += Decimal(rng.randint(0, 99)).scaleb(-6) + rng.choice((3, 8)) * Decimal("0.0000001")
    return cents, currency


def _history(diary: _Diary) -> None:
    """Note an earlier visit, days or years ago, that is told only after everything else."""
    rng = diary.rng
    now_ms = diary.at_ms
    long_ago = rng.randint(1, 7) * _YEAR if rng.random() < 0.3 else rng.randint(1, 20) * DAY_MS
    diary.at_ms = now_ms - long_ago - rng.randint(0, DAY_MS)
    campaign = rng.choice((None, *_CAMPAIGN_IDS))
    diary.note("page", campaign, is_late=True)
    diary.wait(1 * _SECOND, 20 * _MINUTE)
    diary.note("Product Viewed", campaign, is_late=True)
    _order(diary, campaign, is_late=True)
    diary.at_ms = now_ms
