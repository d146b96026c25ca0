"""What are the rows of a file, without having all of it in memory?

Text is read line by line and Parquet in slices, so a file may be larger than memory. Rows are
numbered from 1 in the file's order, blank lines not counted: the numbers stay the same for the same
file, and message ids are made of them.
"""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

from producers.rules.mapping import BadRow, FileFormat
from schemas.errors import SettingInvalid

_SLICE_ROWS = 5_000
_LONGEST_LINE = 1_000_000


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row: `values` by column, or what is wrong with it; `fraction` of the file up to here."""

    number: int
    values: Mapping[str, Any] | BadRow
    fraction: float


@dataclass(frozen=True, slots=True)
class Rows:
    """An open file. `columns` is None where every row has its own."""

    columns: frozenset[str] | None
    rows: Iterator[FileRow]


@contextmanager
def open_rows(path: Path, chosen: FileFormat) -> Iterator[Rows]:
    """The rows of `path`. Raises SettingInvalid when it cannot be read as `chosen` says."""
    try:
        if chosen.format == "parquet":
            with _open_parquet(path) as rows:
                yield rows
            return
        with path.open("rb") as raw:
            size = max(1, path.stat().st_size)
            # Bytes that are not of the encoding make their own row bad, not the file.
            text = TextIOWrapper(
                raw, encoding=chosen.encoding, errors="surrogateescape", newline=""
            )
            lines = _lines(text, chosen.skip)
            yield _text_rows(lines, chosen, lambda: min(1.0, raw.tell() / size))
    except LookupError as error:
        raise SettingInvalid(f"[file] encoding: {error}") from None
    except OSError as error:
        raise SettingInvalid(f"cannot read {path}: {error.strerror or error}") from None


def _text_rows(lines: Iterator[str], chosen: FileFormat, fraction: Any) -> Rows:
    columns: Sequence[str] = chosen.columns
    if chosen.format == "jsonl":
        return Rows(None, _number((_json_object(line) for line in lines if line.strip()), fraction))
    cells: Iterator[list[str] | BadRow]
    if chosen.format == "csv":
        cells = _csv_cells(lines, chosen.delimiter)
        if not columns:
            header = next(cells, [])
            if isinstance(header, BadRow) or not header:
                raise SettingInvalid("the file has no header; name the columns in [file] columns")
            columns = [name.strip().removeprefix("\ufeff") for name in header]
    elif chosen.format == "whitespace":
        cells = (line.split() for line in lines if line.strip())
    else:
        cells = (_cut(line, chosen.widths) for line in lines if line.strip())
    return Rows(frozenset(columns), _number((_named(each, columns) for each in cells), fraction))


def _lines(text: IO[str], skip: int) -> Iterator[str]:
    for number in range(skip):
        if not text.readline():
            raise SettingInvalid(f"[file] skip: the file has only {number} lines")
    while line := text.readline(_LONGEST_LINE):
        yield line


def _csv_cells(lines: Iterator[str], delimiter: str) -> Iterator[list[str] | BadRow]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(f"not CSV: {error}")
            continue
        if cells:
            yield cells


def _cut(line: str, widths: Sequence[int]) -> list[str]:
    cells, at = [], 0
    for width in widths:
        cells.append(line[at : at + width].strip())
        at += width
    return cells


def _named(cells: list[str] | BadRow, columns: Sequence[str]) -> Mapping[str, Any] | BadRow:
    if isinstance(cells, BadRow):
        return cells
    if len(cells) != len(columns):
        return BadRow(f"expected {len(columns)} columns, found {len(cells)}")
    if any(not cell.isascii() and _has_foreign_bytes(cell) for cell in cells):
        return BadRow("has bytes that are not of the file's encoding")
    return dict(zip(columns, cells, strict=True))


def _json_object(line: str) -> Mapping[str, Any] | BadRow:
    if _has_foreign_bytes(line):
        return BadRow("has bytes that are not of the file's encoding")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return BadRow("not JSON")
    return value if isinstance(value, dict) else BadRow("not a JSON object")


def _has_foreign_bytes(text: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in text)


def _number(values: Iterator[Mapping[str, Any] | BadRow], fraction: Any) -> Iterator[FileRow]:
    for number, value in enumerate(values, 1):
        yield FileRow(number, value, fraction())


@contextmanager
def _open_parquet(path: Path) -> Iterator[Rows]:
    try:
        from pyarrow import ArrowInvalid
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise SettingInvalid(
            "reading Parquet needs pyarrow: pip install 'headwater[parquet]'"
        ) from None
    try:
        file = ParquetFile(path)
    except ArrowInvalid:
        raise SettingInvalid(f"{path} is not a Parquet file") from None
    with file:
        total = max(1, file.metadata.num_rows)

        def rows() -> Iterator[FileRow]:
            number = 0
            for part in file.iter_batches(batch_size=_SLICE_ROWS):
                for values in part.to_pylist():
                    number += 1
                    yield FileRow(number, values, number / total)

        yield Rows(frozenset(file.schema_arrow.names), rows())
