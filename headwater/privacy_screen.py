"""How do people read the inventory, and the scope of an incident, in a terminal?"""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headwater.incident import Scope
from headwater.inventory import Place, unclassed
from runtime.purposes import UNDECLARED, InForce, purposes_in_force
from runtime.settings import Settings

LISTED = 50
"""People who are shown one by one."""


def show_inventory(places: Sequence[Place], settings: Settings, console: Console) -> None:
    """Every place with its fields; then the purposes, and what nothing says the class of."""
    for place in places:
        title = f"{place.kind} {escape(place.name)}[/bold]  kept: {escape(place.kept)}[bold]"
        table = _table(title, "field", "class", "for", "stored")
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
    table = _table("purposes", "purpose", "legal basis", "owner", "recipients")
    for name, found in known.items():
        table.add_row(
            escape(name),
            found.basis or UNDECLARED,
            escape(found.owner) or "-",
            escape(", ".join(found.recipients)) or "-",
        )
    return table


def show_scope(scope: Scope, console: Console) -> None:
    """Whom and what an incident touched: counts, who read, fields, the first people."""
    console.print(f"[bold]{len(scope.subjects)} people, {scope.events} events[/bold]")
    if scope.read_by:
        readers = _table("who read", "role", "what", "reads", "people", "first", "last")
        for each in scope.read_by:
            counts = (str(each.reads), str(each.subjects))
            readers.add_row(escape(each.role), each.kind, *counts, each.first_at, each.last_at)
        console.print(readers)
    fields = _table("fields concerned", "place", "field", "class", "stored")
    for field in scope.fields:
        stored = "sealed" if field.is_sealed else "clear"
        fields.add_row(escape(field.place), escape(field.field), field.data_class, stored)
    console.print(fields)
    people = _table("people", "pid", "events", "reads", "identifier")
    for person in scope.subjects[:LISTED]:
        identifier = escape(person.identifier or "-")
        people.add_row(person.pid, str(person.events), str(person.reads), identifier)
    console.print(people)
    if len(scope.subjects) > LISTED:
        console.print(f"... and {len(scope.subjects) - LISTED} more: --json has all of them")
    for note in scope.notes:
        console.print(f"Note: {escape(note)}.")


def _table(title: str, *columns: str) -> Table:
    return Table(
        *columns,
        title=f"[bold]{title}[/bold]",
        title_justify="left",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
