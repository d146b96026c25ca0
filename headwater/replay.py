"""How does a person see what becomes of a file that they send?

A bar on a terminal, a line for every tenth elsewhere, then how many rows were sent and which could
not be. Stopped in the middle, the same command goes on where it ended: a row that was already
counted does not count again.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from producers.file_to_collected import Progress, Report, load_mapping, replay_file
from runtime.settings import Settings
from schemas.errors import SettingInvalid


def write_key_of(settings: Settings, source: str | None) -> str:
    """The write key of the source of that name; without a name, of the first one.

    Raises SettingInvalid when there is none.
    """
    known = {each.name: each.write_key for each in settings.sources}
    if source is None:
        key = next(iter(known.values()), "") or settings.http.keys.get("write", "")
        if not key:
            raise SettingInvalid("no [[sources]] and no [http.keys] write: nobody may send events")
        return key
    if source not in known:
        raise SettingInvalid(f"--source {source} is not one of: {', '.join(known) or '(none)'}")
    return known[source]


def run_replay(
    file: Path, mapping: Path, *, url: str, write_key: str, console: Console
) -> tuple[Report, float]:
    """Send the file; what became of it, and how many seconds it took. Raises as replay_file."""
    parsed = load_mapping(mapping)
    began_s = time.monotonic()
    with show_progress(console) as on_progress:
        report = replay_file(file, parsed, url, write_key, on_progress=on_progress)
    return report, time.monotonic() - began_s


def print_report(report: Report, took_s: float, console: Console) -> None:
    """Say it for people."""
    rate = report.sent / took_s if took_s else 0
    console.print(f"Sent {report.sent:,} rows in {took_s:.1f} s ({rate:,.0f} a second).")
    if not report.bad:
        return
    console.print(f"[red]{report.bad:,} rows could not be sent:[/red]")
    for number, reason in report.bad_rows:
        console.print(f"  row {number}: {escape(reason)}")
    if report.bad > len(report.bad_rows):
        console.print(f"  and {report.bad - len(report.bad_rows):,} more")


@contextmanager
def show_progress(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Inside, what is given is shown: how far a file has been sent."""
    if console.is_terminal:
        columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        with Bar(*columns, console=console) as bar:
            task = bar.add_task("0 rows", total=1.0)
            yield lambda at: bar.update(
                task, completed=at.fraction, description=f"{at.sent:,} rows"
            )
        return
    tenth = 0

    def on_progress(at: Progress) -> None:
        nonlocal tenth
        if int(at.fraction * 10) > tenth:
            tenth = int(at.fraction * 10)
            console.print(f"{tenth * 10} %: {at.sent:,} rows sent")

    yield on_progress
