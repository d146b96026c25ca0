"""How did one number of one campaign move over time?

Steps are multiples of a minute, counted from 1970 in UTC. Counts and money come from counter rows,
people from facts: distinct within each step, so steps of people do not add up to their span. Days
whose facts went with age have no points of people.
"""

from consumers.campaigns.counts import Span
from consumers.clickhouse_reader import ClickHouseReader
from consumers.profiles.persons import JOINED_SO, PERSON, has_links, known_persons
from schemas.counters import COUNTED, COUNTS, KEPT_FROM, MONEY, PEOPLE

METRICS = (*COUNTS, *MONEY, *PEOPLE)
MOST_POINTS = 100_000

Point = tuple[int, int]
"""(start of the step in UTC seconds, value; money in millionths)."""

_COUNTS = """
SELECT currency, intDiv(toUnixTimestamp(minute), {step_s:UInt32}) * {step_s:UInt32} AS at_s,
    sum(toInt128(value))
FROM counters FINAL
WHERE campaign_id = {campaign_id:String} AND metric = {metric:String}
    AND minute >= toDateTime({from_s:UInt32}) AND minute < toDateTime({to_s:UInt32})
GROUP BY currency, at_s ORDER BY currency, at_s LIMIT {most:UInt32}
"""

_PEOPLE = """
SELECT '', intDiv(toUnixTimestamp(occurred_at), {step_s:UInt32}) * {step_s:UInt32} AS at_s,
    uniqExact(%s)
FROM facts FINAL %s
WHERE campaign_id = {campaign_id:String}
    AND (metric = {metric:String} OR {metric:String} = 'visitor' AND is_visitor = 1)
    AND occurred_at >= toDateTime({from_s:UInt32})
    AND occurred_at < toDateTime({to_s:UInt32})
    AND retracted_next_off = 0 AND %s
GROUP BY at_s ORDER BY at_s LIMIT {most:UInt32} %s
"""
_KEPT = f"{COUNTED} AND occurred_at >= {KEPT_FROM}"
_PEOPLE_BY_PID = _PEOPLE % ("pid", "", _KEPT, "")
_PEOPLE_BY_LINKS = _PEOPLE % (PERSON, known_persons(), _KEPT, JOINED_SO)


async def read_series(
    reader: ClickHouseReader, campaign_id: str, metric: str, step_s: int, span: Span
) -> dict[str, list[Point]]:
    """Points by currency ("" for what is not money), oldest first; a step without data has none.

    Holds more than MOST_POINTS points when there are more than that. Raises StoreUnavailable.
    """
    people = PEOPLE.get(metric)
    if people is None:
        query = _COUNTS
    else:
        query = _PEOPLE_BY_LINKS if await has_links(reader) else _PEOPLE_BY_PID
    rows = await reader.rows(
        query,
        {
            "campaign_id": campaign_id,
            "metric": people or metric,
            "step_s": step_s,
            "from_s": span.from_s,
            "to_s": span.to_s,
            "most": MOST_POINTS + 1,
        },
    )
    series: dict[str, list[Point]] = {}
    for currency, at_s, value in rows:
        series.setdefault(currency, []).append((int(at_s), int(value)))
    return series
