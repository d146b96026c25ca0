"""Whom and what an incident touched, and who read it, from real facts and accesses."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headwater.incident import Asked, Scope, find_scope, read_window, require_source
from headwater.inventory import take_inventory
from headwater.roles import prepare_stores
from producers.rules.call_keys import CallKeys
from runtime.clickhouse import connect
from runtime.sealing import secrets_of
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.errors import SettingInvalid
from sinks.rules.rows import FACT_COLUMNS, fact_rows
from tests.integration.serving import at, settings_of
from tests.integration.test_profiles_api import known
from tests.rules.test_rows import EVENT

DAY = f"{datetime.now(UTC) - timedelta(days=7):%Y-%m-%d}"
"""Of the incident: ClickHouse forgets at once who read what more than a year ago."""
FROM, TO = f"{DAY}T12:00:00Z", f"{DAY}T13:00:00Z"
NOW_MS = at(TO) + 11 * 3_600_000


@pytest.fixture(scope="module")
def settings(
    tmp_path_factory: pytest.TempPathFactory, kafka: str, redis_url: str, clickhouse_url: str
) -> Iterator[Settings]:
    directory = tmp_path_factory.mktemp("incident")
    made = settings_of(
        directory,
        kafka=kafka,
        redis_url=redis_url,
        clickhouse_url=clickhouse_url,
        name=f"incident-{directory.name}",
    )
    prepare_stores(made)
    vault = Vault.from_settings(made)
    pids = {name: known(vault, "user", name).pid for name in ("ann", "bob", "cyd", "dan")}
    vault.close()
    events = [
        ("ann", "web", f"{DAY}T12:00:00Z"),
        ("ann", "web", f"{DAY}T12:59:59.999Z"),
        ("bob", "app", f"{DAY}T12:30:00Z"),
        ("cyd", "web", f"{DAY}T13:00:00Z"),
    ]
    email = f"traits/{CallKeys.of(secrets_of(made)[1]).trait_key_of('email').hex()}"
    reads = [
        ("bob", "activation", "profile", ["computed"], f"{DAY}T12:10:00Z"),
        ("dan", "activation", "profile", ["computed", email], f"{DAY}T12:20:00Z"),
        ("dan", "privacy_officer", "export", ["events", email], f"{DAY}T12:40:00Z"),
        ("dan", "activation", "profile", [email], f"{DAY}T11:59:59Z"),
    ]
    with connect(made) as client:
        for number, (name, source, text) in enumerate(events):
            event = msgspec.structs.replace(
                EVENT, pid=pids[name], event_id=bytes([number]) * 16, source=source,
                received_at_ms=at(text),
            )  # fmt: skip
            columns = list(zip(*fact_rows(event, 0, number), strict=True))
            client.insert("facts", columns, column_names=FACT_COLUMNS, column_oriented=True)
        rows = [
            [datetime.fromisoformat(text), pids[name], role, kind, fields]
            for name, role, kind, fields, text in reads
        ]
        names = ["read_at", "pid", "role", "kind", "fields"]
        client.insert("accesses", rows, column_names=names)
    yield made
    with connect(made, database="default") as client:
        client.command(f"DROP DATABASE {made.clickhouse.database}")


def scope(
    settings: Settings, *, source: str = "", field: str = "", identify: bool = False
) -> Scope:
    asked = Asked(at(FROM), at(TO), source, field)
    places = take_inventory(settings)
    return find_scope(settings, asked, places, identify=identify, now_ms=NOW_MS)


def told(found: Scope) -> set[tuple[int, int]]:
    return {(each.events, each.reads) for each in found.subjects}


def test_people_are_those_of_whom_something_came_or_was_read_in_the_time(
    settings: Settings,
) -> None:
    found = scope(settings)
    assert told(found) == {(2, 0), (1, 1), (0, 2)}
    assert found.events == 3
    assert [(r.role, r.kind, r.reads, r.subjects) for r in found.read_by] == [
        ("activation", "profile", 2, 2),
        ("privacy_officer", "export", 1, 1),
    ]
    assert found.read_by[0].first_at == f"{DAY}T12:10:00Z"
    assert {each.identifier for each in found.subjects} == {None}
    assert {each.data_class for each in found.fields} == {"identifier", "trait", "behaviour"}


def test_a_source_narrows_people_and_places(settings: Settings) -> None:
    found = scope(settings, source="web")
    assert told(found) == {(2, 0)}
    assert found.read_by == ()
    assert not [each for each in found.fields if "consents.changed" in each.place]
    assert [each for each in found.fields if each.place.endswith("events.accepted")]


def test_a_trait_narrows_readers_to_those_who_got_it(settings: Settings) -> None:
    found = scope(settings, field="traits.email")
    assert told(found) == {(2, 0), (1, 0), (0, 2)}
    assert [(r.role, r.reads) for r in found.read_by] == [("activation", 1), ("privacy_officer", 1)]


def test_a_field_is_found_wherever_it_is_held(settings: Settings) -> None:
    found = scope(settings, field="order_id")
    assert {each.field for each in found.fields} >= {"Accepted.clear.properties.order_id"}
    with pytest.raises(SettingInvalid, match="did you mean order_id"):
        scope(settings, field="ordr_id")


def test_identifiers_are_shown_only_when_asked_for_and_that_is_written_down(
    settings: Settings,
) -> None:
    found = scope(settings, source="app", identify=True)
    assert [each.identifier for each in found.subjects] == ["user:bob"]
    with connect(settings) as client:
        rows = client.query(
            "SELECT role, fields FROM accesses WHERE kind = 'incident' AND read_at = {at:DateTime64(3)}",
            {"at": datetime.fromtimestamp(NOW_MS / 1000, UTC)},
        ).result_rows
    assert rows == [("command line", ["identifiers"])]


def run(settings: Settings, directory: Path, *arguments: str) -> Any:
    file = directory / "settings.json"
    file.write_text(settings.model_dump_json())
    return subprocess.run(
        [sys.executable, "-m", "headwater", "incident", "--config", str(file), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_command_answers_people_and_programs(settings: Settings, tmp_path: Path) -> None:
    ended = run(settings, tmp_path, "--from", FROM, "--to", TO, "--json")
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    assert (answer["subject_count"], answer["events"]) == (3, 3)
    assert "bob" not in ended.stdout
    shown = run(settings, tmp_path, "--from", FROM, "--to", TO, "--source", "web").stdout
    assert "1 people, 2 events" in shown


@pytest.mark.parametrize(
    ("from_", "to", "said"),
    [
        ("yesterday", "2026-01-31T13:00:00Z", "--from yesterday: expected a time with its zone"),
        ("2026-01-31T12:00:00", "2026-01-31T13:00:00Z", "expected a time with its zone"),
        ("2026-01-31T13:00:00Z", "2026-01-31T12:00:00Z", "expected a time after"),
    ],
)
def test_times_that_do_not_fit_are_said(from_: str, to: str, said: str) -> None:
    with pytest.raises(SettingInvalid, match=said):
        read_window(from_, to)


def test_what_else_does_not_fit_is_said(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(SettingInvalid, match="expected one of app, default, web"):
        require_source("wbe", settings)
    ended = run(settings, tmp_path, "--from", FROM, "--to", TO, "--field", "shoe_size")
    assert ended.returncode == 2
    assert "expected a field that" in ended.stderr
    assert "Traceback" not in ended.stderr
