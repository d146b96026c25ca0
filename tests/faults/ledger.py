"""Which faults were survived how often, and what did it cost? One line a run, never changed.

Runs are counted from PROTOCOL on: raise it when lanes, sinks or this harness change so that earlier
runs say nothing about today. Earlier lines stay.
"""

import csv
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

PROTOCOL = 1
FILE = Path(__file__).with_name("ledger.csv")


@dataclass(frozen=True)
class Row:
    """One run. `recovery_s` is empty when progress did not resume; `violations` when there are none."""

    date: str
    protocol: int
    commit: str
    fault: str
    seed: int
    sent: int
    acknowledged: int
    injected: int
    recovery_s: str
    verdict: str
    violations: str


NAMES = [each.name for each in fields(Row)]
NUMBERS = ("protocol", "seed", "sent", "acknowledged", "injected")


def read(file: Path = FILE) -> list[Row]:
    """Every run in the ledger, the oldest first."""
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return [_row(line) for line in csv.DictReader(lines)]


def _row(line: dict[str, str]) -> Row:
    values: dict[str, Any] = line | {name: int(line[name]) for name in NUMBERS}
    return Row(**values)


def append(row: Row, file: Path = FILE) -> None:
    """Add a run."""
    is_new = not file.exists()
    with file.open("a", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, NAMES, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(asdict(row))


def runs_of(fault: str, rows: Iterable[Row]) -> list[Row]:
    """The runs of a fault under today's protocol."""
    return [row for row in rows if row.fault == fault and row.protocol == PROTOCOL]


def report(rows: Sequence[Row], faults: Iterable[str]) -> list[str]:
    """The table of docs/reliability.md, one line a fault."""
    lines = [
        "| fault | runs | events sent | faults injected | recovery p50 | max | violations |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for fault in faults:
        runs = runs_of(fault, rows)
        if not runs:
            continue
        took = [float(row.recovery_s) for row in runs if row.recovery_s]
        p50, longest = (
            (f"{statistics.median(took):.1f} s", f"{max(took):.1f} s") if took else ("-", "-")
        )
        bad = sum(row.verdict != "ok" for row in runs)
        sent, injected = sum(row.sent for row in runs), sum(row.injected for row in runs)
        lines.append(
            f"| {fault} | {len(runs)} | {sent:,} | {injected:,} | {p50} | {longest} | {bad} |"
        )
    return lines
