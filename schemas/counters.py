"""What does a campaign count, and which call adds to what?

The marketers' definitions, in one place for the sink that counts, the API that answers and the
verification that recounts. Times are event time in UTC minutes; people counts are exact (distinct
persons of facts, no sketches; which pids are one person is in the table `links`).
"""

from collections.abc import Mapping
from types import MappingProxyType

COUNT_BY_EVENT: Mapping[str, str] = MappingProxyType(
    {
        "Email Sent": "sent",
        "Email Delivered": "delivered",
        "Email Bounced": "bounced",
        "Email Marked as Spam": "spam_reported",
        "Email Suppressed": "suppressed",
        "Email Opened": "opened",
        "Email Link Clicked": "clicked",
        "Unsubscribed": "unsubscribed",
        "Product Viewed": "product_views",
        "Product Added": "cart_adds",
        "Checkout Started": "checkouts",
        "Order Completed": "orders",
        "Order Refunded": "refunds",
    }
)
"""Track calls by event name. A machine's open counts as `machine_opened` instead of `opened`."""

COUNTS = (
    "sent",
    "delivered",
    "bounced",
    "spam_reported",
    "suppressed",
    "opened",
    "machine_opened",
    "clicked",
    "unsubscribed",
    "page_views",
    "product_views",
    "cart_adds",
    "checkouts",
    "orders",
    "refunds",
    "visits",
)
"""Sums of facts, kept as counter rows."""

MONEY = ("revenue", "refunded")
"""Sums of money by currency in millionths, kept as counter rows."""

PEOPLE: Mapping[str, str] = MappingProxyType(
    {
        "unique_opened": "opened",
        "unique_clicked": "clicked",
        "buyers": "orders",
        "visitors": "visitor",
    }
)
"""Distinct people behind a metric of facts: answered from facts, exact for any span of time.
`visitor` stands for the facts of any event but the e-mail ones."""

RATES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "open_rate": ("unique_opened", "delivered"),
        "click_rate": ("unique_clicked", "delivered"),
        "click_to_open": ("unique_clicked", "unique_opened"),
        "bounce_rate": ("bounced", "sent"),
        "unsubscribe_rate": ("unsubscribed", "delivered"),
        "conversion_rate": ("buyers", "delivered"),
    }
)
"""Dividend and divisor; null when the divisor is zero. `aov` (revenue / orders) is by currency."""

NO_CAMPAIGN_AT_ALL = ""
"""Campaign of the rows of `facts` that are no facts (an event that names none has '(none)')."""

ERASED_MARK = "erased"
"""Metric of the row by which a pid is marked: anonymous sums stand for its facts from then on."""

ERASED_RECORDS = "records"
"""Metric of the row that says how many events' facts such sums stand for."""

MOVED = 65_535
"""`idx` of an event in a campaign to which a later record gave it, at that record's offset: the
event's own row (0), and those of earlier moves, are marked from there on."""

ERASED_PIDS = f"(SELECT pid FROM facts WHERE campaign_id = '' AND metric = '{ERASED_MARK}')"  # noqa: S608
COUNTED = f"(campaign_id != '' AND pid NOT IN {ERASED_PIDS})"
"""Condition on `facts` of every reader: what counts. Sums that stand for facts do."""

FACT_TIME = "greatest(received_at, occurred_at)"
"""When a fact begins to grow old."""

KEPT_FROM = (
    "(SELECT if(count() = 0, toDateTime(0, 'UTC'), toDateTime(max(day) + 1, 'UTC')) "
    "FROM aged_facts)"
)
"""Beginning of the first day whose facts are kept: earlier ones went with age."""

MICRO = 1_000_000
MINUTE_MS = 60_000
