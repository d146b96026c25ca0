"""Do the documents, the example configuration and the package say what the code says?"""

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from headwater.cli import app
from headwater.roles import ROLE_NAMES
from runtime.settings import Settings, load_settings
from schemas.topics import DAY_MS, Topics
from sinks.migrations.apply import migrations

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
PACKAGES = ("headwater", "schemas", "producers", "streams", "sinks", "consumers", "runtime")
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


# -- documents


@each_document
def test_paths_named_in_a_document_exist(document: Path) -> None:
    text = document.read_text("utf-8")
    named = set(re.findall(r"`((?:[a-z_0-9.]+/)+[a-z_A-Z0-9.]*)`", text))
    links = set(re.findall(r"\]\((?!https?:)([^)#]+)", text))
    # Made by a run, not committed.
    made = ("run/", "logs/", "secrets/", "kafka/", "noida-db/", "valkey/", "clickhouse/")
    ours = {path for path in named if not path.startswith((*made, "headwater-data/"))}
    assert [path for path in ours if not (ROOT / path).exists() and path != "rules/"] == []
    assert [path for path in links if not (document.parent / path).exists()] == []


@each_document
def test_commands_named_in_a_document_exist(document: Path) -> None:
    text = document.read_text("utf-8")
    known = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"(?:`|bin/)headwater ([a-z]+)", text)) <= known
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", text)) <= verbs


def test_architecture_table_shows_the_topics_as_they_are() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.split("## Topics")[1].split("## ")[0].splitlines()
        if line.startswith("| `")
    ]
    shown = [tuple(row[:4]) for row in rows]
    assert sorted(shown) == sorted(
        (
            f"`{topic.name}`",
            topic.keyed_by,
            ", ".join(topic.records),
            "newest of each key"
            if topic.retention_ms is None
            else f"{topic.retention_ms // DAY_MS} days",
        )
        for topic in Topics().all()
    )


def test_every_folder_of_the_flow_stands_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    assert [name for name in PACKAGES if f"| `{name}/` |" not in text] == []


# -- configuration


def scalars(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from scalars(value, (*path, name))
        else:
            yield (*path, name)


def test_example_configuration_is_complete_and_shows_the_defaults() -> None:
    file = ROOT / "headwater.example.toml"
    assert load_settings(file, {}) == Settings()
    shown = set(scalars(tomllib.loads(file.read_text("utf-8"))))
    # These have no default: they stand there as comments.
    text = file.read_text("utf-8")
    lists = {("sources",), ("webhooks",), ("journeys",), ("segments",)}
    known = set(scalars(Settings().model_dump())) - lists
    assert known - shown == set()
    parts = ("[http.keys]", "[[sources]]", "[[webhooks]]", "[topics.", "[[journeys]]")
    for part in (*parts, "[[segments]]"):
        assert part in text


# -- command line


def commands() -> list[tuple[str, ...]]:
    group: Any = typer.main.get_command(app)
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None)
        found += [(name, sub) for sub in inner] if inner else [(name,)]
    return [(), ("consent",), ("schemas",), *found]


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_has_an_example_in_its_help(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"Example: headwater {' '.join(command)}".strip() in result.output


def test_help_of_run_names_every_role() -> None:
    result = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"})
    assert [role for role in ROLE_NAMES if role not in result.output] == []


def run_headwater(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headwater", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=directory,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "colector"), 2, "colector is not a role"),
        (("run", "streams", "--config", "none.toml"), 2, "cannot read none.toml"),
        (("up", "--port", "70000"), 2, "--port 70000"),
        (("up", "--prot", "1"), 2, "--prot"),
        (("run", "streams"), 1, "start one with 'headwater up'"),
        (("verify",), 1, "start one with 'headwater up'"),
        (("topics",), 1, "start one with 'headwater up'"),
        (("schemas", "check"), 0, "compatible with every earlier version"),
    ],
)
def test_exit_code_and_one_clear_line(
    tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    ended = run_headwater(*arguments, directory=tmp_path)
    assert ended.returncode == code
    assert said in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


def test_misspelt_setting_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_text('[kafka]\nbootstrap_server = "k:9092"\n')
    ended = run_headwater("verify", directory=tmp_path)
    assert ended.returncode == 2
    assert "did you mean bootstrap_servers?" in ended.stderr


def test_doctor_answers_programs_too(tmp_path: Path) -> None:
    ended = run_headwater("doctor", "--json", directory=tmp_path)
    assert ended.returncode == 1
    assert '"check": "running"' in ended.stdout


# -- package


def test_no_two_table_changes_have_one_number() -> None:
    # The second of them would count as applied already.
    numbers = [number for number, _, _ in migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_no_other_distribution_owns_one_of_our_package_names() -> None:
    owners = metadata.packages_distributions()
    for name in PACKAGES:
        assert set(owners.get(name, [])) <= {"headwater"}, f"{name} belongs to {owners[name]}"


def test_every_package_of_the_tree_is_listed_for_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    listed = set(project["tool"]["setuptools"]["packages"])
    there = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for name in PACKAGES
        for file in (ROOT / name).rglob("__init__.py")
    }
    assert listed == there


def test_types_are_checked_wherever_there_is_code_of_ours() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    there = {file.parent.name for file in ROOT.glob("[!.]*/*.py")}
    assert set(project["tool"]["mypy"]["files"]) == there


def test_wheel_holds_code_and_data_and_no_tests(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        # A build writes beside what it builds: not into the checkout.
        subprocess.run(["cp", "-r", str(ROOT / name), str(source)], check=True)
    build = "from setuptools.build_meta import build_wheel; build_wheel('.')"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    (wheel,) = source.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert tops == {*PACKAGES, next(top for top in tops if top.endswith(".dist-info"))}
    data = [
        path.relative_to(ROOT).as_posix()
        for pattern in ("schemas/*.avsc", "schemas/ids.json", "sinks/migrations/*.sql")
        for path in ROOT.glob(pattern)
    ]
    page = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("consumers/campaigns/page/*")]
    assert [path for path in data + page if path not in names] == []
