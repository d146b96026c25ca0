"""events.accepted -> facts, counters, progress, on a real broker and ClickHouse's engine."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition

from headwater.verify import verify
from runtime.clickhouse import connect
from runtime.log_ends import log_ends
from runtime.settings import Settings
from runtime.topics_admin import ensure_topics
from schemas.errors import StoreRefused, StoreUnavailable
from schemas.subjects import Consent
from sinks.accepted_to_clickhouse import AcceptedToClickHouse, run_accepted_to_clickhouse
from sinks.counter_store import SINK, CounterStore
from sinks.migrations.apply import apply_migrations, migrations
from tests.sink_log import PARTITIONS, START_MS, Lane, running, settings_of, truth
from tests.waiting import eventually


@pytest.fixture
def settings(kafka: str, clickhouse_url: str, fresh_name: Any) -> Iterator[Settings]:
    made = settings_of(fresh_name("sink"), kafka=kafka, clickhouse=clickhouse_url)
    ensure_topics(made)
    with connect(made, database="default") as client:
        names = [name for _, name, _ in migrations()]
        assert apply_migrations(client, made.clickhouse.database) == names
        assert apply_migrations(client, made.clickhouse.database) == []
        yield made
        client.command(f"DROP DATABASE {made.clickhouse.database}")


def totals(settings: Settings) -> dict[tuple[str, str, str], int]:
    with connect(settings) as client:
        rows = client.query(
            "SELECT campaign_id, metric, currency, sum(value) FROM counters FINAL "
            "GROUP BY campaign_id, metric, currency"
        ).result_rows
    return {(row[0], row[1], row[2]): row[3] for row in rows}


def ask(settings: Settings, sql: str) -> Any:
    with connect(settings) as client:
        return client.query(sql).result_rows


def is_at_the_end(settings: Settings) -> bool:
    kafka = settings.kafka.bootstrap_servers
    ends = log_ends(kafka, settings.topic_names.accepted, PARTITIONS)
    at = dict(ask(settings, "SELECT kp, max(next_off) FROM progress GROUP BY kp"))
    return all(at.get(p, 0) >= end for p, (_, end) in ends.items())


def test_every_event_counts_once_and_the_position_passes_control_records(
    settings: Settings, broker_kind: str
) -> None:
    lane = Lane(settings)
    # In trial mode whoever reads on from mid-log misses what follows an aborted transaction.
    aborted = 5 if broker_kind == "apache" else 0
    with running(run_accepted_to_clickhouse, settings):
        lane.commit(300, then_abort=aborted)
        eventually(lambda: is_at_the_end(settings))
        lane.commit(200)
        eventually(lambda: is_at_the_end(settings))
    assert totals(settings) == truth(lane.sent)
    assert ask(settings, "SELECT count() FROM facts FINAL WHERE idx = 0") == [(500,)]
    assert ask(settings, "SELECT sum(records) FROM progress FINAL") == [(500,)]


def test_people_are_counted_exactly_from_facts(settings: Settings) -> None:
    lane = Lane(settings)
    lane.commit(400)
    with running(run_accepted_to_clickhouse, settings):
        eventually(lambda: is_at_the_end(settings))
    buyers = {
        event.pid
        for event in lane.sent
        if event.event == "Order Completed" and not event.is_repeat_order
    }
    found = ask(settings, "SELECT uniqExactIf(pid, metric = 'orders') FROM facts")
    assert found == [(len(buyers),)]


class FailingStore(CounterStore):
    """A store whose `fails_at`-th insert fails as if the process died there."""

    def __init__(self, settings: Settings, fails_at: int, *, after: bool) -> None:
        super().__init__(settings, settings.topic_names.accepted)
        self._left = fails_at
        self._after = after

    def _insert(self, table: str, columns: Any, data: Any) -> None:
        if not data:
            return
        self._left -= 1
        if self._left == 0 and not self._after:
            raise KeyboardInterrupt
        super()._insert(table, columns, data)
        if self._left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fails_at", [1, 2, 3, 5])
def test_a_death_between_any_two_writes_changes_no_total(
    settings: Settings, fails_at: int, after: bool
) -> None:
    lanes = [Lane(settings, 0), Lane(settings, 1)]
    for lane in lanes:
        lane.commit(60)
    store = FailingStore(settings, fails_at, after=after)
    sink = AcceptedToClickHouse(settings, store, threading.Event())
    with pytest.raises(KeyboardInterrupt):
        while True:
            sink.step()
            for lane in lanes:
                lane.commit(20)
    sink.close()
    with running(run_accepted_to_clickhouse, settings):
        for lane in lanes:
            lane.commit(20)
        eventually(lambda: is_at_the_end(settings))
    sent = [event for lane in lanes for event in lane.sent]
    assert totals(settings) == truth(sent)
    assert ask(settings, "SELECT sum(records) FROM progress FINAL") == [(len(sent),)]
    assert ask(settings, "SELECT count() FROM facts FINAL WHERE idx = 0") == [(len(sent),)]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fails_at", [4, 5, 6, 7])
def test_a_death_in_the_middle_of_a_retraction_changes_no_total(
    settings: Settings, fails_at: int, after: bool
) -> None:
    lanes = [Lane(settings, 0), Lane(settings, 1)]
    for lane in lanes:
        lane.commit(60, visit_changes=[])
    sent = [event for lane in lanes for event in lane.sent]
    gone = sorted({event.pid for event in sent})[:5]
    decision = Consent("purpose/analytics", "withdrawn", 0, None, START_MS + 10**9)
    for pid in gone:
        lanes[0].retract(pid, [decision])
    # Facts, counters and progress of the events come first; then marks, counters, progress.
    store = FailingStore(settings, fails_at, after=after)
    sink = AcceptedToClickHouse(settings, store, threading.Event())
    with pytest.raises(KeyboardInterrupt):
        while True:
            sink.step()
    sink.close()
    with running(run_accepted_to_clickhouse, settings):
        eventually(lambda: is_at_the_end(settings))
        verdict = verify(settings, wait_s=30)
    assert verdict.is_verified, verdict.lines()
    left = [event for event in sent if event.pid not in gone]
    assert {key: value for key, value in totals(settings).items() if value} == truth(left)
    assert ask(settings, "SELECT sum(records) FROM progress FINAL") == [(len(sent),)]
    people = "SELECT uniqExact(pid) FROM facts FINAL WHERE retracted_next_off > 0"
    assert ask(settings, people) == [(len(gone),)]


class AwayStore(CounterStore):
    """A store that is away for the first tries, and once applies a write whose answer is lost."""

    def __init__(self, settings: Settings, away: int) -> None:
        super().__init__(settings, settings.topic_names.accepted)
        self.away = away

    def _insert(self, table: str, columns: Any, data: Any) -> None:
        if data and self.away:
            self.away -= 1
            if self.away % 2:
                super()._insert(table, columns, data)
            raise StoreUnavailable("away")
        super()._insert(table, columns, data)


def test_a_store_that_is_away_is_waited_for_with_the_same_rows(settings: Settings) -> None:
    lane = Lane(settings)
    lane.commit(100)
    sink = AcceptedToClickHouse(settings, AwayStore(settings, 5), threading.Event())

    def steps_to_the_end() -> bool:
        sink.step()
        return is_at_the_end(settings)

    eventually(steps_to_the_end)
    lane.commit(50)
    eventually(steps_to_the_end)
    sink.close()
    assert totals(settings) == truth(lane.sent)
    assert ask(settings, "SELECT sum(records) FROM progress FINAL") == [(150,)]


def test_it_begins_where_progress_says_whatever_kafka_says(settings: Settings) -> None:
    lane = Lane(settings)
    lane.commit(100)
    with running(run_accepted_to_clickhouse, settings):
        eventually(lambda: is_at_the_end(settings))
    topic = settings.topic_names.accepted
    group = f"{settings.kafka.topic_prefix}{SINK}"
    kafka = settings.kafka.bootstrap_servers
    other = Consumer({"bootstrap.servers": kafka, "group.id": group, "enable.auto.commit": False})

    def rewind() -> bool:
        other.commit(
            offsets=[TopicPartition(topic, p, 0) for p in range(PARTITIONS)], asynchronous=False
        )
        return True

    eventually(rewind)
    other.close()
    lane.commit(10)
    with running(run_accepted_to_clickhouse, settings):
        eventually(lambda: is_at_the_end(settings))
    assert totals(settings) == truth(lane.sent)
    assert ask(settings, "SELECT sum(records) FROM progress FINAL") == [(110,)]


def test_two_members_share_and_take_over(settings: Settings) -> None:
    lane = Lane(settings)
    with running(run_accepted_to_clickhouse, settings):
        lane.commit(50)
        eventually(lambda: is_at_the_end(settings))
        with running(run_accepted_to_clickhouse, settings):
            for _ in range(10):
                lane.commit(30)
            eventually(lambda: is_at_the_end(settings))
        lane.commit(50)
        eventually(lambda: is_at_the_end(settings))
    assert totals(settings) == truth(lane.sent)
    assert ask(settings, "SELECT sum(records) FROM progress FINAL") == [(400,)]


def test_a_log_that_went_back_stops_the_role_and_says_what_to_do(settings: Settings) -> None:
    Lane(settings).commit(20)
    with running(run_accepted_to_clickhouse, settings):
        eventually(lambda: is_at_the_end(settings))
    with connect(settings) as client:
        client.command(
            "INSERT INTO progress SELECT sink, generation, topic, kp, next_off + 1000, records, "
            "lanes, updated_at FROM progress FINAL"
        )
    with pytest.raises(StoreRefused, match=r"the log went back.*raise \[kafka\] generation"):
        run_accepted_to_clickhouse(settings, threading.Event())


def test_a_new_generation_counts_what_the_old_one_did_not(settings: Settings) -> None:
    lane = Lane(settings)
    lane.commit(40)
    with running(run_accepted_to_clickhouse, settings):
        eventually(lambda: is_at_the_end(settings))
    lane.commit(10)
    raised = settings.model_copy(
        update={"kafka": settings.kafka.model_copy(update={"generation": 2})}
    )
    newer = Lane(raised, 1)
    newer.commit(30)
    with running(run_accepted_to_clickhouse, raised):
        eventually(
            lambda: ask(settings, "SELECT count() FROM facts FINAL WHERE idx = 0") == [(80,)]
        )
    assert totals(settings) == truth([*lane.sent, *newer.sent])
    assert ask(settings, "SELECT sum(records) FROM progress FINAL") == [(80,)]


def test_a_repeated_coordinate_is_not_counted(settings: Settings) -> None:
    lane = Lane(settings)
    (first, *_) = lane.commit(10, pid=b"\1" * 16)
    with running(run_accepted_to_clickhouse, settings):
        eventually(lambda: is_at_the_end(settings))
        expected = totals(settings)
        lane.commit(1, pid=b"\1" * 16, seq=first.seq, index=first.index)
        eventually(lambda: is_at_the_end(settings))
    assert totals(settings) == expected
    assert ask(settings, "SELECT sum(records) FROM progress FINAL") == [(10,)]


@pytest.mark.parametrize("value", [b"\0\0\0\0\1", b"{}", None])
def test_what_is_no_accepted_event_stops_the_role_at_its_place(
    settings: Settings, value: bytes | None
) -> None:
    lane = Lane(settings)
    lane.put(settings.topic_names.accepted, b"k", value, partition=1)
    with pytest.raises(StoreRefused, match=r"events\.accepted\[1\]@0"):
        run_accepted_to_clickhouse(settings, threading.Event())


def test_a_table_that_does_not_fit_stops_the_role(settings: Settings) -> None:
    Lane(settings).commit(5)
    with connect(settings) as client:
        client.command("ALTER TABLE counters DROP COLUMN value")
    with pytest.raises(StoreRefused, match=r"refused.*counters"):
        run_accepted_to_clickhouse(settings, threading.Event())
