"""Do live counters follow a late touch, from an order to its refund and its visit, and verify?

A worker and the sink run on real engines while events of a few people arrive in any order, some of
them sent twice. The reference sorts what was sent, and knows nothing of the product's rules.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from headwater.verify import verify
from runtime.clickhouse import connect
from runtime.settings import Attribution, ClickHouse
from schemas.events import Collected
from schemas.subjects import PID_BYTES
from sinks.accepted_to_clickhouse import run_accepted_to_clickhouse
from sinks.migrations.apply import apply_migrations
from tests.sink_log import running
from tests.stream_log import EMAIL, GAP_MS, ORDER, START_MS, Log, make_event, new_log
from tests.stream_worker import Worker

REFUND = "Order Refunded"
DAY_MS = 86_400_000
ROUNDS, EVENTS_A_ROUND = 12, 12
METRICS = {"": "page_views", EMAIL: "opened", ORDER: "orders", REFUND: "refunds"}


@pytest.fixture
def log(kafka: str, clickhouse_url: str, fresh_name: Any) -> Iterator[Log]:
    made = new_log(kafka, fresh_name("touch"))
    database = fresh_name("touch").replace("-", "_")
    made.settings = made.settings.model_copy(
        update={
            "clickhouse": ClickHouse(url=clickhouse_url, database=database),
            "attribution": Attribution(window_days=1),
        }
    )
    with connect(made.settings, database="default") as client:
        apply_migrations(client, database)
        yield made
        client.command(f"DROP DATABASE {database}")


def events(chance: random.Random) -> list[Collected]:
    """Pages, e-mails, orders and refunds of orders, over three days, in no order."""
    made: list[Collected] = []
    for number in range(ROUNDS * EVENTS_A_ROUND):
        name = chance.choice(("", "", "", EMAIL, ORDER, REFUND))
        pid = bytes([chance.randrange(6)]) * PID_BYTES
        campaign = chance.choice(("a", "b", "", "", ""))
        properties: dict[str, Any] = {"campaign_id": campaign} if campaign else {}
        if name in (ORDER, REFUND):
            known = [each for each in made if each.event == ORDER and each.pid == pid]
            order = f"{number}"
            if name == REFUND and known:
                order = str(_properties(chance.choice(known))["order_id"])
            properties |= {"order_id": order, "total": "2.50", "currency": "EUR"}
        made.append(
            make_event(
                event_id=chance.randbytes(16),
                pid=pid,
                event=name,
                occurred_at_ms=START_MS + chance.randrange(3 * DAY_MS),
                received_at_ms=START_MS + 4 * DAY_MS + number,
                clear={"properties": properties},
            )
        )
    chance.shuffle(made)  # refunds before their orders, too
    return made


def _properties(event: Collected) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(event.clear)["properties"]
    return found


def expected_of(sent: list[Collected]) -> Counter[tuple[str, str, str, int]]:
    """(campaign, metric, currency, minute) -> what the counters must say."""
    of_person: dict[bytes, list[Collected]] = defaultdict(list)
    for event in sorted(sent, key=lambda each: (each.occurred_at_ms, each.event_id)):
        of_person[event.pid].append(event)
    totals: Counter[tuple[str, str, str, int]] = Counter()
    for theirs in of_person.values():
        belongs: dict[bytes, str] = {}
        orders: dict[str, str] = {}
        touched_at_ms, touch = 0, "(none)"
        for event in theirs:
            if named := _properties(event).get("campaign_id"):
                touched_at_ms, touch = event.occurred_at_ms, named
            is_touched = event.occurred_at_ms - touched_at_ms < DAY_MS
            belongs[event.event_id] = touch if is_touched else "(none)"
            if event.event == ORDER:
                orders[_properties(event)["order_id"]] = belongs[event.event_id]
        ended_at_ms = -GAP_MS
        for event in theirs:
            campaign = belongs[event.event_id]
            if event.event == REFUND:
                campaign = orders.get(_properties(event)["order_id"], campaign)
            minute_s = event.occurred_at_ms // 60_000 * 60
            totals[campaign, METRICS[event.event], "", minute_s] += 1
            if event.event in (ORDER, REFUND):
                money = "revenue" if event.event == ORDER else "refunded"
                totals[campaign, money, "EUR", minute_s] += 2_500_000
            if event.event != EMAIL:
                if event.occurred_at_ms - ended_at_ms >= GAP_MS:
                    totals[campaign, "visits", "", minute_s] += 1
                ended_at_ms = event.occurred_at_ms
    return totals


def test_counters_are_those_of_the_last_touch_whatever_came_when(log: Log, tmp_path: Path) -> None:
    chance = random.Random(5)
    sent = events(chance)
    worker = Worker(tmp_path, "w1", log.settings.model_dump_json())
    with worker, running(run_accepted_to_clickhouse, log.settings):
        worker.start().wait_open()
        for begin in range(0, len(sent), EVENTS_A_ROUND):
            log.send(sent[begin : begin + EVENTS_A_ROUND])
            log.send(chance.sample(sent[: begin + EVENTS_A_ROUND], 2))
        log.wait_applied(worker)
        verdict = verify(log.settings, wait_s=60)
    assert verdict.is_verified, verdict.lines()
    sql = (
        "SELECT campaign_id, metric, currency, toUnixTimestamp(minute), sum(value) AS value "
        "FROM counters FINAL GROUP BY ALL HAVING value != 0"
    )
    with connect(log.settings) as client:
        found = {tuple(row[:4]): row[4] for row in client.query(sql).result_rows}
        (moved,) = client.query(
            "SELECT countIf(idx = 65535), countIf(retracted_next_off > 0) FROM facts FINAL"
        ).result_rows
    assert found == expected_of(sent)
    assert moved[0] == moved[1] > 30, "too little moved"
