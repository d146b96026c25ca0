"""How does a list of decisions in a file come in?

Row by row to the running API, which refuses those without proof. Blank cells say nothing. What
every row has in common (the vendor of a bought list, the version of its notice) may be given once.
Stopped in the middle, the same command goes on: a row that is on record changes nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from headwater.caller import Caller
from producers.file_rows import FileRow, open_rows
from producers.file_to_collected import Progress
from producers.rules.mapping import BadRow, FileFormat
from schemas.errors import SettingInvalid

MOST_ROWS = 500
SHOWN = 100
_PROOF = (
    "method",
    "text_version",
    "text_hash",
    "language",
    "jurisdiction",
    "age_band",
    "authorised_by",
)
_FIELDS = ("subject", "purpose", "channel", "topic", "status", "source", "valid_from", "valid_to")
_ALIASES = {"time": "valid_from"}
_IDENTIFIERS = {"email": "email", "user_id": "user", "anonymous_id": "anonymous"}
COLUMNS = (*_FIELDS, *_PROOF, *_ALIASES, *_IDENTIFIERS)


@dataclass(slots=True)
class Imported:
    """What became of a file. `refused_rows` has the first hundred: row number and what is wrong."""

    recorded: int = 0
    unchanged: int = 0
    refused: int = 0
    refused_rows: list[tuple[int, list[str]]] = field(default_factory=list)

    def refuse(self, number: int, faults: list[str]) -> None:
        """One more row was refused."""
        self.refused += 1
        if len(self.refused_rows) < SHOWN:
            self.refused_rows.append((number, faults))

    def to_json(self) -> dict[str, object]:
        """For programs."""
        rows = [{"row": number, "errors": faults} for number, faults in self.refused_rows]
        counts = {"recorded": self.recorded, "unchanged": self.unchanged, "refused": self.refused}
        return counts | {"refused_rows": rows}

    def print(self, console: Console) -> None:
        """For people."""
        console.print(
            f"{self.recorded:,} decisions recorded, {self.unchanged:,} changed nothing, "
            f"{self.refused:,} rows refused."
        )
        for number, faults in self.refused_rows:
            console.print(f"  row {number}: {escape('; '.join(faults))}")
        if self.refused > len(self.refused_rows):
            console.print(f"  and {self.refused - len(self.refused_rows):,} more")


def import_consents(
    file: Path,
    caller: Caller,
    common: Mapping[str, str],
    on_progress: Callable[[Progress], None],
) -> Imported:
    """Send every row of a CSV or JSONL file; what became of them.

    Raises SettingInvalid for a file or column that is not understood, StoreUnavailable when the API
    does not answer, StoreRefused when it says no to all.
    """
    _check_columns(common, "--set")
    kind = "jsonl" if file.suffix in (".jsonl", ".ndjson") else "csv"
    done = Imported()
    with open_rows(file, FileFormat(format=kind)) as opened:
        if opened.columns is not None:
            _check_columns(opened.columns, "column")
        rows = iter(opened.rows)
        sent = 0
        while part := list(islice(rows, MOST_ROWS)):
            _send(part, caller, common, done)
            sent += len(part)
            on_progress(Progress(sent, done.refused, part[-1].fraction))
    return done


def _send(
    part: Sequence[FileRow], caller: Caller, common: Mapping[str, str], done: Imported
) -> None:
    numbers: list[int] = []
    bodies: list[dict[str, Any]] = []
    for row in part:
        if isinstance(row.values, BadRow):
            done.refuse(row.number, [str(row.values)])
            continue
        unknown = [name for name in row.values if name not in COLUMNS]
        if unknown:
            done.refuse(row.number, [f"has a field that is none of: {', '.join(COLUMNS)}"])
            continue
        numbers.append(row.number)
        bodies.append(body_of({**common, **_filled(row.values)}))
    if not bodies:
        return
    answer: Any = caller.post("/v1/consents/lists", "consent_desk", {"consents": bodies})
    done.recorded += answer["recorded"]
    done.unchanged += answer["unchanged"]
    for refused in answer["refused"]:
        faults = [f"{fault['path']}: expected {fault['expected']}" for fault in refused["errors"]]
        done.refuse(numbers[refused["row"]], faults)


def body_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """One row as POST /v1/consents takes it."""
    body: dict[str, Any] = {"subject": ""}
    for name, kind in _IDENTIFIERS.items():
        if name in values:
            body["subject"] = f"{kind}:{values[name]}"
    for name, value in values.items():
        field_name = _ALIASES.get(name, name)
        if field_name in _FIELDS:
            body[field_name] = value
    proof = {name: values[name] for name in _PROOF if name in values}
    if proof:
        body["proof"] = proof
    return body


def _filled(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "")}


def _check_columns(names: Any, what: str) -> None:
    for name in names:
        if name not in COLUMNS:
            raise SettingInvalid(f"{what} {name} is none of: {', '.join(COLUMNS)}")
