"""What do tools and people learn of segments, and nobody of who objected?"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from typer.testing import CliRunner, Result

from headwater.cli import app, main
from runtime.access import Access, sees_identifiers
from runtime.clickhouse import connect
from runtime.consent_overlay import ConsentOverlay
from runtime.segment_log import newest_segments
from runtime.settings import Http, Settings
from runtime.topics_admin import ensure_topics
from runtime.vault import Person, Vault
from schemas.codec import SUBJECT
from schemas.decisions import Known
from schemas.identity import RANK, Claim
from schemas.segments import REPEAT_BUYERS
from schemas.subjects import Consent, Subject
from sinks.migrations.apply import apply_migrations
from sinks.profile_store import ProfileStore, ProfileWrite
from tests.integration.serving import KEYS, Served, serving, settings_of

SEGMENTS = """\
[[segments]]
id = "buyers"
name = "People who bought"
condition = { computed = "orders", at_least = 1 }

[[segments]]
id = "new"
condition = { not = { segment = "buyers" } }
"""


@pytest.fixture(scope="module")
def served(
    kafka: str, redis_url: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("segments")
    name = directory.name
    made = settings_of(
        directory, kafka=kafka, redis_url=redis_url, clickhouse_url=clickhouse_url, name=name
    )
    ensure_topics(made)
    with connect(made, database="default") as client:
        apply_migrations(client, made.clickhouse.database)
        with serving(made) as served:
            yield served
        client.command(f"DROP DATABASE {made.clickhouse.database}")


@pytest.fixture(scope="module")
def pids(served: Served) -> list[bytes]:
    """Of three people whom the sink wrote: two with two orders, one without."""
    vault = Vault.from_settings(served.settings)
    people = list(vault.resolve([("user", str(n)) for n in range(3)]))
    vault.close()
    store = ProfileStore(served.settings, "subjects")
    found: list[bytes] = []
    for orders, person in zip((2, 2, 0), people, strict=True):
        assert isinstance(person, Person)
        subject = Subject(person.pid, None, 1, 2, 3, orders, 0, [], [], [], [], [], b"", [], b"")
        segments = [REPEAT_BUYERS] if orders else []
        record = SUBJECT.encode(msgspec.structs.replace(subject, segments=segments))
        store.write([ProfileWrite(person.pid, 1, record, segments)])
        found.append(person.pid)
    store.close()
    return found


def run(served: Served, directory: Path, *arguments: str) -> Result:
    settings = served.settings.model_copy(
        update={"http": Http(port=int(served.url.rpartition(":")[2]), keys=KEYS)}
    )
    config = directory / "config.json"
    config.write_text(settings.model_dump_json())
    return CliRunner().invoke(app, ["segments", *arguments, "--config", str(config)])


def test_segments_are_tried_applied_and_listed_from_the_command_line(
    served: Served, pids: list[bytes], tmp_path: Path
) -> None:
    file = tmp_path / "segments.toml"
    file.write_text(SEGMENTS)
    tried = run(served, tmp_path, "preview", str(file), "--json")
    assert tried.exit_code == 0, tried.output
    found: Any = msgspec.json.decode(tried.output)
    assert found["people"] == len(pids) and found["as_of"]
    assert {each["id"]: each["members"] for each in found["segments"]} == {"buyers": 2, "new": 1}
    assert newest_segments(served.settings).version == 0  # only tried

    applied = run(served, tmp_path, "apply", str(file))
    assert applied.output == "Version 1: 2 segments; workers switch now.\n"
    assert "in force already" in run(served, tmp_path, "apply", str(file)).output
    listed = run(served, tmp_path, "list").output
    assert listed.startswith("Version 1, as of 20") and "People who bought" in listed
    shown: Any = msgspec.json.decode(run(served, tmp_path, "list", "--json").output)
    assert shown["version"] == 1
    sizes = {each["id"]: each["size"] for each in shown["segments"]}
    assert sizes == {REPEAT_BUYERS: 2, "buyers": 0, "new": 0}  # no lane runs here
    assert served.get("/v1/segments/new/members", "activation").json()["members"] == []


def test_wrong_definitions_are_refused_with_their_line_and_nothing_is_applied(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    before = newest_segments(served.settings)
    file = tmp_path / "wrong.toml"
    file.write_text(SEGMENTS.replace("{ segment =", "{ segmnt ="))
    run(served, tmp_path, "list")
    arguments = ["headwater", "segments", "apply", str(file), "--config"]
    monkeypatch.setattr("sys.argv", [*arguments, str(tmp_path / "config.json")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    assert f"{file}:8: segments[1].condition.not.segmnt: " in capsys.readouterr().err
    assert newest_segments(served.settings) == before
    answer = httpx.post(
        f"{served.url}/v1/segments/preview",
        json={"segments": [{"id": "x", "condition": {"evnt": "page"}}]},
        headers={"Authorization": f"Bearer {KEYS['activation']}"},
    )
    assert answer.status_code == 400
    (fault,) = answer.json()["errors"]
    assert fault["path"] == "$.segments[0].condition.evnt"
    assert "did you mean event" in fault["expected"]


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ('"name": "\\ud800", "condition": {"computed": "orders", "at_least": 1}', "$.segments"),
        ('"condition": {"event": "\\ud800", "within_days": 1}', "$.segments"),
        ('"\\ud800": 1', "$.segments"),
        ('"condition": {"trait": "plan", "is": NaN}', "$.segments[0].condition.is"),
        ('"condition": {"trait": "plan", "is": 1e999}', "$.segments[0].condition.is"),
        (f'"condition": {{"trait": "plan", "is": {1 << 63}}}', "$.segments[0].condition.is"),
        (f'"condition": {{"trait": "plan", "is": {1 << 99}}}', "$.segments"),
    ],
)
def test_what_cannot_be_answered_in_json_is_refused(served: Served, wrong: str, where: str) -> None:
    answer = httpx.post(
        f"{served.url}/v1/segments/preview",
        content='{"segments": [{"id": "x", ' + wrong + "}]}",
        headers={
            "Authorization": f"Bearer {KEYS['activation']}",
            "Content-Type": "application/json",
        },
    )
    assert answer.status_code == 400
    assert where in [fault["path"] for fault in answer.json()["errors"]]


def test_who_asks_for_a_segment_that_is_none_is_told_the_nearest(served: Served) -> None:
    answer = served.get(f"/v1/segments/{REPEAT_BUYERS}x/members", "activation")
    assert answer.status_code == 404
    assert answer.json()["detail"] == f"No segment has this id; did you mean {REPEAT_BUYERS}?"


def test_members_are_shown_by_pages_but_for_who_objected_and_that_is_written_down(
    served: Served, pids: list[bytes]
) -> None:
    path = f"/v1/segments/{REPEAT_BUYERS}/members"
    first = served.get(path, "activation", limit=1).json()
    second = served.get(path, "activation", limit=1, cursor=first["cursor"]).json()
    last = served.get(path, "activation", limit=1, cursor=second["cursor"]).json()
    assert sorted(first["members"] + second["members"]) == sorted(p.hex() for p in pids[:2])
    assert (last["members"], last["cursor"]) == ([], None)
    with connect(served.settings) as client:
        rows = client.query("SELECT pid, role, kind, fields FROM accesses").result_rows
    assert {row[0] for row in rows} == set(pids[:2])
    assert {tuple(row[1:3]) for row in rows} == {("activation", "segment")}
    assert {tuple(row[3]) for row in rows} == {(f"segments/{REPEAT_BUYERS}",)}
    assert first["identifiers"] is None
    assert served.get(path, "privacy_officer").status_code == 403

    asyncio.run(object_to_profiles(served.settings, pids[0]))
    assert served.get(path, "activation").json()["members"] == [pids[1].hex()]


def test_who_may_see_them_is_told_every_identifier_of_a_member_until_their_erasure(
    served: Served, pids: list[bytes]
) -> None:
    vault = Vault.from_settings(served.settings)
    (mail,) = vault.resolve([("email", "jana@example.org")])
    assert isinstance(mail, Person)
    claim = Claim(pids[1], RANK["user"], 1, bytes(16), "identify")
    asyncio.run(claim_for(served.settings, mail.pid, claim))
    path = f"/v1/segments/{REPEAT_BUYERS}/members"
    shown = served.get(path, "admin").json()
    assert shown["identifiers"][pids[1].hex()] == ["user:1", "email:jana@example.org"]
    assert set(shown["identifiers"]) == set(shown["members"])
    with connect(served.settings) as client:
        (row,) = client.query(
            "SELECT fields FROM accesses WHERE role = 'admin' AND pid = unhex({pid:String})",
            {"pid": pids[1].hex()},
        ).result_rows
    assert row[0] == ["identifiers/email", "identifiers/user", f"segments/{REPEAT_BUYERS}"]
    assert "jana" not in str(row)

    vault.suppress("email", "jana@example.org", 5)
    shown = served.get(path, "admin").json()
    assert shown["identifiers"][pids[1].hex()] == ["user:1"]
    vault.suppress("user", "1", 5)
    vault.close()
    # Its profile is still there: no lane has heard of the erasure.
    for role in ("admin", "activation"):
        assert pids[1].hex() not in served.get(path, role).json()["members"]


def test_identifiers_are_for_who_answers_requests_of_data_subjects() -> None:
    keys = Access({"activation": "tool", "privacy_officer": "officer", "admin": "admin"})
    assert not sees_identifiers(keys.roles_of("tool"))
    both = Access({"activation": "desk", "privacy_officer": "desk"}).roles_of("desk")
    for roles in (keys.roles_of("officer"), keys.roles_of("admin"), both):
        assert sees_identifiers(roles)


async def claim_for(settings: Settings, pid: bytes, claim: Claim) -> None:
    overlay = ConsentOverlay(settings)
    await overlay.kin.put([(pid, claim)])
    await overlay.close()


async def object_to_profiles(settings: Settings, pid: bytes) -> None:
    overlay = ConsentOverlay(settings)
    objection = Consent("purpose/personalisation", "withdrawn", 1, None, 1)
    await overlay.put({pid: [Known(objection, b"r" * 16, b"c" * 16)]})
    await overlay.close()
