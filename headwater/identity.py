"""How does a privacy officer see in a terminal who a person is known as, and correct it?

Asks the running API, so what is said here is on the log and known to everybody like any claim.
"""

from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import quote

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from headwater.caller import Caller, url_of
from runtime.settings import Role, Settings

ROLE: Role = "privacy_officer"


def ask_identity(
    settings: Settings, subject: str, *, link: str | None, revoke: str | None
) -> dict[str, Any]:
    """Who the person is known as, once what is to be linked and revoked is. `decisions` are those.

    Raises StoreRefused when the API refuses, StoreUnavailable while it cannot be reached.
    """
    caller = Caller(url_of(settings.http), settings.http.keys)
    try:
        decisions = [
            caller.post(
                "/v1/identities/links", ROLE, {"subject": subject, "of": other, "action": action}
            )
            for action, other in (("link", link), ("revoke", revoke))
            if other is not None
        ]
        found = caller.get(f"/v1/identities/{quote(subject, safe='')}", ROLE)
    finally:
        caller.close()
    return {**found, "decisions": decisions}


def show_identity(found: dict[str, Any], console: Console) -> None:
    """Decisions that were just taken, identifiers, and every claim by what became of it."""
    for each in found["decisions"]:
        is_one = "one person" if each["one_person"] else "two persons"
        said = f"{each['subject']} and {each['of']} are {is_one} from {each['recorded_at']}"
        console.print(escape(said))
        if each["action"] == "revoke" and each["one_person"]:
            console.print("They are still one through another identifier: see who claims whom.")
    console.print(escape(f"{found['subject']} is one person with {found['stands_for']}"))
    known = _table("known as", "identifier", "belongs to")
    for each in found["identifiers"]:
        known.add_row(escape(f"{each['type']}:{each['value']}"), escape(each["claimed_by"] or "-"))
    console.print(known)
    for name in ("standing", "refused", "revoked"):
        claims = cast("Sequence[dict[str, Any]]", found[name])
        if claims:
            table = _table(f"{name} claims", "identifier", "of", "by", "when")
            for each in claims:
                told = (each["identifier"], each["of"], each["cause"], str(each["at"]))
                table.add_row(*map(escape, told))
            console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
