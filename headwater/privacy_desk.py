"""What can a privacy officer ask for on the command line?

What is held of people, everything that is held on one of them, by what else that one is known, and
that it be forgotten.
"""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from headwater.running import chosen_settings, settings_in_force, settings_of_desk
from schemas.errors import SettingInvalid

Config = Annotated[
    Path | None,
    typer.Option(help="Configuration file; headwater.toml of this directory if there is one."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where embedded servers, made keys and logs live.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]

desk = typer.Typer()


def add_commands(app: typer.Typer) -> None:
    """`app` has the commands of this module beside its own."""
    app.add_typer(desk)


@desk.command(epilog="Example: headwater export user:42 --format html --output user-42.html")
def export(
    subject: Annotated[
        str,
        typer.Argument(
            help="user:ID, anonymous:ID, email:ADDRESS or phone:NUMBER", show_default=False
        ),
    ],
    form: Annotated[
        str, typer.Option("--format", help="json for programs, html for the person.")
    ] = "json",
    output: Annotated[
        Path | None, typer.Option(help="File; by default standard output.", show_default=False)
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Write down everything that is held on one person: values, sources, uses, and until when."""
    from headwater.export import export_subject

    settings = settings_of_desk(chosen_settings(config, data_dir=data_dir), "privacy_officer")
    size = export_subject(settings, subject, form, output)
    if output is not None:
        line = f"{size:,} bytes in {output}"
        Console(soft_wrap=True, highlight=False).print(escape(line))


@desk.command(epilog="Example: headwater inventory --json")
def inventory(as_json: AsJson = False, config: Config = None, data_dir: DataDir = None) -> None:
    """Show every field held of people: class, purpose, legal basis, how long and where it is kept.

    Exit code 1 when nothing says of some field what it holds.
    """
    from headwater.inventory import take_inventory, to_json, unclassed
    from headwater.privacy_screen import show_inventory
    from headwater.screen import open_console

    settings = settings_in_force(chosen_settings(config, data_dir=data_dir))
    places = take_inventory(settings)
    if as_json:
        typer.echo(json.dumps(to_json(places, settings), indent=2))
    else:
        show_inventory(places, settings, open_console())
    if unclassed(places):
        raise typer.Exit(1)


@desk.command(
    epilog="Example: headwater incident --from 2026-01-31T12:00:00Z --to 2026-01-31T14:30:00Z "
    "--source shop-web --field traits.email"
)
def incident(
    from_: Annotated[str, typer.Option("--from", help="RFC 3339, inclusive.", show_default=False)],
    to: Annotated[str, typer.Option("--to", help="RFC 3339, exclusive.", show_default=False)],
    field: Annotated[
        str | None, typer.Option(help="Of the inventory, such as order_id; or traits.NAME.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Events of this source only.")] = None,
    identify: Annotated[
        bool, typer.Option("--identify", help="Show identifiers; that is written down.")
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Tell whom and what an incident touched, and who read it: for the notice within 72 hours."""
    from headwater.incident import Asked, find_scope, read_window, require_source
    from headwater.inventory import take_inventory
    from headwater.privacy_screen import show_scope
    from headwater.screen import open_console
    from runtime.clock import real_ms

    window = read_window(from_, to)
    settings = settings_in_force(chosen_settings(config, data_dir=data_dir))
    if source is not None:
        require_source(source, settings)
    asked = Asked(*window, source or "", field or "")
    places = take_inventory(settings)
    scope = find_scope(settings, asked, places, identify=identify, now_ms=real_ms())
    if as_json:
        typer.echo(json.dumps(scope.to_json(), indent=2))
    else:
        show_scope(scope, open_console())


@desk.command(epilog="Example: headwater identity anonymous:a1 --revoke user:42")
def identity(
    subject: Annotated[
        str,
        typer.Argument(
            help="user:ID, anonymous:ID, email:ADDRESS or phone:NUMBER", show_default=False
        ),
    ],
    link: Annotated[
        str | None,
        typer.Option(help="Say by hand that OTHER is the same person.", show_default=False),
    ] = None,
    revoke: Annotated[
        str | None,
        typer.Option(help="Say by hand that OTHER is somebody else.", show_default=False),
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Show by which identifiers a person is known and who said so; link two, or take that back."""
    from headwater.identity import ask_identity, show_identity
    from headwater.screen import open_console

    settings = settings_of_desk(chosen_settings(config, data_dir=data_dir), "privacy_officer")
    found = ask_identity(settings, subject, link=link, revoke=revoke)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        show_identity(found, open_console())


@desk.command(epilog="Example: headwater erase user:42 --reason withdrawn")
def erase(
    subject: Annotated[
        str | None,
        typer.Argument(
            help="user:ID, anonymous:ID, email:ADDRESS or phone:NUMBER.", show_default=False
        ),
    ] = None,
    reason: Annotated[
        str,
        typer.Option(
            help="Ground (GDPR Art. 17): withdrawn, objected, unlawful, no_longer_needed, other."
        ),
    ] = "other",
    verify_id: Annotated[
        str | None,
        typer.Option(
            "--verify",
            help="Instead: check the certificate of this erasure and look into every store again.",
            show_default=False,
        ),
    ] = None,
    within: Annotated[
        float, typer.Option(min=0, help="Seconds to wait until every store has been looked into.")
    ] = 120.0,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Forget a person in every store, and prove it."""
    from headwater.erase import run_erase, run_verify

    if (subject is None) == (verify_id is None):
        raise SettingInvalid("name a SUBJECT to forget, or an erasure with --verify")
    chosen = chosen_settings(config, data_dir=data_dir)
    say = (lambda _: None) if as_json else _say
    if verify_id is not None:
        answer = run_verify(settings_in_force(chosen), verify_id, say=say)
    else:
        settings = settings_of_desk(chosen, "privacy_officer")
        answer = run_erase(settings, subject or "", reason, within_s=within, say=say)
    if as_json:
        typer.echo(json.dumps(answer.as_json(), indent=2))
    if not answer.is_well:
        raise typer.Exit(1)


def _say(line: str) -> None:
    Console(soft_wrap=True, highlight=False).print(escape(line))
