"""What is held of people is read from the schemas, the tables and the code that writes keys."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from headwater.inventory import LAYOUTS, Place, take_inventory, to_json, topic_fields, unclassed
from headwater.roles import prepare_stores
from runtime.clickhouse import connect
from runtime.consent_overlay import ConsentOverlay
from runtime.settings import Purpose, Settings, TopicSettings
from runtime.vault import AsyncVault, Person, Vault
from schemas.decisions import Known
from schemas.held import Layout, column
from schemas.subjects import Consent
from schemas.topics import Topics
from sinks.migrations.apply import apply_migrations
from sinks.profile_store import ProfileStore, ProfileWrite
from tests.integration.serving import settings_of


@pytest.fixture
def settings(
    tmp_path: Path, kafka: str, redis_url: str, clickhouse_url: str, fresh_name: Any
) -> Iterator[Settings]:
    made = settings_of(
        tmp_path,
        kafka=kafka,
        redis_url=redis_url,
        clickhouse_url=clickhouse_url,
        name=fresh_name("inventory"),
    )
    prepare_stores(made)
    yield made
    with connect(made, database="default") as client:
        client.command(f"DROP DATABASE {made.clickhouse.database}")


def place(places: list[Place], name: str) -> Place:
    (found,) = [each for each in places if each.name.endswith(name)]
    return found


def test_every_field_of_every_place_is_shown_with_class_purpose_and_time(
    settings: Settings,
) -> None:
    places = take_inventory(settings)
    assert unclassed(places) == []
    topics = {topic.name for topic in settings.topic_names.all()}
    assert topics <= {each.name for each in places if each.kind == "topic"}
    assert all(each.kept for each in places)
    accepted = place(places, "events.accepted")
    assert accepted.kept == "30 days, and 3 days at most until its segment closes"
    by_name = {field.name: field for field in accepted.fields}
    assert by_name["Accepted.sealed.ids"].data_class == "identifier"
    assert by_name["Accepted.sealed.ids"].is_sealed
    assert not by_name["Accepted.clear.properties.order_id"].is_sealed
    assert place(places, ".verdicts").kept == "90 days"
    assert place(places, ".facts").kept == "until the person is erased"
    assert place(places, "vault:key:{pid}").fields[1].is_sealed


def test_what_is_configured_is_what_is_shown(settings: Settings) -> None:
    changed = settings.model_copy(
        update={
            "purposes": {
                "analytics": Purpose(basis="consent", owner="insights", recipients=("Acme",))
            },
            "topics": {"events.rejected": TopicSettings(retention_days=2)},
        }
    )
    shown = to_json(take_inventory(changed), changed)
    by_name = {each["name"].rsplit(".", 2)[-1]: each for each in shown["places"]}
    pid = next(f for f in by_name["facts"]["fields"] if f["field"] == "pid")
    assert pid["purposes"] == [
        {
            "purpose": "analytics",
            "legal_basis": "consent",
            "owner": "insights",
            "recipients": ["Acme"],
        }
    ]
    rejected = next(e for e in shown["places"] if e["name"].endswith("events.rejected"))
    assert "(configured: 2 days; run headwater topics)" in rejected["kept"]
    json.dumps(shown)


def test_a_column_that_nobody_described_is_named(settings: Settings) -> None:
    with connect(settings) as client:
        client.command("ALTER TABLE facts ADD COLUMN shoe_size UInt8")
    places = take_inventory(settings)
    assert unclassed(places) == [f"table {settings.clickhouse.database}.facts: shoe_size"]


def test_every_topic_has_fields_and_each_says_what_it_holds() -> None:
    fields = Settings().fields
    for topic in Topics().all():
        held = topic_fields(topic, fields)
        assert held
        assert [each.name for each in held if not (each.data_class and each.purposes)] == []


def matches(key: str, layout: Layout, prefix: str) -> bool:
    return (
        re.fullmatch(prefix + re.sub(r"\\{\w+\\}", "[^:]+", re.escape(layout.pattern)), key)
        is not None
    )


def undescribed(client: Any, settings: Settings) -> set[str]:
    """Kinds of keys, and fields of their hashes, that no layout knows."""
    found = set()
    prefixes = {"vault": settings.vault.key_prefix, "redis": settings.redis.key_prefix}
    for prefix in prefixes.values():
        for key in client.scan_iter(f"{prefix}*"):
            name = key.decode()
            layout = next((e for e in LAYOUTS if matches(name, e, prefixes[e.prefix_of])), None)
            names = {"value"}
            if client.type(key) == b"hash":
                names = {field.decode() for field in client.hkeys(key)}
            known = {field.name.split(".")[0] for field in layout.fields} if layout else set()
            if not any(field.startswith("{") for field in known):
                found |= {f"{name}: {field}" for field in names - known}
    return found


async def decide(settings: Settings) -> None:
    overlay, pid = ConsentOverlay(settings), b"p" * 16
    consent = Consent("purpose/analytics", "withdrawn", 1, None, 1)
    vault = AsyncVault.from_settings(settings)
    (person,) = await vault.resolve([("user", "1")])
    assert isinstance(person, Person)
    await overlay.put({person.pid: [Known(consent, pid, pid, False)]})
    await overlay.close()
    await vault.close()


def test_every_key_that_the_code_writes_is_described(settings: Settings, redis_client: Any) -> None:
    vault = Vault.from_settings(settings)
    try:
        vault.resolve([("user", "1"), ("user", "2")])
        vault.suppress("user", "2", 5)
    finally:
        vault.close()
    asyncio.run(decide(settings))
    profiles = ProfileStore(settings, "subjects")
    profiles.positions([0])
    profiles.write([ProfileWrite(b"p" * 16, 1, b"x", ["a"]), ProfileWrite(b"q" * 16, 2, None)], [0])
    profiles.close()

    assert undescribed(redis_client, settings) == set()

    redis_client.hset(f"{settings.redis.key_prefix}{'ab' * 16}", "shoe_size", "44")
    assert undescribed(redis_client, settings) == {
        f"{settings.redis.key_prefix}{'ab' * 16}: shoe_size"
    }


def test_the_command_shows_it_to_people(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(settings.model_dump_json())

    def run(*arguments: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "headwater", "inventory", "--config", str(file), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    shown = run()
    assert "topic" in shown
    assert "Accepted.sealed.ids" in shown
    assert "legitimate_interest" in shown


def test_every_column_of_every_table_says_what_it_holds(clickhouse: Client) -> None:
    assert clickhouse.database is not None
    apply_migrations(clickhouse, clickhouse.database)
    rows = clickhouse.query(
        "SELECT table, name, comment FROM system.columns WHERE database = {database:String}",
        {"database": clickhouse.database},
    ).result_rows
    assert {"facts", "counters", "progress", "verdicts", "migrations"} <= {row[0] for row in rows}
    unsaid = [
        f"{table}.{name}" for table, name, comment in rows if not column(name, comment).data_class
    ]
    assert not unsaid, f"COMMENT of these must begin 'CLASS for PURPOSE: ' ({unsaid})"
