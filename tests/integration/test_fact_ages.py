"""Facts go when they are old, no sum changes, and what is left is verified whole."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from pydantic import ValidationError

from consumers.campaigns.counts import CampaignCounts, Span
from consumers.campaigns.series import read_series
from consumers.clickhouse_reader import ClickHouseReader
from consumers.erasures import fact_ages
from consumers.erasures.fact_ages import drop_old_facts
from consumers.erasures.limits_in_time import look_once
from consumers.rules.rates import CampaignView, view_campaigns
from headwater.inventory import take_inventory
from headwater.verify import Verdict, verify
from runtime.clickhouse import connect
from runtime.settings import Settings, Tables, load_settings
from runtime.settings_sections import FactSettings
from runtime.topics_admin import ensure_topics
from schemas.codec import ERASED
from schemas.errors import SettingInvalid
from schemas.requests import Erased
from schemas.topics import DAY_MS
from sinks.accepted_to_clickhouse import run_accepted_to_clickhouse
from sinks.migrations.apply import apply_migrations
from tests.sink_log import START_MS, Lane, running, settings_of

DAYS = 60
FIRST_DAY_MS = START_MS // DAY_MS * DAY_MS
AT_MS = FIRST_DAY_MS + 100 * DAY_MS + 5
"""Facts from before the fortieth day are too old then."""
PEOPLE = ("unique_opened", "unique_clicked", "buyers", "visitors")


@pytest.fixture
def settings(kafka: str, clickhouse_url: str, fresh_name: Any) -> Iterator[Settings]:
    made = settings_of(fresh_name("ages"), kafka=kafka, clickhouse=clickhouse_url)
    made = made.model_copy(update={"tables": Tables(facts=FactSettings(retention_days=DAYS))})
    ensure_topics(made)
    with connect(made, database="default") as client:
        apply_migrations(client, made.clickhouse.database)
        yield made
        client.command(f"DROP DATABASE {made.clickhouse.database}")


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with connect(settings) as found:
        yield found


def at(day: int, received_day: int | None = None) -> dict[str, Any]:
    """Times of an event, in days since the first."""
    occurred_ms = FIRST_DAY_MS + day * DAY_MS + 3_600_000
    received_ms = FIRST_DAY_MS + (day if received_day is None else received_day) * DAY_MS
    return {
        "occurred_at_ms": occurred_ms,
        "received_at_ms": max(received_ms, occurred_ms if received_day is None else 0),
        "visit_changes": [],
    }


@pytest.fixture
def lane(settings: Settings) -> Lane:
    """Events of old days, of one told late, and of days that are kept; counted."""
    made = Lane(settings)
    with running(run_accepted_to_clickhouse, settings):
        for day in (0, 3, 39, 40, 70):
            made.commit(60, **at(day))
        made.commit(60, **at(3, received_day=80))
        made.commit(20, **at(90), campaign_id="new")
        assert look(settings).since is None
    return made


def look(settings: Settings) -> Verdict:
    found = verify(settings, wait_s=30)
    assert found.is_verified, found.lines()
    return found


def erase(lane: Lane, pid: bytes) -> None:
    lane.seq += 1
    erased = Erased(
        b"e" * 16, pid, AT_MS, b"s" * 16, 1, lane.lane, lane.seq,
        lane.settings.topic_names.erasures, 0, lane.seq, 0,
    )  # fmt: skip
    lane.put_all(lane.settings.topic_names.accepted, [(pid, ERASED.encode(erased))])


def sums(client: Client) -> list[Any]:
    return list(
        client.query(
            "SELECT campaign_id, metric, currency, sum(value) FROM counters FINAL "
            "GROUP BY ALL ORDER BY ALL"
        ).result_rows
    )


def facts_by_day(client: Client) -> dict[int, int]:
    """Days since the first on which facts occurred -> events with facts."""
    rows = client.query(
        "SELECT dateDiff('day', toDate({first:String}), event_date), countIf(idx = 0) "
        "FROM facts FINAL GROUP BY 1",
        {"first": "2025-10-09"},
    ).result_rows
    return {int(day): int(events) for day, events in rows if events}


async def campaigns(settings: Settings, from_s: int = 0) -> dict[str, CampaignView]:
    reader = ClickHouseReader(settings.clickhouse)
    try:
        counts = CampaignCounts(reader, settings.topic_names)
        counted = await counts.count(Span(from_s), await counts.progress())
        return {each.campaign_id: each for each in view_campaigns(counted.by_campaign)}
    finally:
        await reader.close()


async def days_with_visitors(settings: Settings) -> list[int]:
    reader = ClickHouseReader(settings.clickhouse)
    try:
        series = await read_series(reader, "spring", "visitors", 86_400, Span())
        return [at_s for at_s, _ in series.get("", [])]
    finally:
        await reader.close()


def test_old_facts_go_sums_stay_and_what_is_left_is_verified(
    settings: Settings, lane: Lane, client: Client
) -> None:
    before = sums(client)
    assert facts_by_day(client) == {0: 60, 3: 120, 39: 60, 40: 60, 70: 60, 90: 20}

    assert drop_old_facts(settings, AT_MS) >= 180

    # What was told late is as old as its telling.
    assert facts_by_day(client) == {3: 60, 40: 60, 70: 60, 90: 20}
    assert sums(client) == before
    found = look(settings)
    assert found.since == "2025-11-18T00:00Z"
    assert f"minutes from {found.since} on" in found.lines()[0]
    assert drop_old_facts(settings, AT_MS) == 0
    # Not again before a tenth of the limit has passed, and then the next days alone.
    assert drop_old_facts(settings, AT_MS + 5 * DAY_MS) == 0
    assert drop_old_facts(settings, AT_MS + 6 * DAY_MS) >= 60
    assert facts_by_day(client) == {3: 60, 70: 60, 90: 20}
    assert look(settings).since == "2025-11-24T00:00Z"
    with running(run_accepted_to_clickhouse, settings):
        lane.commit(60, **at(99))
        look(settings)


def test_a_lost_fact_and_a_changed_counter_are_found_as_before(
    settings: Settings, lane: Lane, client: Client
) -> None:
    drop_old_facts(settings, AT_MS)
    client.command(
        "INSERT INTO counters SELECT * REPLACE (value + 1 AS value) FROM (SELECT * FROM counters "
        "FINAL WHERE metric = 'sent' AND minute > '2025-11-19' LIMIT 1)"
    )
    assert [each.kind for each in verify(settings).differences] == ["counter"]
    client.command(
        "ALTER TABLE facts DELETE WHERE metric = '' AND idx = 0 AND event_date > '2025-11-19'",
        settings={"mutations_sync": 2},
    )
    assert "record" in {each.kind for each in verify(settings).differences}


@pytest.mark.parametrize("order", ["facts, person", "person, facts", "crash between"])
def test_an_erasure_and_age_leave_what_can_be_verified_in_either_order(
    settings: Settings, lane: Lane, client: Client, order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = next(each.pid for each in lane.sent if each.occurred_at_ms < FIRST_DAY_MS + DAY_MS)

    def erase_now() -> None:
        with running(run_accepted_to_clickhouse, settings):
            erase(lane, pid)
            look(settings)

    if order == "facts, person":
        drop_old_facts(settings, AT_MS)
        erase_now()
    elif order == "person, facts":
        erase_now()
        drop_old_facts(settings, AT_MS)
    else:
        with monkeypatch.context() as patch:
            patch.setattr(fact_ages, "_delete", lambda *_: 0)
            drop_old_facts(settings, AT_MS)
        assert facts_by_day(client)[0] == 60
        erase_now()
        assert drop_old_facts(settings, AT_MS) > 0
    client.command(
        f"DELETE FROM facts WHERE pid = unhex('{pid.hex()}') AND campaign_id != ''",
        settings={"lightweight_deletes_sync": 2},
    )
    look(settings)
    drop_old_facts(settings, AT_MS + 50 * DAY_MS)
    look(settings)


def test_people_are_told_where_all_of_them_are_known(
    settings: Settings, lane: Lane, client: Client
) -> None:
    before = asyncio.run(campaigns(settings))
    drop_old_facts(settings, AT_MS)
    found = asyncio.run(campaigns(settings))
    assert {name: found["spring"].counters[name] for name in PEOPLE} == dict.fromkeys(PEOPLE)
    assert found["spring"].rates["open_rate"] is None
    assert found["spring"].rates["aov"] == before["spring"].rates["aov"]
    assert found["new"] == before["new"]
    assert {k: v for k, v in found["spring"].counters.items() if k not in PEOPLE} == {
        k: v for k, v in before["spring"].counters.items() if k not in PEOPLE
    }
    since_s = (FIRST_DAY_MS + 40 * DAY_MS) // 1000
    assert asyncio.run(campaigns(settings, since_s))["spring"].counters["visitors"]
    assert min(asyncio.run(days_with_visitors(settings))) == since_s


def test_the_limit_is_looked_after_and_shown(
    settings: Settings, lane: Lane, client: Client
) -> None:
    look_once(settings, AT_MS)
    assert facts_by_day(client) == {3: 60, 40: 60, 70: 60, 90: 20}
    kept = {place.name.rsplit(".", 1)[-1]: place.kept for place in take_inventory(settings)}
    assert kept["facts"] == "60 days, and 7 at most until they are taken out"
    endless = settings.model_copy(update={"tables": Tables()})
    assert drop_old_facts(endless, AT_MS + 900 * DAY_MS) == 0
    kept = {place.name.rsplit(".", 1)[-1]: place.kept for place in take_inventory(endless)}
    assert kept["facts"] == "until the person is erased"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tables.facts]\nretention_days = 59", "expected 0, or 60 at least"),
        (
            '[topics."events.accepted"]\nretention_days = 40\n[tables.facts]\nretention_days = 79',
            "expected 0, or 80 at least",
        ),
        (
            "[tables.facts]\nretention_days = 90\n[profiles]\nidle_days = 90",
            "idle_days: expected less than",
        ),
    ],
)
def test_a_limit_that_could_not_be_kept_is_refused(tmp_path: Any, text: str, said: str) -> None:
    file = tmp_path / "headwater.toml"
    file.write_text(text)
    with pytest.raises(SettingInvalid, match=said):
        load_settings(file, {})
    with pytest.raises(ValidationError):
        FactSettings(retention_days=-1)
