"""Files through the collector's path on a real Kafka and Valkey."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest

from producers.file_to_collected import Progress, Report, load_mapping, replay_file
from producers.rules.mapping import CallMapping, parse_mapping
from runtime.settings import Settings
from schemas.errors import SettingInvalid, StoreRefused
from schemas.money import parse_micro
from tests.cdnow import cdnow_file
from tests.collecting import WRITE_KEY, Running, collect_settings, running_collector

ORDERS = {
    "type": "track",
    "event": "Order Completed",
    "userId": "{who}",
    "timestamp": {"column": "at", "type": "time"},
    "properties": {"total": {"column": "paid", "type": "decimal"}, "currency": "EUR"},
}


@pytest.fixture
def collector(kafka: str, redis_url: str, tmp_path: Path) -> Iterator[Running]:
    settings: Settings = collect_settings(tmp_path, kafka, redis_url, f"r{uuid4().hex[:8]}")
    with running_collector(settings) as running:
        yield running


def mapping(call: dict[str, Any], **file: Any) -> CallMapping:
    return parse_mapping({"file": {"format": "csv"} | file, "call": call})


def replay(collector: Running, path: Path, chosen: CallMapping, **options: Any) -> Report:
    return replay_file(path, chosen, collector.url, WRITE_KEY, **options)


def totals(collector: Running) -> list[tuple[str, str]]:
    """Person and total of every event."""
    return sorted(
        (collector.opened(e)["ids"]["user"], orjson.loads(e.clear)["properties"]["total"])
        for e in collector.collected()
    )


CSV = "who,at,paid\nada,2026-01-31,1.50\n\nbob,2026-02-01,2\nada,2026-01-31,1.50\n"
TOTALS = [("ada", "1.50"), ("ada", "1.50"), ("bob", "2")]


def test_every_format_gives_the_same_calls(collector: Running, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [
        {"who": "ada", "at": "2026-01-31", "paid": "1.50"},
        {"who": "bob", "at": "2026-02-01", "paid": "2"},
        {"who": "ada", "at": "2026-01-31", "paid": "1.50"},
    ]
    texts = {
        "csv": CSV,
        "jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "whitespace": "".join(f" {' '.join(row.values())}\n" for row in rows),
        "fixed": "".join(f"{row['who']}{row['at']}{row['paid']:>5}\n" for row in rows),
    }
    files = {name: tmp_path / name for name in (*texts, "parquet")}
    for name, text in texts.items():
        files[name].write_text(text)
    parquet.write_table(pyarrow.Table.from_pylist(rows), files["parquet"])
    named = {"columns": ["who", "at", "paid"]}
    chosen = {
        "csv": mapping(ORDERS),
        "jsonl": mapping(ORDERS, format="jsonl"),
        "whitespace": mapping(ORDERS, format="whitespace", **named),
        "fixed": mapping(ORDERS, format="fixed", widths=[3, 10, 5], **named),
        "parquet": mapping(ORDERS, format="parquet"),
    }
    for at, (name, path) in enumerate(files.items(), 1):
        assert replay(collector, path, chosen[name]) == Report(sent=3)
        assert totals(collector) == sorted(TOTALS * at), name


def test_file_sent_again_has_the_same_events_and_equal_rows_stay_two(
    collector: Running, tmp_path: Path
) -> None:
    path = tmp_path / "orders.csv"
    path.write_text(CSV)
    for _ in range(2):
        replay(collector, path, mapping(ORDERS))
    events = collector.collected()
    assert len(events) == 6
    assert len({e.event_id for e in events}) == 3
    copy = tmp_path / "another name.csv"
    copy.write_text(CSV + "eve,2026-01-31,9\n")
    replay(collector, copy, mapping(ORDERS))
    assert len({e.event_id for e in collector.collected()}) == 3 + 4


def test_bad_rows_are_told_and_the_others_go_on(collector: Running, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes(
        b"who,at,paid\n"
        b"ada,2026-01-31,1\n"
        b"canary,2026-01-31\n"
        b"canary,canary,1\n"
        b"canary,2026-01-31,canary\n"
        b",2026-01-31,1\n"
        b"canary,2026-01-31,-5\n"
        b"canary,1850-01-31,5\n"
        b"can\xffary,2026-01-31,5\n"
        b"bob,2026-01-31,2\n"
    )
    report = replay(collector, path, mapping(ORDERS))
    assert (report.sent, report.bad) == (2, 7)
    assert [number for number, _ in report.bad_rows] == [2, 3, 4, 5, 6, 7, 8]
    reasons = [reason for _, reason in report.bad_rows]
    assert "canary" not in str(reasons)
    assert reasons[0] == "expected 3 columns, found 2"
    assert reasons[4].startswith("$.properties.total: not_an_amount")
    assert totals(collector) == [("ada", "1"), ("bob", "2")]
    assert collector.rejected() == []


@pytest.mark.parametrize(
    ("content", "file", "said"),
    [
        ("who,at\nada,2026-01-31\n", {}, "column paid"),
        ("", {}, "no header"),
        (CSV, {"skip": 50}, "only 5 lines"),
        (CSV, {"encoding": "utf-99"}, "encoding"),
        (CSV, {"format": "parquet"}, "not a Parquet file"),
    ],
)
def test_file_that_does_not_fit_its_mapping_is_refused(
    tmp_path: Path, content: str, file: dict[str, Any], said: str
) -> None:
    path = tmp_path / "orders.csv"
    path.write_text(content)
    with pytest.raises(SettingInvalid, match=said):
        replay_file(path, mapping(ORDERS, **file), "http://127.0.0.1:1", WRITE_KEY)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingInvalid, match=r"no-such\.csv"):
        replay_file(tmp_path / "no-such.csv", mapping(ORDERS), "http://127.0.0.1:1", WRITE_KEY)
    with pytest.raises(SettingInvalid, match=r"no-such\.toml"):
        load_mapping(tmp_path / "no-such.toml")
    (tmp_path / "broken.toml").write_text("[file")
    with pytest.raises(SettingInvalid, match=r"broken\.toml is not valid TOML"):
        load_mapping(tmp_path / "broken.toml")


def test_wrong_key_ends_the_replay(collector: Running, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text(CSV)
    with pytest.raises(StoreRefused, match="401"):
        replay_file(path, mapping(ORDERS), collector.url, "wrong-key")


def test_progress_grows_to_the_whole_file(collector: Running, tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("who,at,paid\n" + "".join(f"u{n},2026-01-31,{n}\n" for n in range(1000)))
    heard: list[Progress] = []
    replay(collector, path, mapping(ORDERS), on_progress=heard.append)
    assert [each.sent for each in heard] == list(range(100, 1001, 100))
    fractions = [each.fraction for each in heard]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_cdnow_comes_in_to_the_cent(collector: Running, checkout: Path) -> None:
    path = cdnow_file()
    expected: dict[str, list[Decimal]] = {}
    for line in path.read_text().splitlines()[1:]:
        customer, _, _, dollars = line.split()
        expected.setdefault(customer, []).append(Decimal(dollars))
    chosen = load_mapping(checkout / "docs" / "tutorial" / "cdnow.mapping.toml")
    assert replay(collector, path, chosen) == Report(sent=69_659)
    events = collector.collected()
    assert collector.rejected() == []
    assert len(events) == len({e.event_id for e in events}) == 69_659
    assert len({e.pid for e in events}) == len(expected) == 23_570
    micro = sum(parse_micro(orjson.loads(e.clear)["properties"]["total"]) or 0 for e in events)
    assert micro == sum(map(sum, expected.values())) * 10**6
    by_person: dict[bytes, list[str]] = {}
    for event in events:
        by_person.setdefault(event.pid, []).append(orjson.loads(event.clear)["properties"]["total"])
    pids = list(by_person)
    names = [row and row[2] for row in collector.people.identifiers_of(pids)]
    for pid, name in zip(pids, names, strict=True):
        assert name is not None
        assert sorted(map(Decimal, by_person[pid])) == sorted(expected[name])
    first = min(e.occurred_at_ms for e in events)
    assert datetime.fromtimestamp(first / 1000, UTC) == datetime(1997, 1, 1, tzinfo=UTC)
