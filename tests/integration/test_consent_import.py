"""Does a list come in with its proof, again without change, and never without proof?"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from headwater.cli import app
from headwater.roles import prepare_stores
from runtime.clickhouse import connect
from runtime.vault import Vault
from schemas.errors import SettingInvalid
from tests.integration.serving import KEYS, Served, serving, settings_of
from tests.integration.test_consents_api import get, on_log, person, post, state

HEADER = "email,channel,topic,status,time,source,method,text_version,language"
WHOLE = ["email", "news", "subscribed", "2025-03-01T09:00:00Z", "Vendor", "form", "2025-02", "cs"]


@pytest.fixture(scope="module")
def served(
    kafka: str, redis_url: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("import")
    made = settings_of(
        directory,
        kafka=kafka,
        redis_url=redis_url,
        clickhouse_url=clickhouse_url,
        name=f"import-{directory.name}",
    )
    prepare_stores(made)
    with serving(made) as port:
        # The vault's beginning is logged, and this process's log would stand among the answers.
        post(port, {"subject": "user:first", "purpose": "sale", "status": "denied"})
        yield port
    with connect(made, database="default") as client:
        client.command(f"DROP DATABASE {made.clickhouse.database}")


@pytest.fixture
def people(fresh_name: Any) -> list[str]:
    return [f"{fresh_name('p')}@example.com" for _ in range(3)]


def run(served: Served, file: Path, *arguments: str) -> Result:
    config = file.with_name("headwater.json")
    http = {
        "port": int(served.url.rsplit(":", 1)[1]),
        "keys": {"consent_desk": KEYS["consent_desk"]},
    }
    config.write_text(json.dumps({"data_dir": str(file.parent), "http": http}))
    command = ["consent", "import", str(file), *arguments, "--config", str(config)]
    return CliRunner().invoke(app, command)


def csv(directory: Path, *rows: list[str]) -> Path:
    file = directory / "list.csv"
    file.write_text("\n".join([HEADER, *(",".join(row) for row in rows)]) + "\n")
    return file


def counts(result: Result) -> tuple[int, int, int]:
    found = json.loads(result.stdout)
    return found["recorded"], found["unchanged"], found["refused"]


def allowed(served: Served, who: str, topic: str = "news") -> bool:
    found = get(served, who)["subscriptions"]
    return bool(next(each for each in found if each["topic"] == topic)["allowed"])


def test_a_list_comes_in_with_its_proof_and_again_without_change(
    served: Served, vault: Vault, people: list[str], tmp_path: Path
) -> None:
    file = csv(tmp_path, *([who, *WHOLE] for who in people))
    first = run(served, file, "--json")
    assert (first.exit_code, counts(first)) == (0, (3, 0, 0)), first.output
    again = run(served, file, "--json")
    assert (again.exit_code, counts(again)) == (0, (0, 3, 0))
    for who in people:
        (record,) = on_log(served.settings, person(vault, f"email:{who}").pid)
        assert (record.source, record.method, record.text_version) == ("Vendor", "form", "2025-02")
        assert record.valid_from_ms == 1_740_819_600_000
        assert record.recorded_at_ms > record.valid_from_ms
        assert allowed(served, f"email:{who}")


def test_importing_an_old_list_again_brings_nobody_back(
    served: Served, people: list[str], tmp_path: Path
) -> None:
    who = people[0]
    file = csv(tmp_path, [who, *WHOLE])
    run(served, file)
    body = {"channel": "email", "topic": "news", "status": "unsubscribed"}
    post(served, {"subject": f"email:{who}", **body})
    assert counts(run(served, file, "--json")) == (0, 1, 0)
    assert not allowed(served, f"email:{who}")


@pytest.mark.parametrize(
    ("column", "value", "path"),
    [
        ("source", "", "$.source"),
        ("time", "", "$.valid_from"),
        ("time", "2999-01-01T00:00:00Z", "$.valid_from"),
        ("time", "last spring", "$.valid_from"),
        ("method", "", "$.proof.method"),
        ("text_version", "", "$.proof.text_version"),
        ("status", "yes", "$.status"),
        ("email", "", "$.subject"),
        ("topic", "", "$.topic"),
    ],
)
def test_a_row_without_proof_is_refused_alone_and_told_by_number_and_place(
    served: Served, people: list[str], tmp_path: Path, column: str, value: str, path: str
) -> None:
    broken = dict(zip(HEADER.split(","), [people[1], *WHOLE], strict=True)) | {column: value}
    file = csv(tmp_path, [people[0], *WHOLE], list(broken.values()), [people[2], *WHOLE])
    result = run(served, file, "--json")
    assert (result.exit_code, counts(result)) == (1, (2, 0, 1)), result.output
    (refused,) = json.loads(result.stdout)["refused_rows"]
    assert refused["row"] == 2
    assert any(fault.startswith(f"{path}: expected ") for fault in refused["errors"])
    assert people[1] not in json.dumps(refused)
    lookup = served.get(f"/v1/consents/email:{people[1]}", "consent_desk")
    assert lookup.status_code == 404


def test_a_row_names_everything_that_it_lacks(
    served: Served, people: list[str], tmp_path: Path
) -> None:
    file = csv(tmp_path, [people[0], "email", "news", "subscribed", "", "", "", "", ""])
    result = run(served, file)
    assert result.exit_code == 1
    assert "0 decisions recorded, 0 changed nothing, 1 rows refused." in result.output
    for path in ("$.source", "$.valid_from", "$.proof.method", "$.proof.text_version"):
        assert path in result.output


def test_what_all_rows_have_in_common_is_given_once_and_a_row_may_say_otherwise(
    served: Served, people: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "list.jsonl"
    rows: list[dict[str, object]] = [
        {"subject": f"user:{people[0]}"},
        {"subject": f"user:{people[1]}", "status": "denied"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) + "not JSON\n")
    common = {
        "purpose": "sale",
        "status": "granted",
        "time": "2025-03-01T09:00:00Z",
        "source": "Vendor",
        "method": "form",
        "text_version": "7",
    }
    given = [part for name, value in common.items() for part in ("--set", f"{name}={value}")]
    result = run(served, file, *given, "--json")
    assert counts(result) == (2, 0, 1)
    assert json.loads(result.stdout)["refused_rows"] == [{"row": 3, "errors": ["not JSON"]}]
    states = [state(get(served, f"user:{who}"), "sale")["status"] for who in people[:2]]
    assert states == ["granted", "denied"]


def test_more_rows_than_one_request_takes_come_in_with_their_numbers(
    served: Served, people: list[str], tmp_path: Path
) -> None:
    rows = [[f"{number}-{people[0]}", *WHOLE] for number in range(700)]
    rows[650][6] = ""  # method
    result = run(served, csv(tmp_path, *rows), "--json")
    assert counts(result) == (699, 0, 1)
    assert json.loads(result.stdout)["refused_rows"][0]["row"] == 651


def test_an_erased_persons_row_is_kept_nowhere(
    served: Served, vault: Vault, people: list[str], tmp_path: Path
) -> None:
    file = csv(tmp_path, [people[0], *WHOLE])
    run(served, file)
    pid = person(vault, f"email:{people[0]}").pid
    vault.suppress("email", people[0], 5)
    assert run(served, file).exit_code == 0
    assert len(on_log(served.settings, pid)) == 1


def test_a_column_that_means_nothing_stops_the_import(served: Served, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("e-mail,status\nx,granted\n")
    result = run(served, file)
    assert isinstance(result.exception, SettingInvalid)
    assert "column e-mail is none of: subject, purpose" in str(result.exception)
    assert isinstance(run(served, file, "--set", "sorce=x").exception, SettingInvalid)


@pytest.mark.parametrize("body", [{}, {"consents": []}, {"consents": [{}] * 1001}, {"list": []}])
def test_a_request_that_is_no_list_is_refused_as_a_whole(
    served: Served, body: dict[str, object]
) -> None:
    headers = {"Authorization": f"Bearer {KEYS['consent_desk']}"}
    answer = httpx.post(f"{served.url}/v1/consents/lists", json=body, headers=headers, timeout=30)
    assert answer.status_code == 400
    assert answer.json()["errors"]
