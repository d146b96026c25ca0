"""What does a person see of the demo: a bar, campaigns in a table?"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


def open_console() -> Console:
    """Standard output, with colours and bars where a person looks at it."""
    console = Console(soft_wrap=False, highlight=False)
    # A file or a pipe has no width: lines there are not to be broken at 80.
    return console if console.is_terminal else Console(width=140, highlight=False, soft_wrap=True)


@contextmanager
def show_calls(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal, a line for every fifth elsewhere."""
    if console.is_terminal:
        columns = (TextColumn("Shop"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("Shop", total=total)
            yield lambda calls: bar.advance(task, calls)
        return
    sent = 0

    def on_progress(calls: int) -> None:
        nonlocal sent
        fifth = sent * 5 // total
        sent += calls
        if sent * 5 // total > fifth:
            console.print(f"Shop: {sent:,} of {total:,} calls sent")

    yield on_progress


def campaign_table(answer: dict[str, object], width: int) -> Table:
    """The campaigns as people read them, in `width` characters."""
    shown = {
        "sent": "sent",
        "delivered": "delivered",
        "opened": "unique_opened",
        "clicked": "unique_clicked",
        "visits": "visits",
        "orders": "orders",
        "buyers": "buyers",
    }
    campaigns = answer["campaigns"]
    assert isinstance(campaigns, list)
    currencies = sorted({part["currency"] for each in campaigns for part in each["revenue"]})
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("campaign", no_wrap=True)
    # A narrow terminal shows one currency; the page shows all.
    for title in (*shown, *currencies[: len(currencies) if width >= 105 else 1]):
        table.add_column(title, justify="right", no_wrap=True)
    for campaign in campaigns:
        counters = campaign["counters"]
        revenue = {part["currency"]: Decimal(part["amount"]) for part in campaign["revenue"]}
        cells = [f"{counters.get(name, 0):,}" for name in shown.values()]
        cells += [f"{revenue.get(currency, Decimal(0)):,.0f}" for currency in currencies]
        name = escape(str(campaign["campaign_id"]))
        table.add_row(name, *cells[: len(table.columns) - 1])
    return table
