"""How does the consent desk work from a terminal?

Every command but the audit asks the running API, as the desk's own tools do: so what is said here
is checked, recorded and in force in the same way. A subject may stand first: `headwater consent
user:42` shows, `headwater consent user:42 set ...` records.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from headwater.caller import Caller, url_of
from headwater.running import chosen_settings, settings_in_force, settings_of_desk
from runtime.settings import Settings

_SUBJECT = re.compile(r"(user|anonymous|email|phone):.")
_BY_SUBJECT = ("show", "set", "link")


class SubjectFirst(TyperGroup):
    """Commands that may be named after the subject, or not at all: then it is shown."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and _SUBJECT.match(args[0]):
            subject, *rest = args
            named = rest[0] if rest and rest[0] in _BY_SUBJECT else None
            args = [named or "show", subject, *(rest[1:] if named else rest)]
        return super().parse_args(ctx, args)


consent_app = typer.Typer(
    cls=SubjectFirst,
    no_args_is_help=True,
    help="What people allowed: show it, record it, prove it.",
    epilog="Example: headwater consent user:42",
)

Subject = Annotated[
    str,
    typer.Argument(help="user:ID, anonymous:ID, email:ADDRESS or phone:NUMBER", show_default=False),
]
Config = Annotated[
    Path | None,
    typer.Option(help="Configuration file; headwater.toml of this directory if there is one."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where embedded servers, made keys and logs live.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]


def desk_of(config: Path | None, data_dir: Path | None) -> tuple[Settings, Caller]:
    """The settings in force, and who asks the running API."""
    settings = settings_of_desk(chosen_settings(config, data_dir=data_dir))
    return settings, Caller(url_of(settings.http), settings.http.keys)


@consent_app.command(epilog="Example: headwater consent show user:42 --json")
def show(
    subject: Subject, as_json: AsJson = False, config: Config = None, data_dir: DataDir = None
) -> None:
    """Every purpose and subscription as of now, and every decision with its proof."""
    _, caller = desk_of(config, data_dir)
    found = caller.get(f"/v1/consents/{quote(subject, safe='')}", "consent_desk")
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_consents(found, Console(highlight=False))


@consent_app.command(
    "set",
    epilog="Example: headwater consent set user:42 --purpose analytics --status withdrawn "
    "--source phone",
)
def set_(
    subject: Subject,
    status: Annotated[
        str,
        typer.Option(
            help="Of a purpose: granted, denied, withdrawn. Else: subscribed, unsubscribed."
        ),
    ],
    purpose: Annotated[str | None, typer.Option(help="Such as analytics.")] = None,
    channel: Annotated[str | None, typer.Option(help="Such as email; with --topic.")] = None,
    topic: Annotated[str | None, typer.Option(help="Such as newsletter, or all.")] = None,
    source: Annotated[str, typer.Option(help="Which form, list or system.")] = "command-line",
    method: Annotated[str | None, typer.Option(help="Proof: form, phone ...")] = None,
    text_version: Annotated[str | None, typer.Option(help="Proof: of the text shown.")] = None,
    language: Annotated[str | None, typer.Option(help="Proof: of the text (BCP 47).")] = None,
    jurisdiction: Annotated[str | None, typer.Option(help="Proof: ISO 3166 code.")] = None,
    age_band: Annotated[str | None, typer.Option(help="Proof: years, such as 13-15.")] = None,
    authorised_by: Annotated[str | None, typer.Option(help="Proof: self or guardian.")] = None,
    valid_from: Annotated[str | None, typer.Option(help="RFC 3339; by default now.")] = None,
    valid_to: Annotated[str | None, typer.Option(help="RFC 3339; by default no end.")] = None,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Record a decision; when this returns, it is in force.

    A yes needs --method and --text-version, and that of a child --authorised-by guardian. A no
    needs neither.
    """
    _, caller = desk_of(config, data_dir)
    proof = {
        "method": method,
        "text_version": text_version,
        "language": language,
        "jurisdiction": jurisdiction,
        "age_band": age_band,
        "authorised_by": authorised_by,
    }
    matter = {"purpose": purpose, "channel": channel, "topic": topic}
    times = {"valid_from": valid_from, "valid_to": valid_to}
    said = {"subject": subject, "status": status, "source": source, **matter, **times}
    body: dict[str, object] = {name: value for name, value in said.items() if value is not None}
    body["proof"] = {name: value for name, value in proof.items() if value is not None}
    found = caller.post("/v1/consents", "consent_desk", body)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif found["changed"]:
        typer.echo(f"In force: {found['status']}, recorded at {found['recorded_at']}.")
    else:
        typer.echo(f"Nothing changed: on record is {found['status']} of {found['recorded_at']}.")


@consent_app.command(epilog="Example: headwater consent link user:42 --channel email --topic news")
def link(
    subject: Subject,
    channel: Annotated[
        str | None, typer.Option(help="To unsubscribe from; without: to the preference page.")
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Of that channel; by default all.")] = None,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """A signed link to the person's preference page, or to unsubscribe. For the person alone."""
    _, caller = desk_of(config, data_dir)
    body: dict[str, object] = {"subject": subject, "kind": "preferences"}
    if channel is not None or topic is not None:
        wanted = {"kind": "unsubscribe", "channel": channel, "topic": topic}
        body |= {name: value for name, value in wanted.items() if value is not None}
    found = caller.post("/v1/consents/links", "consent_desk", body)
    typer.echo(json.dumps(found, indent=2) if as_json else found["url"])


@consent_app.command(epilog="Example: headwater consent audit --json")
def audit(as_json: AsJson = False, config: Config = None, data_dir: DataDir = None) -> None:
    """Chain the whole log again and compare it with every head that was kept or signed."""
    from headwater.consent_audit import audit_consents

    found = audit_consents(settings_in_force(chosen_settings(config, data_dir=data_dir)))
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=2))
    else:
        for line in found.lines():
            typer.echo(line)
    if found.differences:
        raise typer.Exit(1)


@consent_app.command(
    "import",
    epilog="Example: headwater consent import list.csv --set source=Vendor --set channel=email",
)
def import_(
    file: Annotated[Path, typer.Argument(help="CSV or JSONL file.", show_default=False)],
    common: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE of every row that does not say otherwise."),
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Record a list of decisions; a row without source, time, method and text_version is refused.

    Importing it again changes nothing, and no row undoes what is known to be later. Columns:
    subject (or email, user_id), purpose or channel and topic, status, time, source, method,
    text_version; and valid_to, text_hash, language, jurisdiction, age_band, authorised_by.
    """
    from headwater.consent_import import import_consents
    from headwater.replay import show_progress

    given = dict(text.partition("=")[::2] for text in common or ())
    _, caller = desk_of(config, data_dir)
    console = Console(highlight=False, stderr=as_json)
    with show_progress(console) as on_progress:
        done = import_consents(file, caller, given, on_progress)
    if as_json:
        typer.echo(json.dumps(done.to_json(), indent=2))
    else:
        done.print(console)
    if done.refused:
        raise typer.Exit(1)


@consent_app.command(epilog="Example: headwater consent rebuild")
def rebuild(as_json: AsJson = False, config: Config = None, data_dir: DataDir = None) -> None:
    """After the vault was restored from a backup: put in force again what the log knows."""
    from headwater.consent_rebuild import rebuild_overlay

    count = rebuild_overlay(settings_in_force(chosen_settings(config, data_dir=data_dir)))
    if as_json:
        typer.echo(json.dumps({"records": count}))
    else:
        typer.echo(f"{count:,} records read; what they decided is in force.")


def print_consents(found: Mapping[str, Any], console: Console) -> None:
    """Say it for people."""
    now = Table("purpose or subscription", "allowed", "status", "since", "until", box=None)
    for each in (*found["purposes"], *found["subscriptions"]):
        allowed = "[green]yes[/green]" if each["allowed"] else "[red]no[/red]"
        now.add_row(
            _matter(each), allowed, each["status"], each["since"] or "-", each["until"] or "-"
        )
    console.print(now)
    if not found["history"]:
        console.print("Nothing was ever decided; purposes follow their legal basis.")
        return
    console.print()
    history = Table("recorded", "purpose or subscription", "status", "source", "proof", box=None)
    for each in found["history"]:
        proof = ", ".join(str(value) for value in each["proof"].values() if value)
        row = (each["recorded_at"], _matter(each), each["status"], each["source"], proof or "none")
        history.add_row(*row)
    console.print(history)


def _matter(each: Mapping[str, Any]) -> str:
    return each["purpose"] if "purpose" in each else f"{each['channel']}/{each['topic']}"
