"""What must every campaign counter be at the end, by the shop's own knowledge?

The shop knows what it made happen before any of it becomes an HTTP call, so it can count without
reading what it sent and without one line of the code that it is meant to check: nothing here
imports anything of ours, and nothing behind the collector reads this. The definitions are those
of CONTRACT.md, "Counters".

A person's part stays open until all of their calls are noted, because a late event can still
join two of their visits; then only the sums remain, so memory follows the people under way.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

NO_CAMPAIGN: Final = "(none)"
VISIT_GAP_MS: Final = 30 * 60 * 1000  # a visit starts this long after the previous event
TOUCH_MS: Final = 5 * 24 * 60 * 60 * 1000  # so long what names no campaign belongs to the last one
_MONEY_STEP: Final = Decimal("0.000001")

# What counts besides visits and visitors. An opened e-mail and an order need more than a name.
COUNTER_OF_EVENT: Final[Mapping[str, str]] = {
    "Email Sent": "sent",
    "Email Delivered": "delivered",
    "Email Bounced": "bounced",
    "Email Marked as Spam": "spam_reported",
    "Email Suppressed": "suppressed",
    "Email Link Clicked": "clicked",
    "Unsubscribed": "unsubscribed",
    "page": "page_views",
    "screen": "page_views",
    "Product Viewed": "product_views",
    "Product Added": "cart_adds",
    "Checkout Started": "checkouts",
    "Order Refunded": "refunds",
}
# These reach a person; they are not the person walking through the shop.
EMAIL_EVENTS: Final = frozenset(
    {
        "Email Sent",
        "Email Delivered",
        "Email Bounced",
        "Email Marked as Spam",
        "Email Suppressed",
        "Email Opened",
        "Email Link Clicked",
        "Unsubscribed",
    }
)
COUNTERS: Final = tuple(
    dict.fromkeys(
        (
            *COUNTER_OF_EVENT.values(),
            "opened",
            "machine_opened",
            "unique_opened",
            "unique_clicked",
            "orders",
            "buyers",
            "visits",
            "visitors",
        )
    )
)
# Answer's list -> the event whose money it holds.
MONEY_LISTS: Final[Mapping[str, str]] = {"revenue": "Order Completed", "refunded": "Order Refunded"}


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened to one person, as the shop made it up.

    `name` is a Segment event name, or `page`, `screen`, `identify`. `campaign` is None where the
    event names none: it belongs to the last one that touched the person, if not long ago. No two
    moments of a person share an `occurred_at_ms` (UTC, epoch).
    """

    name: str
    occurred_at_ms: int
    campaign: str | None = None
    order_id: str | None = None
    amount: Decimal | None = None
    currency: str | None = None
    by_machine: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """What the ledger is told about one call.

    `person` is any stable name of theirs, `calls_of_person` how many calls (copies and broken ones
    included) they make in all. Exactly one of `moment` and `broken_because` is set.
    """

    person: int
    calls_of_person: int
    message_id: str
    moment: Moment | None = None
    broken_because: str | None = None


@dataclass(slots=True)
class _Open:
    noted: int = 0
    moments: dict[str, Moment] = field(default_factory=dict)  # message_id -> what happened


@dataclass(frozen=True, slots=True)
class Expected:
    """What one campaign must show: every counter of COUNTERS, and money by list and currency."""

    counters: Mapping[str, int]
    money: Mapping[str, Mapping[str, Decimal]]


class Ledger:
    """Counts the calls noted so far; the order in which they are noted changes no number."""

    def __init__(self) -> None:
        self.sent = 0
        self.duplicates = 0
        self.accepted = 0
        self.rejected: Counter[str] = Counter()
        self._closed = _Sums()
        self._open: dict[int, _Open] = {}

    def note(self, note: Note) -> None:
        """Count one call that the collector has acknowledged."""
        self.sent += 1
        person = self._open.setdefault(note.person, _Open())
        person.noted += 1
        if note.moment is None:
            self.rejected[note.broken_because or "unknown"] += 1
        elif note.message_id in person.moments:
            self.duplicates += 1
        else:
            person.moments[note.message_id] = note.moment
            self.accepted += 1
        if person.noted == note.calls_of_person:
            self._closed.add_person(person.moments.values())
            del self._open[note.person]

    @property
    def rejected_total(self) -> int:
        """Calls that the collector must have set aside, for whatever reason."""
        return self.rejected.total()

    def expected(self) -> dict[str, Expected]:
        """Every campaign that was named, and `(none)` where needed, with all its numbers."""
        sums = self._closed.copy()
        for person in self._open.values():
            sums.add_person(person.moments.values())
        return sums.by_campaign()

    def differences(self, answer: Mapping[str, object]) -> list[str]:
        """One line for each number in the body of `GET /v1/campaigns` that is not this ledger's.

        Empty when all are equal. Numbers that the ledger does not keep (rates, later counters)
        are left alone; a campaign that never was is a difference, except an empty `(none)`.
        """
        return list(_differences(self.expected(), answer))


class _Sums:
    """Sums over people, by (campaign, counter) and by (campaign, list, currency)."""

    def __init__(self) -> None:
        self._campaigns: set[str] = set()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._money: defaultdict[tuple[str, str, str], Decimal] = defaultdict(Decimal)

    def copy(self) -> "_Sums":
        twin = _Sums()
        twin._campaigns = set(self._campaigns)
        twin._counts = self._counts.copy()
        twin._money = self._money.copy()
        return twin

    def add_person(self, moments: Iterable[Moment]) -> None:
        """Add one person's whole life so far; call it once a person."""
        once: set[tuple[str, str]] = set()  # what counts a person at most once a campaign
        orders: set[str | None] = set()
        walked_at_ms: int | None = None
        for moment, campaign in _with_campaigns(moments):
            self._campaigns.add(campaign)
            if moment.name not in EMAIL_EVENTS:
                once.add((campaign, "visitors"))
                if walked_at_ms is None or moment.occurred_at_ms - walked_at_ms >= VISIT_GAP_MS:
                    self._counts[campaign, "visits"] += 1
                walked_at_ms = moment.occurred_at_ms
            if moment.name == "Order Completed":
                if moment.order_id in orders:
                    continue
                orders.add(moment.order_id)
                self._counts[campaign, "orders"] += 1
                once.add((campaign, "buyers"))
            elif moment.name == "Email Opened":
                counter = "machine_opened" if moment.by_machine else "opened"
                self._counts[campaign, counter] += 1
                if not moment.by_machine:
                    once.add((campaign, "unique_opened"))
            elif moment.name in COUNTER_OF_EVENT:
                self._counts[campaign, COUNTER_OF_EVENT[moment.name]] += 1
                if moment.name == "Email Link Clicked":
                    once.add((campaign, "unique_clicked"))
            self._add_money(campaign, moment)
        self._counts.update(once)

    def _add_money(self, campaign: str, moment: Moment) -> None:
        for money_list, name in MONEY_LISTS.items():
            if moment.name == name and moment.amount is not None and moment.currency is not None:
                self._money[campaign, money_list, moment.currency] += moment.amount.quantize(
                    _MONEY_STEP, ROUND_HALF_EVEN
                )

    def by_campaign(self) -> dict[str, Expected]:
        money: dict[str, dict[str, dict[str, Decimal]]] = {
            campaign: {money_list: {} for money_list in MONEY_LISTS} for campaign in self._campaigns
        }
        for (campaign, money_list, currency), amount in self._money.items():
            money[campaign][money_list][currency] = amount
        return {
            campaign: Expected(
                counters={counter: self._counts[campaign, counter] for counter in COUNTERS},
                money=money[campaign],
            )
            for campaign in sorted(self._campaigns)
        }


def _with_campaigns(moments: Iterable[Moment]) -> Iterator[tuple[Moment, str]]:
    """A person's moments in order, each with the campaign to which it belongs.

    A refund takes back from the campaign that got its order, whatever it names itself.
    """
    in_order = sorted(moments, key=lambda moment: moment.occurred_at_ms)
    campaigns: list[str] = []
    of_order: dict[str | None, str] = {}
    touched_at_ms, touched_by = 0, NO_CAMPAIGN
    for moment in in_order:
        if moment.campaign is not None:
            touched_at_ms, touched_by = moment.occurred_at_ms, moment.campaign
        is_touched = moment.occurred_at_ms - touched_at_ms < TOUCH_MS
        campaigns.append(touched_by if is_touched else NO_CAMPAIGN)
        if moment.name == "Order Completed":
            of_order.setdefault(moment.order_id, campaigns[-1])
    for moment, campaign in zip(in_order, campaigns, strict=True):
        is_refund = moment.name == "Order Refunded" and moment.order_id is not None
        yield moment, of_order.get(moment.order_id, campaign) if is_refund else campaign


def _differences(expected: Mapping[str, Expected], answer: Mapping[str, object]) -> Iterator[str]:
    campaigns = answer.get("campaigns")
    if not isinstance(campaigns, list):
        yield "campaigns: expected a list, found none"
        return
    seen: set[str] = set()
    for shown in campaigns:
        campaign = str(shown.get("campaign_id"))
        if campaign in seen:
            yield f"{campaign}: listed twice"
        elif campaign in expected:
            yield from _campaign_differences(campaign, expected[campaign], shown)
        elif campaign != NO_CAMPAIGN or any((shown.get("counters") or {}).values()):
            yield f"{campaign}: a campaign that the shop never ran"
        seen.add(campaign)
    for campaign in sorted(expected.keys() - seen):
        yield f"{campaign}: expected, but missing"


def _campaign_differences(
    campaign: str, expected: Expected, shown: Mapping[str, object]
) -> Iterator[str]:
    counters = shown.get("counters")
    found = counters if isinstance(counters, Mapping) else {}
    for counter, value in expected.counters.items():
        if found.get(counter, 0) != value:
            yield f"{campaign}: {counter}: expected {value}, found {found.get(counter)}"
    for money_list, amounts in expected.money.items():
        listed = shown.get(money_list)
        yield from _money_differences(
            f"{campaign}: {money_list}", amounts, listed if isinstance(listed, list) else []
        )


def _money_differences(
    where: str, expected: Mapping[str, Decimal], listed: list[Mapping[str, object]]
) -> Iterator[str]:
    found: dict[str, Decimal] = {}
    for entry in listed:
        currency = str(entry.get("currency"))
        if currency in found:
            yield f"{where}: {currency}: listed twice"
        try:
            found[currency] = Decimal(str(entry.get("amount")))
        except ArithmeticError:
            yield f"{where}: {currency}: found an amount that is not decimal"
            found[currency] = Decimal(0)
    for currency in sorted(expected.keys() | found.keys()):
        want, have = expected.get(currency, Decimal(0)), found.get(currency, Decimal(0))
        if want != have:
            yield f"{where}: {currency}: expected {want.normalize():f}, found {have.normalize():f}"
