"""Which faults were survived how often, and what did it cost? One line a run, never changed.

Runs count under the revision of their fault (Fault.revision), which is raised when what it found was
mended, or it hurts otherwise than before. Earlier lines stay, what they found included.
"""

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("ledger.csv")


@dataclass(frozen=True)
class Row:
    """One run. `recovery_s` is empty when progress did not resume; `violations` when there are none."""

    date: str
    revision: int
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
NUMBERS = ("revision", "seed", "sent", "acknowledged", "injected")


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


def runs_of(fault: str, revision: int, rows: Iterable[Row]) -> list[Row]:
    """The runs of a fault as it is today."""
    return [row for row in rows if row.fault == fault and row.revision == revision]


def report(rows: Sequence[Row], revisions: Mapping[str, int]) -> list[str]:
    """The table of docs/reliability.md, one line a fault; of earlier revisions a sentence."""
    lines = [
        "| fault | runs | events sent | faults injected | recovery p50 | max | violations |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    counted: list[Row] = []
    for fault, revision in revisions.items():
        runs = runs_of(fault, revision, rows)
        if not runs:
            continue
        counted += runs
        lines.append(f"| {fault} | {len(runs)} | {_figures(runs)} |")
    lines.append(f"| **all** | {len(counted)} | {_figures(counted)} |")
    earlier = [row for row in rows if row not in counted]
    if earlier:
        bad = sum(row.verdict != "ok" for row in earlier)
        lines += [
            "",
            f"Before faults or what they found were changed: {len(earlier)} more runs, {bad} with "
            "violations; the ledger has them.",
        ]
    return lines


def _figures(runs: Sequence[Row]) -> str:
    took = [float(row.recovery_s) for row in runs if row.recovery_s]
    p50 = f"{statistics.median(took):.1f} s" if took else "-"
    longest = f"{max(took):.1f} s" if took else "-"
    sent, injected = sum(row.sent for row in runs), sum(row.injected for row in runs)
    bad = sum(row.verdict != "ok" for row in runs)
    return f"{sent:,} | {injected:,} | {p50} | {longest} | {bad}"
