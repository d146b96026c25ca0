"""What is configured about how long things are kept is in force, also where they stood before."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka.admin import AdminClient

from headwater.roles import prepare_stores
from runtime.clickhouse import connect
from runtime.settings import Settings, Tables, TableSettings, TopicSettings, load_settings
from runtime.topics_admin import align_topics, topic_configs
from schemas.errors import SettingInvalid
from schemas.topics import DAY_MS
from sinks.migrations.limits import limits_in_force
from tests.sink_log import settings_of

CHANGES = {
    "topics": {"events.accepted": TopicSettings(retention_days=3)},
    "tables": Tables(verdicts=TableSettings(retention_days=10)),
}


@pytest.fixture
def settings(kafka: str, clickhouse_url: str, fresh_name: Any) -> Iterator[Settings]:
    made = settings_of(fresh_name("retention"), kafka=kafka, clickhouse=clickhouse_url)
    yield made
    with connect(made, database="default") as client:
        client.command(f"DROP DATABASE {made.clickhouse.database}")


def limits(settings: Settings) -> tuple[str, int | None]:
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    topic = settings.topic_names.accepted
    with connect(settings) as client:
        tables = limits_in_force(client, settings.clickhouse.database)
    return topic_configs(admin, [topic])[topic]["retention.ms"], tables["verdicts"]


def test_a_changed_limit_is_in_force_for_what_stands_already(settings: Settings) -> None:
    prepare_stores(settings)
    assert limits(settings) == (str(30 * DAY_MS), 90)
    assert prepare_stores(settings) == []

    shorter = settings.model_copy(update=CHANGES)
    said = prepare_stores(shorter)

    assert limits(shorter) == (str(3 * DAY_MS), 10)
    accepted = settings.topic_names.accepted
    assert f"change of {accepted}: retention.ms from {30 * DAY_MS} to {3 * DAY_MS}" in said
    assert "change of verdicts: kept for 90 days before, for 10 now" in said
    assert align_topics(shorter) == []
    assert prepare_stores(shorter) == []


def verdict(client: Client, age_days: int) -> None:
    at = datetime.now(UTC) - timedelta(days=age_days)
    client.insert(
        "verdicts", [["t", at, age_days]], column_names=["topic", "checked_at", "differences"]
    )


def test_rows_past_the_limit_are_gone(settings: Settings) -> None:
    prepare_stores(settings)
    with connect(settings) as client:
        for age_days in (1, 11, 80):
            verdict(client, age_days)
        prepare_stores(settings.model_copy(update=CHANGES))
        client.command("OPTIMIZE TABLE verdicts FINAL")
        assert client.query("SELECT differences FROM verdicts").result_rows == [(1,)]


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("events.colected", "events.colected is not a topic; did you mean events.collected?"),
        ("subjects", "subjects keeps the newest record of each key, not days"),
    ],
)
def test_a_limit_that_could_not_be_kept_is_refused(tmp_path: Any, topic: str, said: str) -> None:
    file = tmp_path / "headwater.toml"
    file.write_text(f'[topics."{topic}"]\nretention_days = 3\n')
    with pytest.raises(SettingInvalid, match=said.replace("?", r"\?")):
        load_settings(file, {})


def test_the_environment_says_how_long_a_topic_keeps() -> None:
    settings = load_settings(None, {"HEADWATER_TOPICS_EVENTS_ACCEPTED_RETENTION_DAYS": "9"})
    assert settings.topics["events.accepted"].retention_days == 9
