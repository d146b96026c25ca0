"""`verify` agrees with an honest store, also while events come, and names each dishonesty."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from threading import Event, Thread
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from headwater.verify import Verdict, verify
from runtime.clickhouse import connect
from runtime.settings import Settings
from runtime.topics_admin import ensure_topics
from schemas.codec import LINKED
from schemas.counters import ERASED_MARK
from schemas.moves import Linked
from sinks.accepted_to_clickhouse import run_accepted_to_clickhouse
from sinks.migrations.apply import apply_migrations
from sinks.rules.rows import FACT_COLUMNS
from tests.sink_log import Lane, running, settings_of


@pytest.fixture
def settings(kafka: str, clickhouse_url: str, fresh_name: Any) -> Iterator[Settings]:
    made = settings_of(fresh_name("verify"), kafka=kafka, clickhouse=clickhouse_url)
    ensure_topics(made)
    with connect(made, database="default") as client:
        apply_migrations(client, made.clickhouse.database)
        yield made
        client.command(f"DROP DATABASE {made.clickhouse.database}")


@pytest.fixture
def counted(settings: Settings) -> Settings:
    lane = Lane(settings)
    with running(run_accepted_to_clickhouse, settings):
        lane.commit(300)
        verdict = verify(settings, wait_s=30)
    assert verdict.lines() == [
        f"live = verified ({verdict.counters} counters, {verdict.facts} facts)"
    ]
    assert verdict.counters > 50
    assert verdict.facts >= 300
    return settings


def first(client: Client, sql: str) -> tuple[Any, ...]:
    return tuple(client.query(sql).result_rows[0])


AN_ORDER = (
    "SELECT campaign_id, formatDateTime(occurred_at, '%Y-%m-%dT%H:%iZ'), kp, off "
    "FROM facts FINAL WHERE metric = 'orders' AND campaign_id = 'spring' LIMIT 1"
)


def change_a_fact(client: Client) -> tuple[str, str, str]:
    campaign, minute, kp, off = first(client, AN_ORDER)
    client.command(
        "INSERT INTO facts SELECT * REPLACE (amount_micro + 10000 AS amount_micro) FROM "
        f"(SELECT * FROM facts FINAL WHERE kp = {kp} AND off = {off} AND idx = 0)"
    )
    return campaign, "revenue", minute


def move_a_fact(client: Client) -> tuple[str, str, str]:
    campaign, minute, kp, off = first(client, AN_ORDER)
    client.command(
        "INSERT INTO facts SELECT * REPLACE ('sent' AS metric) FROM "
        f"(SELECT * FROM facts FINAL WHERE kp = {kp} AND off = {off} AND idx = 0)"
    )
    return campaign, "orders", minute


def delete_a_fact(client: Client) -> tuple[str, str, str]:
    campaign, minute, kp, off = first(client, AN_ORDER)
    client.command(f"DELETE FROM facts WHERE kp = {kp} AND off = {off} AND idx = 0")
    return campaign, "orders", minute


def drop_a_counter(client: Client) -> tuple[str, str, str]:
    campaign, metric, minute, seconds, kp = first(
        client,
        "SELECT campaign_id, metric, formatDateTime(minute, '%Y-%m-%dT%H:%iZ'), "
        "toUnixTimestamp(minute), kp FROM counters FINAL "
        "WHERE metric = 'page_views' AND campaign_id = 'spring' LIMIT 1",
    )
    client.command(
        f"DELETE FROM counters WHERE campaign_id = '{campaign}' AND metric = '{metric}' "
        f"AND minute = toDateTime({seconds}) AND kp = {kp}"
    )
    return campaign, metric, minute


def withhold_an_event(client: Client) -> tuple[str, str, str]:
    """As if it had never been accepted: its facts gone, its counters lower."""
    campaign, minute, kp, off = first(client, AN_ORDER)
    rows = client.query(
        "SELECT campaign_id, metric, value, currency, amount_micro, "
        "toUnixTimestamp(toStartOfMinute(occurred_at)) FROM facts FINAL "
        f"WHERE kp = {kp} AND off = {off}"
    ).result_rows
    for campaign_id, metric, value, currency, amount, seconds in rows:
        for name, money, less in ((metric, "", value), ("revenue", currency, amount)):
            client.command(
                f"INSERT INTO counters SELECT * REPLACE (value - {less} AS value) FROM "
                f"(SELECT * FROM counters FINAL WHERE campaign_id = '{campaign_id}' AND "
                f"metric = '{name}' AND currency = '{money}' AND kp = {kp} "
                f"AND minute = toDateTime({seconds}))"
            )
    client.command(f"DELETE FROM facts WHERE kp = {kp} AND off = {off}")
    return campaign, "orders", minute


def double_an_event(client: Client) -> tuple[str, str, str]:
    """One collected record accepted twice, and counted so."""
    campaign, minute, kp, off = first(client, AN_ORDER)
    client.command(
        "INSERT INTO facts SELECT * REPLACE (off + 1000000 AS off) FROM "
        f"(SELECT * FROM facts FINAL WHERE kp = {kp} AND off = {off} AND idx = 0)"
    )
    return campaign, "orders", minute


def tell(verdict: Verdict, place: tuple[str, str, str]) -> list[str]:
    return [line for line in verdict.lines() if all(part in line for part in place)]


@pytest.mark.parametrize(
    "falsify",
    [
        change_a_fact,
        move_a_fact,
        delete_a_fact,
        drop_a_counter,
        withhold_an_event,
        double_an_event,
    ],
)
def test_each_falsification_fails_the_verdict_and_is_named(
    counted: Settings, falsify: Callable[[Client], tuple[str, str, str]]
) -> None:
    with connect(counted) as client:
        place = falsify(client)
    verdict = verify(counted)
    assert not verdict.is_verified
    assert tell(verdict, place), verdict.lines()
    assert verdict.to_json()["verified"] is False


def test_it_agrees_at_every_look_while_events_are_counted(settings: Settings) -> None:
    lane, stop = Lane(settings), Event()

    def send() -> None:
        while not stop.is_set():
            lane.commit(40)

    sender = Thread(target=send)
    with running(run_accepted_to_clickhouse, settings):
        sender.start()
        try:
            verdicts = [verify(settings) for _ in range(8)]
        finally:
            stop.set()
            sender.join()
        verdicts.append(verify(settings, wait_s=120))
    assert [verdict.differences for verdict in verdicts] == [()] * 9
    assert verdicts[-1].lag == 0


def test_a_sink_that_does_not_arrive_is_a_difference_when_waited_for(settings: Settings) -> None:
    Lane(settings).commit(10)
    assert verify(settings).lag > 0
    assert verify(settings).is_verified
    late = verify(settings, wait_s=0.01)
    assert [difference.kind for difference in late.differences] == ["late"]


def tell_link(lane: Lane, root: bytes, member: bytes, *, is_linked: bool = True) -> None:
    lane.seq += 1
    names, generation = lane.settings.topic_names, lane.settings.kafka.generation
    linked = Linked(
        member,
        root,
        is_linked,
        generation,
        lane.lane,
        lane.seq,
        names.moves,
        0,
        lane.seq,
        0,
        b"s" * 16,
    )
    lane.put_all(names.accepted, [(root, LINKED.encode(linked))])


def test_links_that_the_log_tells_otherwise_are_differences_and_name_nobody(
    settings: Settings,
) -> None:
    lane = Lane(settings)
    roots = [bytes([200 + number]) * 16 for number in range(4)]
    with running(run_accepted_to_clickhouse, settings):
        for root in roots:
            tell_link(lane, root, b"m" * 16)
        lane.commit(5)
        tell_link(lane, roots[0], b"m" * 16, is_linked=False)
        verdict = verify(settings, wait_s=30)
    assert verdict.is_verified and verdict.links == 5, verdict.lines()
    assert ", 5 links" in verdict.lines()[0]
    with connect(settings) as client:
        link = f"FROM links WHERE root = unhex('{roots[1].hex()}')"
        client.command("INSERT INTO links SELECT * REPLACE (off + 1000000 AS off) " + link)
        assert verify(settings).is_verified  # the sink may be ahead of its progress
        client.command("DELETE FROM links WHERE off >= 1000000")
        # What joins anonymous rows is of no record.
        client.command(
            "INSERT INTO links SELECT * REPLACE (0 AS off, unhex(repeat('0', 32)) AS salt) " + link
        )
        assert verify(settings).is_verified

        client.command("INSERT INTO links SELECT * REPLACE (1 - is_linked AS is_linked) " + link)
        (difference,) = verify(settings).differences
        # The changed row took the place of the right one.
        assert (difference.kind, difference.times) == ("link", 1)
        assert "1 have no row as they are; 1 rows are of no record (@" in difference.line
        client.command(f"DELETE {link}")
        lost = verify(settings)
        (difference,) = lost.differences
        assert (difference.live or 0) + 1 == difference.verified
        assert "1 have no row as they are; 0 rows are of no record (@" in difference.line
        said = " ".join(lost.lines()) + str(lost.to_json())
        assert not any(pid.hex() in said for pid in (*roots, b"m" * 16))

        # The links of a person who is erased under every pid go, and nothing is missing.
        mark = dict.fromkeys(FACT_COLUMNS, 0) | {
            "campaign_id": "", "metric": ERASED_MARK, "pid": roots[1], "event_id": bytes(16),
            "event_date": date(2026, 1, 1), "occurred_at": datetime(2026, 1, 1, tzinfo=UTC),
            "received_at": datetime(2026, 1, 1, tzinfo=UTC), "currency": "", "src_topic": "",
            "source": "",
        }  # fmt: skip
        client.insert("facts", [list(mark.values())], column_names=list(mark))
    assert verify(settings).is_verified
