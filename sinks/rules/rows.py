"""Which rows does one accepted event leave, and what does it add to which counter?

An event is one fact; each visit it changed is another, at that visit's own campaign and minute.
A fact says all that it adds, so that the counters can be recounted from the facts alone.
"""

from collections.abc import Iterator

import orjson

from schemas.counters import COUNT_BY_EVENT, MINUTE_MS, MOVED
from schemas.events import BY_TOUCH, EMAIL_EVENTS, NO_CAMPAIGN, Accepted

FACT_COLUMNS = (
    "campaign_id",
    "event_date",
    "generation",
    "kp",
    "off",
    "idx",
    "pid",
    "event_id",
    "occurred_at",
    "received_at",
    "metric",
    "value",
    "amount_micro",
    "currency",
    "is_visitor",
    "src_topic",
    "src_partition",
    "src_offset",
    "lane",
    "seq",
    "index",
    "source",
    "by_touch",
)
"""Columns of the table `facts`, in the order of a row of `fact_rows`."""

Fact = tuple[
    str, int, int, int, int, int, bytes, bytes, int, int, str, int, int, str, int, str, int, int,
    int, int, int, str, int,
]  # fmt: skip
"""Times in ms, the date in days, both since 1970 UTC."""

CounterKey = tuple[str, str, str, int, int]
"""(campaign_id, metric, currency or "", minute as UTC seconds since 1970, generation)."""

MONEY_OF = {"orders": "revenue", "refunds": "refunded"}
"""The sum of money that goes with a count."""

LAST_MS = (2**32 - 1) * 1000
"""Minutes are stored as 32-bit seconds since 1970."""

DAY_MS = 86_400_000
_MINUTE_S = MINUTE_MS // 1000


def storable_ms(at_ms: int) -> int:
    """`at_ms`, or the nearest time that the store can hold.

    An event of the year 1 counts in the first minute of 1970: seen, and never a reason to stop.
    """
    return 0 if at_ms < 0 else min(at_ms, LAST_MS)


def is_machine_open(clear: bytes) -> bool:
    """True if the event's clear properties say that software opened the mail, not a person."""
    if b'"machine"' not in clear:
        return False
    fields = orjson.loads(clear)
    properties = fields.get("properties") if isinstance(fields, dict) else None
    return isinstance(properties, dict) and properties.get("machine") is True


def metric_of(event: Accepted) -> str:
    """The count that `event` adds one to, or "" for none."""
    if event.type == "track":
        metric = COUNT_BY_EVENT.get(event.event, "")
        if metric == "orders" and event.is_repeat_order:
            return ""
        if metric == "opened" and is_machine_open(event.clear):
            return "machine_opened"
        return metric
    return "page_views" if event.type in ("page", "screen") else ""


def fact_rows(event: Accepted, kp: int, offset: int) -> list[Fact]:
    """The rows that `event`, read at `offset` of partition `kp`, leaves in `facts`."""
    metric = metric_of(event)
    has_money = metric in MONEY_OF and event.amount_micro is not None
    at_ms = storable_ms(event.occurred_at_ms)
    received_at_ms = storable_ms(event.received_at_ms)
    rows: list[Fact] = [
        (
            event.campaign_id,
            at_ms // DAY_MS,
            event.generation,
            kp,
            offset,
            0,
            event.pid,
            event.event_id,
            at_ms,
            received_at_ms,
            metric,
            1 if metric else 0,
            (event.amount_micro or 0) if has_money else 0,
            event.currency if has_money else "",
            0 if event.type == "track" and event.event in EMAIL_EVENTS else 1,
            event.source_topic,
            event.source_partition,
            event.source_offset,
            event.lane,
            event.seq,
            event.index,
            event.source,
            _is_by_touch(event),
        )
    ]
    for idx, change in enumerate(event.visit_changes, start=1):
        at_ms = storable_ms(change.started_at_ms)
        rows.append(
            (
                change.campaign_id,
                at_ms // DAY_MS,
                event.generation,
                kp,
                offset,
                idx,
                event.pid,
                event.event_id,
                at_ms,
                received_at_ms,
                "visits",
                change.delta,
                0,
                "",
                0,
                event.source_topic,
                event.source_partition,
                event.source_offset,
                event.lane,
                event.seq,
                event.index,
                event.source,
                0,
            )
        )
    return rows


def _is_by_touch(event: Accepted) -> int:
    if not event.attributed_by:  # of before: what named none was nobody's
        return int(event.campaign_id == NO_CAMPAIGN)
    return int(event.attributed_by == BY_TOUCH)


def is_event(fact: Fact) -> bool:
    """True of an event, wherever it belongs by now; False of what corrects visits."""
    return fact[5] in (0, MOVED)


def row_of(fact: Fact) -> tuple[int, int, int, bytes]:
    """What tells a row of a person from the others: what one record moves shares a place."""
    return fact[2], fact[4], fact[5], fact[7]


def moved_fact(fact: Fact, campaign_id: str, by_touch: int, generation: int, off: int) -> Fact:
    """The event of `fact` in another campaign, by the record at `off` of `generation`."""
    return (
        campaign_id, fact[1], generation, fact[3], off, MOVED, *fact[6:22], by_touch
    )  # fmt: skip


def additions(fact: Fact) -> Iterator[tuple[CounterKey, int]]:
    """What a fact adds to which counters: its count, and its money if it has any."""
    metric = fact[10]
    if not metric:
        return
    minute_s = fact[8] // MINUTE_MS * _MINUTE_S
    yield (fact[0], metric, "", minute_s, fact[2]), fact[11]
    if fact[13]:
        yield (fact[0], MONEY_OF[metric], fact[13], minute_s, fact[2]), fact[12]
