"""Which facts are a person's, and what do they add to which counts?"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from consumers.clickhouse_reader import ClickHouseReader
from consumers.rules.export_view import Item
from consumers.rules.rates import decimal_text
from consumers.rules.times import rfc3339

PAGE = 1000
"""Facts in memory at a time."""

_COUNTERS = """
SELECT campaign_id, metric, currency, sum(value), sum(toInt128(amount_micro)), count()
FROM facts FINAL WHERE pid = unhex({pid:String}) AND retracted_next_off = 0
GROUP BY campaign_id, metric, currency ORDER BY campaign_id, metric, currency
"""
_SENDERS = """
SELECT hex(event_id), any(source), min(toUnixTimestamp64Milli(received_at))
FROM facts
WHERE pid = unhex({pid:String}) AND idx = 0 AND has({ids:Array(String)}, lower(hex(event_id)))
GROUP BY event_id
"""
_FACTS = """
SELECT generation, kp, off, idx, campaign_id, metric, value, amount_micro, currency,
    toUnixTimestamp64Milli(occurred_at), toUnixTimestamp64Milli(received_at), hex(event_id),
    is_visitor, source, src_topic, src_partition, src_offset, retracted_next_off
FROM facts FINAL
WHERE pid = unhex({pid:String})
    AND (toInt64(generation), kp, off, idx, hex(event_id))
        > ({generation:Int64}, {kp:UInt32}, {off:UInt64}, {idx:UInt16}, {event_id:String})
ORDER BY generation, kp, off, idx, hex(event_id) LIMIT {page:UInt32}
"""
_PLACE = ("generation", "kp", "off", "idx", "event_id")


async def senders_of(
    reader: ClickHouseReader, pid: bytes, event_ids: Sequence[bytes]
) -> dict[str, Item]:
    """Of each of these events its source, and when it was received. Raises StoreUnavailable."""
    parameters = {"pid": pid.hex(), "ids": [each.hex() for each in event_ids]}
    rows = await reader.rows(_SENDERS, parameters)
    return {
        str(event_id).lower(): {"source": source, "received_at": rfc3339(int(received_at_ms))}
        for event_id, source, received_at_ms in rows
    }


async def counters_of(reader: ClickHouseReader, pid: bytes) -> AsyncIterator[Item]:
    """What the person's facts add to each count. Raises StoreUnavailable."""
    for row in await reader.rows(_COUNTERS, {"pid": pid.hex()}):
        campaign_id, metric, currency, value, micro, facts = row
        yield {
            "campaign_id": campaign_id,
            "metric": metric or "(none)",
            "value": int(value),
            "currency": currency,
            "amount": decimal_text(int(micro)) if currency else None,
            "facts": int(facts),
        }


async def facts_of(reader: ClickHouseReader, pid: bytes) -> AsyncIterator[Item]:
    """The person's facts in the order of the log. Raises StoreUnavailable."""
    after: Sequence[int | str] = (-1, 0, 0, 0, "")
    while True:
        place = dict(zip(_PLACE, after, strict=True))
        rows = await reader.rows(_FACTS, {"pid": pid.hex(), "page": PAGE, **place})
        for row in rows:
            yield _view(row)
        if len(rows) < PAGE:
            return
        after = [*(int(value) for value in rows[-1][:4]), str(rows[-1][11])]


def _view(row: Sequence[Any]) -> Item:
    (
        generation, kp, off, idx, campaign_id, metric, value, micro, currency, occurred_at_ms,
        received_at_ms, event_id, is_visitor, source, src_topic, src_partition, src_offset,
        retracted_next_off,
    ) = row  # fmt: skip
    return {
        "campaign_id": campaign_id,
        "metric": metric or "(none)",
        "counts": not retracted_next_off,
        "value": int(value),
        "amount": decimal_text(int(micro)) if currency else None,
        "currency": currency,
        "occurred_at": rfc3339(int(occurred_at_ms)),
        "received_at": rfc3339(int(received_at_ms)),
        "event_id": str(event_id).lower(),
        "makes_a_visitor": bool(is_visitor),
        "source": source,
        "source_record": f"{src_topic}[{src_partition}]@{src_offset}",
        "where": f"table facts, of generation {generation}, [{kp}]@{off}.{idx}",
    }
