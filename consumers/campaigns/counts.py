"""What do the counters of every campaign say, all as of one moment?

Counts and money are sums of counter rows; people are distinct persons of facts, exact for any span.
The sink writes facts, then counters, then progress, so a reader in between could see more people
than opens. Facts are therefore read up to the offset that the counters have reached, by partition.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from consumers.clickhouse_reader import ClickHouseReader
from consumers.profiles.persons import JOINED_SO, PERSON, has_links, known_persons
from consumers.rules.rates import Sums, sum_up
from schemas.counters import COUNTED, MOVED, PEOPLE
from schemas.topics import Topics

END_OF_TIME_S = 2**32 - 1
"""Last second of ClickHouse's DateTime: 2106."""


@dataclass(frozen=True, slots=True)
class Span:
    """Event time from `from_s`, inclusive, to `to_s`, exclusive: UTC seconds of whole minutes."""

    from_s: int = 0
    to_s: int = END_OF_TIME_S


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the sink is: (generation, partition) -> next offset; newest write in UTC ms."""

    next_offsets: Mapping[tuple[int, int], int]
    updated_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Counted:
    """Sums by campaign, and when the sink last moved them."""

    by_campaign: Mapping[str, Sums]
    updated_at_ms: int | None


_PROGRESS = """
SELECT generation, kp, next_off, toUnixTimestamp64Milli(updated_at)
FROM progress FINAL WHERE topic = {topic:String}
"""

_COUNTERS = """
SELECT campaign_id, metric, currency, generation, kp,
    sum(toInt128(value)), max(last_off), grouping(campaign_id) AS is_position
FROM counters FINAL
WHERE minute >= toDateTime({from_s:UInt32}) AND minute < toDateTime({to_s:UInt32})
GROUP BY GROUPING SETS ((campaign_id, metric, currency), (generation, kp))
"""

_END = "transform(kp, {partitions:Array(UInt32)}, {ends:Array(UInt64)}, toUInt64(0))"
_IS_COUNTED = f"""(generation < {{generation:UInt32}}
    OR generation = {{generation:UInt32}} AND off < {_END})"""
_IN_SIGHT = f"""
    occurred_at >= toDateTime({{from_s:UInt32}}) AND occurred_at < toDateTime({{to_s:UInt32}})
    AND {_IS_COUNTED}
"""
_IS_RETRACTED = f"""(retracted_next_off > 0 AND (retracted_generation < {{generation:UInt32}}
    OR retracted_generation = {{generation:UInt32}} AND retracted_next_off <= {_END}))"""

# A fact that a crash repeated names the same person again, which changes no distinct count: so most
# people are counted without FINAL, in a third of the time. Those with a retracted fact need FINAL,
# which shows of each fact the row that is marked.
# As numbers, pids are told apart 2.6 times as fast as by the hash that uniqExact takes of strings.
_PEOPLE = f"""
WITH retracted AS (SELECT pid FROM facts WHERE retracted_next_off > 0)
SELECT campaign_id,
    uniqExactIf(person, metric = 'opened'),
    uniqExactIf(person, metric = 'clicked'),
    uniqExactIf(person, metric = 'orders'),
    uniqExactIf(reinterpretAsUInt128(pid) AS person, is_visitor = 1)
FROM facts
WHERE {_IN_SIGHT} AND {COUNTED} AND pid NOT IN retracted
GROUP BY campaign_id
UNION ALL
SELECT campaign_id, countIf(opened > 0), countIf(clicked > 0), countIf(ordered > 0),
    countIf(visited > 0)
FROM (
    SELECT campaign_id, pid,
        countIf(metric = 'opened') AS opened,
        countIf(metric = 'clicked') AS clicked,
        countIf(metric = 'orders') AS ordered,
        countIf(is_visitor = 1) AS visited
    FROM facts FINAL
    WHERE {_IN_SIGHT} AND {COUNTED} AND pid IN retracted AND NOT {_IS_RETRACTED}
    GROUP BY campaign_id, pid
)
GROUP BY campaign_id
"""  # noqa: S608 -- made of constants of this module
# With links, persons instead of pids. Facts that are taken back are left out one by one, with every
# row that they have: whose other pids have such facts would have to be found out first.
_PEOPLE_BY_LINKS = f"""
SELECT campaign_id,
    uniqExactIf(person, metric = 'opened'),
    uniqExactIf(person, metric = 'clicked'),
    uniqExactIf(person, metric = 'orders'),
    uniqExactIf({PERSON} AS person, is_visitor = 1)
FROM facts {known_persons(_IS_COUNTED)}
WHERE {_IN_SIGHT} AND {COUNTED} AND (event_id, generation, kp, off) NOT IN
    (SELECT event_id, generation, kp, off FROM facts WHERE {_IS_RETRACTED})
GROUP BY campaign_id {JOINED_SO}
"""  # noqa: S608 -- as above
# Offsets are counted, so that a repeated row adds nothing. Rows that stand for erased people's
# facts have none, and each says how many it stands for.
_ORDERS_IN = f"""
SELECT campaign_id, currency,
    toInt64(uniqExactIf((generation, kp, off), idx = 0))
        - toInt64(uniqExactIf((generation, kp, off), idx = 0 AND {_IS_RETRACTED}))
        + toInt64(uniqExactIf((generation, kp, off, event_id), idx = {MOVED}))
        - toInt64(uniqExactIf((generation, kp, off, event_id), idx = {MOVED} AND {_IS_RETRACTED}))
        + arraySum(each -> each.2,
            groupUniqArrayIf((event_id, if({_IS_RETRACTED}, 0, value)), idx NOT IN (0, {MOVED})))
FROM facts
WHERE metric = 'orders' AND currency != '' AND {_IN_SIGHT} AND {COUNTED}
    AND campaign_id IN {{campaigns:Array(String)}}
GROUP BY campaign_id, currency
"""  # noqa: S608 -- as above
# Whose facts of the span may not all be there any more, so that their people cannot be counted. A
# fact's day is never before the day on which it occurred.
_AGED = """
SELECT DISTINCT campaign_id FROM aged_facts WHERE day >= toDate(toDateTime({from_s:UInt32}, 'UTC'))
"""
_PEOPLE_COLUMNS = ("unique_opened", "unique_clicked", "buyers", "visitors")
assert set(_PEOPLE_COLUMNS) == set(PEOPLE)


class CampaignCounts:
    """Reads counters, facts and progress. Raises StoreUnavailable as ClickHouseReader does."""

    def __init__(self, reader: ClickHouseReader, topics: Topics) -> None:
        self._reader = reader
        self._topic = topics.accepted

    async def progress(self) -> Progress:
        """How far the sink is now: when this is the same, so is everything counted."""
        rows = await self._reader.rows(_PROGRESS, {"topic": self._topic})
        next_offsets: dict[tuple[int, int], int] = {}
        for generation, kp, next_offset, _ in rows:
            place = (int(generation), int(kp))
            next_offsets[place] = max(next_offsets.get(place, 0), int(next_offset))
        return Progress(next_offsets, max((int(row[3]) for row in rows), default=None))

    async def count(self, span: Span, progress: Progress) -> Counted:
        """Every campaign's sums in `span`, at or past `progress`."""
        parameters: dict[str, object] = {"from_s": span.from_s, "to_s": span.to_s}
        rows = await self._reader.rows(_COUNTERS, parameters)
        counted = [(row[0], row[1], row[2], int(row[5])) for row in rows if not row[7]]
        reached = dict(progress.next_offsets)
        for row in rows:
            if row[7]:
                place = (int(row[3]), int(row[4]))
                reached[place] = max(reached.get(place, 0), int(row[6]) + 1)
        parameters |= _bounds(reached)
        sums = sum_up(counted, await self._people(parameters))
        await self._note_orders_in(sums, parameters)
        # After the people: facts that went meanwhile are known to be gone.
        for (campaign_id,) in await self._reader.rows(_AGED, parameters):
            if campaign_id in sums:
                sums[campaign_id].has_people = False
        return Counted(sums, progress.updated_at_ms)

    async def _note_orders_in(
        self, sums: Mapping[str, Sums], parameters: Mapping[str, object]
    ) -> None:
        mixed = [name for name, of in sums.items() if len(of.money.get("revenue", ())) > 1]
        if mixed:
            rows = await self._reader.rows(_ORDERS_IN, {**parameters, "campaigns": mixed})
            for campaign_id, currency, orders in rows:
                sums[campaign_id].orders_in[currency] = int(orders)

    async def _people(self, parameters: Mapping[str, object]) -> list[tuple[str, str, int]]:
        query = _PEOPLE_BY_LINKS if await has_links(self._reader) else _PEOPLE
        rows: Sequence[Sequence[Any]] = await self._reader.rows(query, parameters)
        found: dict[tuple[str, str], int] = {}
        for campaign_id, *distinct in rows:
            for metric, people in zip(_PEOPLE_COLUMNS, distinct, strict=True):
                found[campaign_id, metric] = found.get((campaign_id, metric), 0) + int(people)
        return [(*key, people) for key, people in found.items()]


def _bounds(reached: Mapping[tuple[int, int], int]) -> dict[str, object]:
    """Parameters of _IN_SIGHT. Offsets mean nothing across generations: older ones are whole."""
    newest = max((generation for generation, _ in reached), default=0)
    ends = {kp: end for (generation, kp), end in reached.items() if generation == newest} or {0: 0}
    return {"generation": newest, "partitions": list(ends), "ends": list(ends.values())}
