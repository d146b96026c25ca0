"""Where is a figure kept, and with what beside it? One row of results.csv a run, never changed."""

import csv
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
RESULTS = HERE / "bench" / "results.csv"
HEADINGS = (
    "date",
    "commit",
    "machine",
    "what",
    "events_per_s_min",
    "events_per_s_median",
    "events_per_s_max",
    "events_per_cpu_s_min",
    "events_per_cpu_s_median",
    "events_per_cpu_s_max",
    "latency_ms_p50",
    "latency_ms_p99",
    "latency_ms_max",
)
NOT_MEASURED = ("", "", "")


def record(
    what: str,
    *,
    per_wall_s: Sequence[float] = (),
    per_cpu_s: Sequence[float] = (),
    latencies_ms: Sequence[float] = (),
    checkout: Path = HERE,
) -> None:
    """A row of what was measured of `checkout`: rates of its rounds, latencies of its requests."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=checkout,
    ).stdout.strip()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    is_new = not RESULTS.exists()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        if is_new:
            rows.writerow(HEADINGS)
        today = datetime.now(UTC).date().isoformat()
        measured = (*_spread(per_wall_s), *_spread(per_cpu_s), *percentiles(latencies_ms))
        rows.writerow([today, commit, machine, what, *measured])


def percentiles(latencies_ms: Sequence[float]) -> tuple[str, str, str]:
    """Median, 99th percentile (nearest rank) and maximum, in ms."""
    if not latencies_ms:
        return NOT_MEASURED
    ordered = sorted(latencies_ms)
    p99 = ordered[-(-99 * len(ordered) // 100) - 1]
    return f"{statistics.median(ordered):.0f}", f"{p99:.0f}", f"{ordered[-1]:.0f}"


def _spread(values: Sequence[float]) -> tuple[str, str, str]:
    if not values:
        return NOT_MEASURED
    return f"{min(values):.0f}", f"{statistics.median(values):.0f}", f"{max(values):.0f}"
