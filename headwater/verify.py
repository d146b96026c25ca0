"""Does every live counter equal what the facts say, and does every accepted event have its fact?

Four things are compared: counters with facts (recount.py), the events that the sink says it counted
with those that have a fact, who is one person with what the log says of it (relink.py), and the
sink's position with the end of the log. Nothing needs to stop for it.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from clickhouse_connect.driver.client import Client
from confluent_kafka import Consumer, KafkaError, TopicPartition

from headwater.recount import LISTED, Difference, differing_counters, minute_text
from headwater.relink import Span, differing_links, links_of_log
from runtime.clickhouse import answering, connect
from runtime.clock import ClockMs, real_ms
from runtime.log_ends import log_ends
from runtime.settings import Settings
from runtime.topics_admin import retention_ms_of
from schemas.codec import ACCEPTED, Malformed
from schemas.counters import ERASED_PIDS, ERASED_RECORDS, FACT_TIME, KEPT_FROM, MINUTE_MS
from schemas.errors import StoreUnavailable
from sinks.counter_store import SINK
from sinks.rules.rows import additions, fact_rows

SCANNED_RECORDS = 1_000_000
"""Of a partition's log, to name the events that have no fact; to recount links, the newest."""

LOOK_AGAIN_S = 0.1
KAFKA_SETTLES_S = 10.0
ANSWER_WITHIN_S = 3600.0
"""Of one question: each reads every fact, at half a million a second and core."""

QUERY_SETTINGS = {"max_bytes_before_external_group_by": 500_000_000, "max_query_size": 4_000_000}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look at every counter, fact and position found."""

    checked_at_ms: int
    counters: int
    facts: int
    lag: int
    differences: tuple[Difference, ...]
    since: str | None = None
    """First minute that was compared, where facts of earlier ones went with age."""
    links: int | None = None
    """How many links of the log were compared; None where none was looked for."""

    @property
    def is_verified(self) -> bool:
        """True if the counters equal the facts; `lag` events may still be on their way."""
        return not self.differences

    @property
    def difference_count(self) -> int:
        """How many things differ; of some kinds only the first hundred are looked for."""
        return sum(difference.times for difference in self.differences)

    def lines(self) -> list[str]:
        """The verdict for people, one line a difference."""
        behind = f", {self.lag} offsets of the log not counted yet" if self.lag else ""
        since = f", minutes from {self.since} on" if self.since else ""
        links = f", {self.links} links" if self.links else ""
        scope = f"{self.counters} counters, {self.facts} facts{links}{since}{behind}"
        if self.is_verified:
            return [f"live = verified ({scope})"]
        more = f"live differs from the facts: {self.difference_count} differences ({scope})"
        return [more, *(difference.line for difference in self.differences)]

    def to_json(self) -> dict[str, Any]:
        """The verdict for programs."""
        return {"verified": self.is_verified, **asdict(self)}


def verify(
    settings: Settings,
    *,
    wait_s: float = 0.0,
    clock: ClockMs = real_ms,
    pause: Callable[[float], None] = time.sleep,
    max_threads: int = 0,
    with_links: bool = True,
) -> Verdict:
    """Compare all counters with all facts, and progress with the log.

    Waits up to `wait_s` for the sink to reach the end of events.accepted; if it does not, that is a
    difference too. With 0 a lag is only told. ClickHouse uses `max_threads` cores for
    it, or as many as it likes. To recount links `with_links` reads the log itself. Raises
    StoreUnavailable or StoreRefused.
    """
    with connect(settings, answer_within_s=ANSWER_WITHIN_S) as client:
        check = _Check(client, settings, pause, max_threads)
        topic = settings.topic_names.accepted
        lag = check.wait_for_the_end(wait_s)
        links, differing = check.links(clock()) if with_links else (None, [])
        differences = [
            *check.late(lag, wait_s),
            *differing_counters(check.ask, check.counted_until, topic),
            *check.coordinates(),
            *check.records(),
            *differing,
        ]
        return Verdict(
            checked_at_ms=clock(),
            counters=check.count("counters", f"minute >= {KEPT_FROM}"),
            facts=check.count("facts"),
            lag=lag,
            differences=tuple(differences),
            since=check.since(),
            links=links,
        )


class _Check:
    def __init__(
        self,
        client: Client,
        settings: Settings,
        pause: Callable[[float], None],
        max_threads: int,
    ) -> None:
        self._query_settings = QUERY_SETTINGS | (
            {"max_threads": max_threads} if max_threads else {}
        )
        self._client = client
        self._settings = settings
        self._topic = settings.topic_names.accepted
        self._pause = pause

    def count(self, table: str, condition: str = "1") -> int:
        sql = f"SELECT count() FROM {table} FINAL WHERE {condition}"  # noqa: S608 - constants
        return int(self.ask(sql)[0][0])

    def since(self) -> str | None:
        ((seconds,),) = self.ask(f"SELECT toUnixTimestamp({KEPT_FROM})")
        return minute_text(seconds) if seconds else None

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
        counted = self.counted_until(self._settings.kafka.generation)
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

    def counted_until(self, generation: int) -> dict[int, int]:
        """Of each partition, the offset below which events of `generation` are counted."""
        # A later generation counts what an earlier one left in the same log.
        rows = self.ask(
            "SELECT kp, max(next_off) FROM progress FINAL WHERE sink = {sink:String} "
            "AND topic = {topic:String} AND generation >= {generation:UInt32} GROUP BY kp",
            {"sink": SINK, "topic": self._topic, "generation": generation},
        )
        return {row[0]: row[1] for row in rows}

    # -- facts against the log

    def coordinates(self) -> Iterator[Difference]:
        rows = self.ask(
            "SELECT src_topic, src_partition, src_offset, any(campaign_id), any(metric), "
            "any(toUnixTimestamp(toStartOfMinute(occurred_at))), count() AS times FROM facts FINAL "
            # Rows that stand for erased people's facts come from no record; all others but these
            # repeat that of the event, or of what corrected it.
            "WHERE src_topic != '' AND idx = 0 "
            "GROUP BY src_topic, generation, src_partition, src_offset, idx HAVING times > 1 "
            "ORDER BY src_topic, src_partition, src_offset LIMIT {limit:UInt32}",
            {"limit": LISTED},
        )
        for topic, partition, offset, campaign_id, metric, minute_s, times in rows:
            yield Difference(
                "coordinate",
                f"{topic}[{partition}]@{offset} was accepted {times} times: campaign "
                f"{campaign_id!r} {metric or 'no metric'} at {minute_text(minute_s)}",
                campaign_id,
                metric or None,
                None,
                minute_text(minute_s),
            )

    def records(self) -> Iterator[Difference]:
        """Each partition has as many facts as the sink counted records."""
        progress = self.ask(
            "SELECT kp, sum(records), max(next_off) FROM progress FINAL "
            "WHERE sink = {sink:String} AND topic = {topic:String} GROUP BY kp ORDER BY kp",
            {"sink": SINK, "topic": self._topic},
        )
        for kp, records, _ in progress:
            if self._count_events(kp) == records:
                continue
            # The facts may be ahead of the progress: count those that it claims.
            ((again, until),) = self.ask(
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
        """Events of a partition that have a fact, or something that stands for it, or had one
        until it was too old; those of `generation` below `until` only."""
        ((found,),) = self.ask(
            "SELECT countIf(idx = 0) + sumIf(value, metric = {records:String} AND "  # noqa: S608
            "campaign_id = '') + (SELECT sum(events) FROM aged_facts FINAL "
            "WHERE kp = {kp:UInt32}) FROM facts FINAL WHERE kp = {kp:UInt32} "
            "AND (generation != {generation:UInt32} OR off < {until:UInt64}) "
            # Stand-ins of before these told days have none.
            f"AND ({FACT_TIME} >= {KEPT_FROM} OR toDate({FACT_TIME}) = toDate(0)) "
            f"AND pid NOT IN {ERASED_PIDS}",
            {"kp": kp, "generation": generation, "until": until, "records": ERASED_RECORDS},
        )
        return int(found)

    def _without_facts(self, kp: int, until: int) -> Iterator[Difference]:
        """Name the events that the log has and the facts have not, as far as the log reaches."""
        rows = self.ask(
            "SELECT generation, off FROM facts FINAL WHERE kp = {kp:UInt32} AND idx = 0", {"kp": kp}
        )
        known = {(row[0], row[1]) for row in rows}
        erased = {bytes(row[0]) for row in self.ask(f"SELECT pid FROM {ERASED_PIDS}")}  # noqa: S608
        told = 0
        first, _ = self._ends()[kp]
        if until - first > SCANNED_RECORDS:
            return
        for offset, _, value in self._log(kp, first, until):
            try:
                event = ACCEPTED.decode(value)
            except Malformed:
                continue
            if (event.generation, offset) in known or event.pid in erased:
                continue
            fact = fact_rows(event, kp, offset)[0]
            metrics = ", ".join(key[1] for key, _ in additions(fact)) or "no metric"
            at = minute_text(fact[8] // MINUTE_MS * 60)
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

    # -- links against the log

    def links(self, now_ms: int) -> tuple[int, list[Difference]]:
        """How many links the log tells of that are counted, and what is otherwise in the table."""
        topics = {topic.name: topic for topic in self._settings.topic_names.all()}
        kept_from_ms = now_ms - (retention_ms_of(topics[self._topic], self._settings) or now_ms)
        generation = self._settings.kafka.generation
        counted = self.counted_until(generation)
        found: list[Difference] = []
        compared = 0
        for kp, (begins, _) in self._ends().items():
            until = counted.get(kp, 0)
            first = max(begins, until - SCANNED_RECORDS)
            if until <= first:
                continue
            told = links_of_log(self._log(kp, first, until), kp)
            # What grew too old for the log while it was read is compared no more.
            span = Span(kp, max(first, self._ends()[kp][0]), until)
            told = {link: at_ms for link, at_ms in told.items() if link.off >= span.first}
            compared += len(told)
            found += differing_links(self.ask, self._topic, span, told, generation, kept_from_ms)
        return compared, found

    def _log(self, kp: int, first: int, until: int) -> Iterator[tuple[int, int, bytes | None]]:
        """Offset, when it was written (UTC ms) and value of every record of [`first`, `until`)."""
        kafka = self._settings.kafka
        reader = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "group.id": f"{kafka.topic_prefix}verify",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 20,  # the end of a log that is not written to is told sooner
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
                    error = message.error()
                    if error is not None and error.code() != KafkaError._PARTITION_EOF:
                        raise StoreUnavailable(f"Kafka did not give {self._topic}: {error.name()}")
                    if error is not None or message.offset() >= until:
                        return
                    yield message.offset(), message.timestamp()[1], message.value()
            raise StoreUnavailable(f"Kafka gave nothing of {self._topic}[{kp}] any more")
        finally:
            reader.close()

    def ask(self, sql: str, parameters: dict[str, Any] | None = None) -> list[Any]:
        with answering("to verify"):
            found = self._client.query(sql, parameters=parameters, settings=self._query_settings)
            return list(found.result_rows)
