"""Does every counter equal the sum of its facts, while both keep growing?

Each counter row says which prefix of its partition it covers, so it is compared with the facts of
that prefix. One statement reads both tables and may see the one a little before the other, so what
differs is read again in an order in which only a real difference stays: progress, then the counter,
then the facts (the sink writes them the other way round). Minutes whose facts went with age
(consumers/erasures/fact_ages.py) are left out: their counters stay as they were verified last.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runtime.clickhouse import literal
from schemas.counters import COUNTED, KEPT_FROM, MICRO, MONEY

LISTED = 100
"""Differences that are told one by one; beyond, only their number."""

KEYS_PER_QUERY = 1000

Ask = Callable[[str], list[Any]]
CountedUntil = Callable[[int], Mapping[int, int]]

# Every addition of every fact: its count, and its money if it has any (sinks/rules/rows.py). What a
# retraction took back is added once more, negative, at the place of the retraction.
_ADDITIONS = f"""
SELECT campaign_id, addition.1 AS metric, addition.2 AS currency,
       toDateTime(toStartOfMinute(occurred_at), 'UTC') AS minute, addition.4 AS generation, kp,
       addition.5 AS off, addition.3 AS added
FROM
(
    SELECT campaign_id, occurred_at, kp,
           arrayConcat(
               [(toString(metric), '', toInt128(value), generation, toInt64(off))],
               if(currency = '', [], [(if(metric = 'orders', 'revenue', 'refunded'),
                                       toString(currency), toInt128(amount_micro),
                                       generation, toInt64(off))])) AS counted,
           if(retracted_next_off = 0, counted,
              arrayConcat(counted, arrayMap(
                  each -> (each.1, each.2, -each.3, retracted_generation,
                           toInt64(retracted_next_off) - 1),
                  counted))) AS pairs
    FROM facts FINAL
    WHERE metric != '' AND {COUNTED} AND occurred_at >= {KEPT_FROM}
)
ARRAY JOIN pairs AS addition
"""  # noqa: S608 - constants
_KEY = "campaign_id, metric, currency, minute, generation, kp"
_DIFFERENCES = f"""
SELECT campaign_id, metric, currency, toUnixTimestamp(minute), generation, kp
FROM
(
    SELECT {_KEY}, any(live) AS live_value,
           sumIf(added, off <= covered) AS recounted, countIf(off > covered) AS beyond
    FROM ({_ADDITIONS}) AS additions
    FULL OUTER JOIN
    (
        SELECT campaign_id, toString(metric) AS metric, toString(currency) AS currency, minute,
               generation, kp, value AS live, toInt64(last_off) AS covered
        FROM counters FINAL
        WHERE minute >= {KEPT_FROM}
    ) AS counted
    USING ({_KEY})
    GROUP BY {_KEY}
    HAVING live_value != recounted OR beyond > 0
)
ORDER BY minute, campaign_id, metric, currency, generation, kp
"""  # noqa: S608 - constants of this module

_BOUND_COLUMNS = (
    "c1 String, c2 String, c3 String, c4 UInt32, c5 UInt32, c6 UInt32, c7 Int64, c8 Int64"
)
_RECOUNT = f"""
SELECT campaign_id, metric, currency, toUnixTimestamp(minute), generation, kp,
       sumIf(added, off <= covered), sumIf(added, off > covered AND off < until),
       countIf(off > covered AND off < until)
FROM ({_ADDITIONS}) AS additions
INNER JOIN
(
    SELECT c1 AS campaign_id, c2 AS metric, c3 AS currency, toDateTime(c4, 'UTC') AS minute,
           c5 AS generation, c6 AS kp, c7 AS covered, c8 AS until
    FROM values({literal(_BOUND_COLUMNS)}, {{keys}})
) AS wanted
USING ({_KEY})
WHERE campaign_id IN ({{campaigns}})
GROUP BY {_KEY}
"""  # noqa: S608 - constants of this module

Key = tuple[str, str, str, int, int, int]
"""(campaign_id, metric, currency, minute in seconds since 1970, generation, kp)."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it must be. `line` says it in words."""

    kind: str
    line: str
    campaign_id: str | None = None
    metric: str | None = None
    currency: str | None = None
    minute: str | None = None
    live: int | None = None
    verified: int | None = None
    times: int = 1
    """More than one for a line that stands for those which are not told one by one."""


def differing_counters(ask: Ask, counted_until: CountedUntil, topic: str) -> Iterator[Difference]:
    """Each counter that is not what its facts add up to, the first `LISTED` of them by name.

    `counted_until` gives, for a generation, each partition's offset below which all is counted.
    """
    told = 0
    suspects: list[Key] = [tuple(row) for row in ask(_DIFFERENCES)]
    for start in range(0, len(suspects), KEYS_PER_QUERY):
        for difference in _compare(
            ask, counted_until, topic, suspects[start : start + KEYS_PER_QUERY]
        ):
            told += 1
            if told <= LISTED:
                yield difference
    if told > LISTED:
        more = told - LISTED
        yield Difference("counter", f"... and {more} counters more", times=more)


def _compare(
    ask: Ask, counted_until: CountedUntil, topic: str, keys: list[Key]
) -> Iterator[Difference]:
    """Read counters again, in the order that is safe under live writes."""
    until = {g: counted_until(g) for g in {key[4] for key in keys}}
    listed = ",".join(_tuple(key) for key in keys)
    live = {
        tuple(row[:6]): (row[6], row[7])
        for row in ask(
            "SELECT campaign_id, metric, currency, toUnixTimestamp(minute) AS minute_s, "  # noqa: S608
            "generation, kp, value, last_off FROM counters FINAL "
            "WHERE (campaign_id, metric, currency, toUnixTimestamp(minute), generation, kp) "
            f"IN ({listed})"
        )
    }
    bounds = ",".join(
        _tuple((*key, live.get(key, (0, -1))[1], until[key[4]].get(key[5], 0))) for key in keys
    )
    campaigns = ",".join({literal(key[0]) for key in keys})
    facts = {
        tuple(row[:6]): (row[6], row[7], row[8])
        for row in ask(_RECOUNT.format(keys=bounds, campaigns=campaigns))
    }
    for key in keys:
        row, (recounted, beyond, facts_beyond) = live.get(key), facts.get(key, (0, 0, 0))
        value = row[0] if row else None
        # Facts beyond a row are a difference also when they cancel out: their row is lost.
        if (value or 0) != recounted or facts_beyond:
            yield _difference(topic, key, value, recounted + beyond)


def _difference(topic: str, key: Key, live: int | None, verified: int) -> Difference:
    campaign_id, metric, currency, minute_s, _, kp = key
    found = "live has no row" if live is None else f"live {_shown(metric, live)}"
    return Difference(
        "counter",
        f"campaign {campaign_id!r} {metric}{f' {currency}' if currency else ''} at "
        f"{minute_text(minute_s)}: {found}, the facts say {_shown(metric, verified)} "
        f"({topic}[{kp}])",
        campaign_id,
        metric,
        currency or None,
        minute_text(minute_s),
        live,
        verified,
    )


def _tuple(values: tuple[str | int, ...]) -> str:
    return f"({','.join(literal(v) if isinstance(v, str) else str(int(v)) for v in values)})"


def minute_text(seconds: int) -> str:
    """A minute as people and logs write it: 2026-11-22T01:40Z."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _shown(metric: str, value: int) -> str:
    if metric not in MONEY:
        return str(value)
    sign = "-" if value < 0 else ""
    whole, micro = divmod(abs(value), MICRO)
    return f"{sign}{whole}.{micro:06d}".rstrip("0").rstrip(".")
