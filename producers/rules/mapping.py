"""How does a row of somebody's file become a call?

By a mapping that a person wrote (docs/tutorial/cdnow.mapping.toml is one). A field of the call is a
constant, a template that names columns ('{customer_id}', '{row}'), or a column with a type:
{ column = "dollars", type = "decimal" }. A row that does not fit is told by its number and reason,
never by its values.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from string import Formatter
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, ValidationError

from producers.rules.call_fields import TYPES
from schemas.errors import SettingInvalid

Row = Mapping[str, Any]
ROW = "row"
"""In a template: the row's number, from 1."""

_TIMES: Mapping[str, int] = {"unix_s": 1, "unix_ms": 1000}
_VALUE_NAMES = frozenset({"column", "type", "format", "zone", "optional"})
_TYPES = ("string", "int", "decimal", "bool", "time", "any")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_YES_OR_NO = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_ABSENT = object()


class BadRow(Exception):
    """This row is no call; the text says why, and holds no value of it."""


class FileFormat(BaseModel):
    """`[file]`: how rows are told apart. `columns` are the names where the file has none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["csv", "whitespace", "fixed", "jsonl", "parquet"]
    encoding: str = "utf-8"
    delimiter: str = ","
    columns: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()
    skip: int = 0


@dataclass(frozen=True, slots=True)
class CallMapping:
    """A mapping ready for use; `columns` are those that it names."""

    file: FileFormat
    columns: frozenset[str]
    _build: Callable[[Row, int], Any]

    def call_of(self, row: Row, number: int, message_id: str) -> dict[str, Any]:
        """The call that row `number` stands for. Raises BadRow."""
        call: dict[str, Any] = self._build(row, number)
        return call | {"messageId": message_id}


def parse_mapping(tables: Mapping[str, Any]) -> CallMapping:
    """The mapping in the TOML document `tables`. Raises SettingInvalid naming what is wrong."""
    unknown = set(tables) - {"file", "call"}
    if unknown:
        raise SettingInvalid(f"[{min(unknown)}] is not part of a mapping; [file] and [call] are")
    try:
        file = FileFormat.model_validate(tables.get("file", {}))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise SettingInvalid(f"[file] {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    if file.format in ("whitespace", "fixed") and not file.columns:
        raise SettingInvalid(f'[file] columns: format "{file.format}" needs the columns\' names')
    if file.format == "fixed" and len(file.widths) != len(file.columns):
        raise SettingInvalid("[file] widths: needs a width in characters for each column")
    if len(file.delimiter) != 1:
        raise SettingInvalid("[file] delimiter: expected one character")
    call = tables.get("call")
    if not isinstance(call, dict) or call.get("type") not in TYPES:
        raise SettingInvalid(f"[call] type: expected one of {', '.join(TYPES)}")
    columns: set[str] = set()
    build = _object(call, "call", columns)
    return CallMapping(file, frozenset(columns), build)


Build = Callable[[Row, int], Any]


def _object(fields: Mapping[str, Any], path: str, columns: set[str]) -> Build:
    inner = [(name, _field(value, f"{path}.{name}", columns)) for name, value in fields.items()]

    def build(row: Row, number: int) -> dict[str, Any]:
        built = {}
        for name, make in inner:
            value = make(row, number)
            if value is not _ABSENT:
                built[name] = value
        return built

    return build


def _field(value: Any, path: str, columns: set[str]) -> Build:
    if isinstance(value, dict):
        return _column(value, path, columns) if "column" in value else _object(value, path, columns)
    if isinstance(value, str) and "{" in value:
        return _template(value, path, columns)
    if isinstance(value, str | int | float | bool):
        return lambda _row, _number: value
    raise SettingInvalid(f"[{path}]: expected text, a number, true or false, or a table")


def _template(text: str, path: str, columns: set[str]) -> Build:
    try:
        parts = [(literal, name) for literal, name, _, _ in Formatter().parse(text)]
    except ValueError as error:
        raise SettingInvalid(f"[{path}]: {error}; write {{column}}, and {{{{ for a brace") from None
    columns |= {name for _, name in parts if name and name != ROW}

    def build(row: Row, number: int) -> str:
        built = []
        for literal, name in parts:
            built.append(literal)
            if name == ROW:
                built.append(str(number))
            elif name:
                value = _cell(row, name)
                if value is _ABSENT:
                    raise BadRow(f"column {name} is empty")
                built.append(str(value))
        return "".join(built)

    return build


def _column(value: Mapping[str, Any], path: str, columns: set[str]) -> Build:
    unknown = set(value) - _VALUE_NAMES
    if unknown:
        raise SettingInvalid(
            f"[{path}] {min(unknown)}: unknown; known are {', '.join(sorted(_VALUE_NAMES))}"
        )
    name, kind = value["column"], value.get("type", "string")
    if not isinstance(name, str) or kind not in _TYPES:
        raise SettingInvalid(f"[{path}] type: expected one of {', '.join(_TYPES)}")
    columns.add(name)
    is_optional = value.get("optional", False) is True
    convert = _time(value, path) if kind == "time" else _CONVERT[kind]

    def build(row: Row, _number: int) -> Any:
        cell = _cell(row, name)
        if cell is _ABSENT:
            if is_optional:
                return _ABSENT
            raise BadRow(f"column {name} is empty")
        try:
            return convert(cell)
        except (ValueError, TypeError, ArithmeticError, OSError):
            raise BadRow(f"column {name}: expected {_EXPECTED.get(kind, kind)}") from None

    return build


def _cell(row: Row, name: str) -> Any:
    """The value of a column; a dotted name reaches into objects."""
    value = row.get(name)
    if value is None and "." in name:
        inner: Any = row
        for part in name.split("."):
            inner = inner.get(part) if isinstance(inner, Mapping) else None
        value = inner
    return _ABSENT if value is None or value == "" else value


def _time(value: Mapping[str, Any], path: str) -> Callable[[Any], str]:
    pattern, zone = value.get("format", "iso"), _zone(value.get("zone", "UTC"), path)
    if not isinstance(pattern, str):
        raise SettingInvalid(f'[{path}] format: expected "iso", "unix_s", "unix_ms" or "%Y-%m-%d"')

    def convert(cell: Any) -> str:
        if isinstance(cell, datetime):
            at = cell
        elif isinstance(cell, date):
            at = datetime(cell.year, cell.month, cell.day)  # noqa: DTZ001 - the zone comes below
        elif pattern in _TIMES:
            at = datetime.fromtimestamp(float(cell) / _TIMES[pattern], UTC)
        elif pattern == "iso":
            at = datetime.fromisoformat(str(cell))
        else:
            at = datetime.strptime(str(cell), pattern)  # noqa: DTZ007 - the zone comes below
        if at.tzinfo is None:
            at = at.replace(tzinfo=zone)
        return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    return convert


def _zone(name: object, path: str) -> tzinfo:
    try:
        return ZoneInfo(str(name))
    except (ZoneInfoNotFoundError, ValueError):
        raise SettingInvalid(f"[{path}] zone: expected a name such as Europe/Berlin") from None


def _int(cell: Any) -> int:
    if isinstance(cell, int):
        return int(cell)
    if isinstance(cell, float) and cell.is_integer():
        return int(cell)
    if not _WHOLE.fullmatch(str(cell)):
        raise ValueError
    return int(cell)


def _decimal(cell: Any) -> str:
    """As a decimal string: no double on its way."""
    try:
        number = Decimal(str(cell))
    except InvalidOperation:
        raise ValueError from None
    if not number.is_finite() or number.adjusted() > 30:
        raise ValueError
    return f"{number:f}"


def _any(cell: Any) -> Any:
    if isinstance(cell, date):
        return _AS_ISO(cell)
    return _decimal(cell) if isinstance(cell, Decimal) else cell


_CONVERT: Mapping[str, Callable[[Any], Any]] = {
    "string": str,
    "int": _int,
    "decimal": _decimal,
    "bool": lambda cell: cell if isinstance(cell, bool) else _bool(cell),
    "any": _any,
}
_AS_ISO = _time({}, "")
_EXPECTED = {
    "int": "a whole number",
    "decimal": "a decimal number",
    "bool": "true or false",
    "time": "a time in the mapping's format",
}


def _bool(cell: Any) -> bool:
    found = _YES_OR_NO.get(str(cell).strip().lower())
    if found is None:
        raise ValueError
    return found
