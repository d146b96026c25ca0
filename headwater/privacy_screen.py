"""How do people read the inventory in a terminal? One table a place."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headwater.inventory import Place, unclassed
from runtime.purposes import UNDECLARED, InForce, purposes_in_force
from runtime.settings import Settings


def show_inventory(places: Sequence[Place], settings: Settings, console: Console) -> None:
    """Every place with its fields; then the purposes, and what nothing says the class of."""
    for place in places:
        table = Table(
            "field",
            "class",
            "for",
            "stored",
            title=f"[bold]{place.kind} {escape(place.name)}[/bold]  kept: {escape(place.kept)}",
            title_justify="left",
            box=SIMPLE,
            padding=(0, 1, 0, 0),
        )
        for field in place.fields:
            table.add_row(
                escape(field.name),
                field.data_class or "[red]not said[/red]",
                ", ".join(field.purposes),
                "sealed" if field.is_sealed else "clear",
            )
        console.print(table)
    console.print(_purposes(purposes_in_force(settings)))
    for name in unclassed(places):
        console.print(f"[red]no class:[/red] {escape(name)}")


def _purposes(known: dict[str, InForce]) -> Table:
    table = Table(
        "purpose",
        "legal basis",
        "owner",
        "recipients",
        title="[bold]purposes[/bold]",
        title_justify="left",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for name, found in known.items():
        table.add_row(
            escape(name),
            found.basis or UNDECLARED,
            escape(found.owner) or "-",
            escape(", ".join(found.recipients)) or "-",
        )
    return table
