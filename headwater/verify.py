"""Does every live counter equal what the facts say, and does every accepted event have its fact?

Each counter row says which prefix of its partition it covers, so it can be compared with the facts
of that prefix while events keep coming: nothing needs to stop. Tables cannot be read at one moment
together, so what differs is read again in an order in which only a real difference stays: progress,
then the counter, then the facts (the sink writes them the other way round).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from clickhouse_connect.driver.client import Client
from confluent_kafka import Consumer, TopicPartition

from runtime.clickhouse import answering, connect, literal
from runtime.clock import ClockMs, now_ms
from runtime.kafka_reader import log_ends
from runtime.settings import Settings
from schemas.codec import ACCEPTED, Malformed
from schemas.counters import MICRO, MINUTE_MS, MONEY
from schemas.errors import StoreUnavailable
from sinks.counter_store import SINK
from sinks.rules.rows import additions, fact_rows

LISTED = 100
"""Differences that are told one by one; beyond, only their number."""

KEYS_PER_QUERY = 1000

SCANNED_RECORDS = 1_000_000
"""Of a partition's log, to name the events that have no fact."""

LOOK_AGAIN_S = 0.1
KAFKA_SETTLES_S = 10.0
QUERY_SETTINGS = {"max_bytes_before_external_group_by": 500_000_000, "max_query_size": 4_000_000}

# Every addition of every fact: its count, and its money if it has any (sinks/rules/rows.py).
_ADDITIONS = """
SELECT campaign_id, addition.1 AS metric, addition.2 AS currency,
       toDateTime(toStartOfMinute(occurred_at), 'UTC') AS minute, generation, kp,
       toInt64(off) AS off, addition.3 AS added
FROM
(
    SELECT campaign_id, occurred_at, generation, kp, off,
           arrayConcat(
               [(toString(metric), '', toInt128(value))],
               if(currency = '', [], [(if(metric = 'orders', 'revenue', 'refunded'),
                                       toString(currency), toInt128(amount_micro))])) AS pairs
    FROM facts FINAL
    WHERE metric != ''
)
ARRAY JOIN pairs AS addition
"""
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
       sumIf(added, off <= covered), sumIf(added, off > covered AND off < until)
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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look at every counter, fact and position found."""

    checked_at_ms: int
    counters: int
    facts: int
    lag: int
    differences: tuple[Difference, ...]

    @property
    def is_verified(self) -> bool:
        """True if the counters equal the facts; `lag` events may still be on their way."""
        return not self.differences

    def lines(self) -> list[str]:
        """The verdict for people, one line a difference."""
        behind = f", {self.lag} offsets of the log not counted yet" if self.lag else ""
        scope = f"{self.counters} counters, {self.facts} facts{behind}"
        if self.is_verified:
            return [f"live = verified ({scope})"]
        more = f"live differs from the facts: {len(self.differences)} differences ({scope})"
        return [more, *(difference.line for difference in self.differences)]

    def to_json(self) -> dict[str, Any]:
        """The verdict for programs."""
        return {"verified": self.is_verified, **asdict(self)}


def verify(
    settings: Settings,
    *,
    wait_s: float = 0.0,
    clock: ClockMs = now_ms,
    pause: Callable[[float], None] = time.sleep,
) -> Verdict:
    """Compare all counters with all facts, and progress with the log.

    Waits up to `wait_s` for the sink to reach the end of events.accepted; if it does not, that is a
    difference too. With 0 a lag is only told. Raises StoreUnavailable or StoreRefused.
    """
    with connect(settings) as client:
        check = _Check(client, settings, pause)
        lag = check.wait_for_the_end(wait_s)
        differences = [
            *check.late(lag, wait_s),
            *check.counters(),
            *check.coordinates(),
            *check.records(),
        ]
        return Verdict(
            checked_at_ms=clock(),
            counters=check.count("counters"),
            facts=check.count("facts"),
            lag=lag,
            differences=tuple(differences),
        )


class _Check:
    def __init__(self, client: Client, settings: Settings, pause: Callable[[float], None]) -> None:
        self._client = client
        self._settings = settings
        self._topic = settings.topic_names.accepted
        self._pause = pause

    def count(self, table: str) -> int:
        return int(self._ask(f"SELECT count() FROM {table} FINAL")[0][0])  # noqa: S608

    # -- position

    def wait_for_the_end(self, wait_s: float) -> int:
        """Offsets before the end of the log of now that are not counted after `wait_s` at most."""
        ends = self._ends()
        until_s = time.monotonic() + wait_s
        while (lag := self._lag(ends)) and time.monotonic() < until_s:
            self._pause(LOOK_AGAIN_S)
        return lag

    def _ends(self) -> dict[int, tuple[int, int]]:
        kafka = self._settings.kafka
        until_s = time.monotonic() + KAFKA_SETTLES_S
        while True:
            try:
                return log_ends(kafka.bootstrap_servers, self._topic, kafka.partitions)
            except StoreUnavailable:
                # A topic that was just created has no leader for a moment.
                if time.monotonic() > until_s:
                    raise
                self._pause(LOOK_AGAIN_S)

    def _lag(self, ends: dict[int, tuple[int, int]]) -> int:
        counted = self._counted_until(self._settings.kafka.generation)
        return sum(
            max(0, end - max(first, counted.get(kp, 0))) for kp, (first, end) in ends.items()
        )

    def late(self, lag: int, wait_s: float) -> Iterator[Difference]:
        if lag and wait_s:
            yield Difference(
                "late",
                f"{self._topic}: {lag} offsets were not counted within {wait_s:.0f} s; is "
                f"{SINK} running? (see its log)",
            )

    def _counted_until(self, generation: int) -> dict[int, int]:
        """Of each partition, the offset below which events of `generation` are counted."""
        # A later generation counts what an earlier one left in the same log.
        rows = self._ask(
            "SELECT kp, max(next_off) FROM progress FINAL WHERE sink = {sink:String} "
            "AND topic = {topic:String} AND generation >= {generation:UInt32} GROUP BY kp",
            {"sink": SINK, "topic": self._topic, "generation": generation},
        )
        return {row[0]: row[1] for row in rows}

    # -- counters against facts

    def counters(self) -> Iterator[Difference]:
        told = 0
        suspects: list[Key] = [tuple(row) for row in self._ask(_DIFFERENCES)]
        for start in range(0, len(suspects), KEYS_PER_QUERY):
            for difference in self._compare(suspects[start : start + KEYS_PER_QUERY]):
                told += 1
                if told <= LISTED:
                    yield difference
        if told > LISTED:
            yield Difference("counter", f"... and {told - LISTED} counters more")

    def _compare(self, keys: list[Key]) -> Iterator[Difference]:
        """Read counters again, in the order that is safe under live writes."""
        until = {g: self._counted_until(g) for g in {key[4] for key in keys}}
        listed = ",".join(_tuple(key) for key in keys)
        live = {
            tuple(row[:6]): (row[6], row[7])
            for row in self._ask(
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
            tuple(row[:6]): (row[6], row[7])
            for row in self._ask(_RECOUNT.format(keys=bounds, campaigns=campaigns))
        }
        for key in keys:
            row, (recounted, beyond) = live.get(key), facts.get(key, (0, 0))
            value = row[0] if row else None
            # No row and nothing to count is how a counter begins, unless facts cancel out.
            if (value or 0) != recounted or beyond:
                yield self._difference(key, value, recounted + beyond)

    def _difference(self, key: Key, live: int | None, verified: int) -> Difference:
        campaign_id, metric, currency, minute_s, _, kp = key
        found = "live has no row" if live is None else f"live {_shown(metric, live)}"
        return Difference(
            "counter",
            f"campaign {campaign_id!r} {metric}{f' {currency}' if currency else ''} at "
            f"{_minute(minute_s)}: {found}, the facts say {_shown(metric, verified)} "
            f"({self._topic}[{kp}])",
            campaign_id,
            metric,
            currency or None,
            _minute(minute_s),
            live,
            verified,
        )

    # -- facts against the log

    def coordinates(self) -> Iterator[Difference]:
        rows = self._ask(
            "SELECT src_topic, src_partition, src_offset, any(campaign_id), any(metric), "
            "any(toUnixTimestamp(toStartOfMinute(occurred_at))), count() AS times FROM facts FINAL "
            "GROUP BY src_topic, generation, src_partition, src_offset, idx HAVING times > 1 "
            "ORDER BY src_topic, src_partition, src_offset LIMIT {limit:UInt32}",
            {"limit": LISTED},
        )
        for topic, partition, offset, campaign_id, metric, minute_s, times in rows:
            yield Difference(
                "coordinate",
                f"{topic}[{partition}]@{offset} was accepted {times} times: campaign "
                f"{campaign_id!r} {metric or 'no metric'} at {_minute(minute_s)}",
                campaign_id,
                metric or None,
                None,
                _minute(minute_s),
            )

    def records(self) -> Iterator[Difference]:
        """Each partition has as many facts as the sink counted records."""
        progress = self._ask(
            "SELECT kp, sum(records), max(next_off) FROM progress FINAL "
            "WHERE sink = {sink:String} AND topic = {topic:String} GROUP BY kp ORDER BY kp",
            {"sink": SINK, "topic": self._topic},
        )
        for kp, records, _ in progress:
            if self._count_events(kp) == records:
                continue
            # The facts may be ahead of the progress: count those that it claims.
            ((again, until),) = self._ask(
                "SELECT sum(records), max(next_off) FROM progress FINAL "
                "WHERE sink = {sink:String} AND topic = {topic:String} AND kp = {kp:UInt32}",
                {"sink": SINK, "topic": self._topic, "kp": kp},
            )
            events = self._count_events(kp, self._settings.kafka.generation, until)
            if events != again:
                yield Difference(
                    "record",
                    f"{self._topic}[{kp}]: {again} events were counted, {events} have a fact",
                    live=events,
                    verified=again,
                )
                yield from self._without_facts(kp, until)

    def _count_events(self, kp: int, generation: int = 0, until: int = 0) -> int:
        """Events of a partition that have a fact, those of `generation` below `until` only."""
        ((found,),) = self._ask(
            "SELECT count() FROM facts FINAL WHERE kp = {kp:UInt32} AND idx = 0 "
            "AND (generation != {generation:UInt32} OR off < {until:UInt64})",
            {"kp": kp, "generation": generation, "until": until},
        )
        return int(found)

    def _without_facts(self, kp: int, until: int) -> Iterator[Difference]:
        """Name the events that the log has and the facts have not, as far as the log reaches."""
        rows = self._ask(
            "SELECT generation, off FROM facts FINAL WHERE kp = {kp:UInt32} AND idx = 0", {"kp": kp}
        )
        known = {(row[0], row[1]) for row in rows}
        told = 0
        for offset, value in self._log(kp, until):
            try:
                event = ACCEPTED.decode(value)
            except Malformed:
                continue
            if (event.generation, offset) in known:
                continue
            fact = fact_rows(event, kp, offset)[0]
            metrics = ", ".join(key[1] for key, _ in additions(fact)) or "no metric"
            at = _minute(fact[8] // MINUTE_MS * 60)
            yield Difference(
                "record",
                f"{self._topic}[{kp}]@{offset} has no fact: campaign {event.campaign_id!r} "
                f"{metrics} at {at}",
                event.campaign_id,
                fact[10] or None,
                None,
                at,
            )
            told += 1
            if told >= LISTED:
                return

    def _log(self, kp: int, until: int) -> Iterator[tuple[int, bytes | None]]:
        kafka = self._settings.kafka
        first, _ = self._ends()[kp]
        if until - first > SCANNED_RECORDS:
            return
        reader = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "group.id": f"{kafka.topic_prefix}verify",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "receive.message.max.bytes": 1_000_000_000,
            }
        )
        try:
            reader.assign([TopicPartition(self._topic, kp, first)])
            heard_at_s = time.monotonic()
            while time.monotonic() - heard_at_s < KAFKA_SETTLES_S:
                messages = reader.consume(1000, LOOK_AGAIN_S)
                if messages:
                    heard_at_s = time.monotonic()
                for message in messages:
                    if message.error() is not None or message.offset() >= until:
                        return
                    yield message.offset(), message.value()
        finally:
            reader.close()

    def _ask(self, sql: str, parameters: dict[str, Any] | None = None) -> list[Any]:
        with answering("to verify"):
            found = self._client.query(sql, parameters=parameters, settings=QUERY_SETTINGS)
            return list(found.result_rows)


def _tuple(values: tuple[str | int, ...]) -> str:
    return f"({','.join(literal(v) if isinstance(v, str) else str(int(v)) for v in values)})"


def _minute(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _shown(metric: str, value: int) -> str:
    if metric not in MONEY:
        return str(value)
    sign = "-" if value < 0 else ""
    whole, micro = divmod(abs(value), MICRO)
    return f"{sign}{whole}.{micro:06d}".rstrip("0").rstrip(".")
