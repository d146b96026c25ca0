"""A mapping: rows of a file to calls, and rows that are none."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from producers.rules.mapping import BadRow, parse_mapping
from schemas.errors import SettingInvalid


def mapped(field: Any, row: dict[str, Any], number: int = 1) -> Any:
    mapping = parse_mapping({"file": {"format": "csv"}, "call": {"type": "track", "x": field}})
    return mapping.call_of(row, number, "m").get("x")


@pytest.mark.parametrize(
    ("field", "row", "value"),
    [
        ("constant", {}, "constant"),
        (5, {}, 5),
        (True, {}, True),
        ("{a}-{b}/{row}", {"a": "1", "b": 2}, "1-2/1"),
        ("{{a}}", {}, "{a}"),
        ({"column": "a"}, {"a": "001"}, "001"),
        ({"column": "a.b"}, {"a": {"b": 3}}, "3"),
        ({"column": "a", "type": "int"}, {"a": "-7"}, -7),
        ({"column": "a", "type": "int"}, {"a": 7.0}, 7),
        ({"column": "a", "type": "decimal"}, {"a": "11.770"}, "11.770"),
        ({"column": "a", "type": "decimal"}, {"a": 0.1}, "0.1"),
        ({"column": "a", "type": "decimal"}, {"a": "1e3"}, "1000"),
        ({"column": "a", "type": "decimal"}, {"a": Decimal("2.50")}, "2.50"),
        ({"column": "a", "type": "bool"}, {"a": "Yes"}, True),
        ({"column": "a", "type": "bool"}, {"a": False}, False),
        ({"column": "a", "type": "any"}, {"a": [1, {"b": None}]}, [1, {"b": None}]),
        ({"column": "a", "optional": True}, {"a": ""}, None),
        ({"b": {"c": {"column": "a"}}}, {"a": "x"}, {"b": {"c": "x"}}),
        ({"column": "a", "type": "time"}, {"a": "2026-01-31"}, "2026-01-31T00:00:00.000Z"),
        (
            {"column": "a", "type": "time", "format": "%Y%m%d"},
            {"a": "19970101"},
            "1997-01-01T00:00:00.000Z",
        ),
        (
            {"column": "a", "type": "time", "format": "%d.%m.%Y %H:%M", "zone": "Europe/Berlin"},
            {"a": "01.07.2026 12:00"},
            "2026-07-01T10:00:00.000Z",
        ),
        (
            {"column": "a", "type": "time", "format": "unix_s"},
            {"a": "1800000000"},
            "2027-01-15T08:00:00.000Z",
        ),
        (
            {"column": "a", "type": "time", "format": "unix_ms"},
            {"a": 1_800_000_000_123},
            "2027-01-15T08:00:00.123Z",
        ),
        (
            {"column": "a", "type": "time"},
            {"a": datetime(2026, 1, 1, tzinfo=UTC)},
            "2026-01-01T00:00:00.000Z",
        ),
        ({"column": "a", "type": "time"}, {"a": date(2026, 1, 1)}, "2026-01-01T00:00:00.000Z"),
    ],
)
def test_field_becomes_a_value(field: Any, row: dict[str, Any], value: Any) -> None:
    assert mapped(field, row) == value


@pytest.mark.parametrize(
    ("field", "cell"),
    [
        ("{a}", ""),
        ("{a}", None),
        ({"column": "a"}, ""),
        ({"column": "a", "type": "int"}, "1.5"),
        ({"column": "a", "type": "int"}, "canary"),
        ({"column": "a", "type": "decimal"}, "canary"),
        ({"column": "a", "type": "decimal"}, "NaN"),
        ({"column": "a", "type": "decimal"}, "1e99"),
        ({"column": "a", "type": "bool"}, "canary"),
        ({"column": "a", "type": "time"}, "canary"),
        ({"column": "a", "type": "time", "format": "%Y%m%d"}, "19971301"),
        ({"column": "a", "type": "time", "format": "unix_s"}, "1e30"),
        ({"column": "a", "type": "time", "format": "unix_s"}, "nan"),
    ],
)
def test_cell_that_does_not_fit_is_told_without_its_value(field: Any, cell: Any) -> None:
    with pytest.raises(BadRow, match="column a") as bad:
        mapped(field, {"a": cell})
    assert "canary" not in str(bad.value)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({}, r"\[file\] format"),
        ({"file": {"format": "xml"}}, r"\[file\] format"),
        ({"file": {"format": "csv", "colums": []}}, r"\[file\] colums"),
        ({"file": {"format": "csv", "delimiter": ""}}, r"\[file\] delimiter"),
        ({"file": {"format": "whitespace"}}, r"\[file\] columns"),
        ({"file": {"format": "fixed", "columns": ["a"]}}, r"\[file\] widths"),
        ({"file": {"format": "csv"}}, r"\[call\] type"),
        ({"file": {"format": "csv"}, "call": {"type": "purchase"}}, r"\[call\] type"),
        ({"file": {"format": "csv"}, "call": {"type": "track"}, "more": {}}, r"\[more\]"),
    ],
)
def test_wrong_mapping_is_refused_by_name(tables: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingInvalid, match=said):
        parse_mapping(tables)


@pytest.mark.parametrize(
    "field",
    [
        {"column": "a", "type": "money"},
        {"column": "a", "zome": "UTC"},
        {"column": "a", "type": "time", "zone": "Mars/Olympus"},
        "{a",
        [1],
    ],
)
def test_wrong_field_is_refused_by_name(field: Any) -> None:
    with pytest.raises(SettingInvalid, match=r"\[call\.x\]"):
        mapped(field, {})
