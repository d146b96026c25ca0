"""What can be asked of Headwater on the command line?

Commands parse, call and print; what they do is in the module beside them. Exit codes: 0 done,
1 failed, 2 wrong use or configuration. Everything else is imported within a command: a role does
not wait for what it does not use.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from headwater.consent import consent_app
from headwater.privacy_desk import add_commands
from headwater.running import chosen_settings, settings_in_force, settings_of_sender
from headwater.segments import segments_app
from schemas.errors import SettingInvalid, StreamError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Real-time customer data platform: exact campaign counters from a stream of events.",
    epilog="Example: headwater demo --events 20000",
)
schemas_app = typer.Typer(
    no_args_is_help=True,
    help="What travels in the topics.",
    epilog="Example: headwater schemas check",
)
add_commands(app)
app.add_typer(schemas_app, name="schemas")
app.add_typer(consent_app, name="consent")
app.add_typer(segments_app, name="segments")

Config = Annotated[
    Path | None,
    typer.Option(help="Configuration file; headwater.toml of this directory if there is one."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where embedded servers, made keys and logs live.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]


def main() -> None:
    """Run the command of this process's arguments and leave with its exit code."""
    try:
        app(prog_name="headwater")
    except SettingInvalid as error:
        _complain(error)
        sys.exit(2)
    except StreamError as error:
        _complain(error)
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing is left to say, nor where to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _complain(error: Exception) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"[red]headwater:[/red] {escape(str(error))}"
    )


def _say(line: str) -> None:
    Console(soft_wrap=True, highlight=False).print(escape(line))


def _print_json(answer: object) -> None:
    typer.echo(json.dumps(answer, indent=2))


@app.command(epilog="Example: headwater demo --events 20000 --seed 7")
def demo(
    events: Annotated[
        int | None,
        typer.Option(min=1, help="Send so many calls, compare and end. Without: until Ctrl-C."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Calls a second; by default 50 without --events.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed makes other customers.")] = 1,
    fast_clock: Annotated[
        bool,
        typer.Option("--fast-clock", help="Four days of carts left behind in a minute or two."),
    ] = False,
    port: Annotated[
        int | None, typer.Option(help="Port of the page and API; 0 for any free one.")
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Start everything, send a synthetic shop's traffic, compare every counter with its ledger."""
    from headwater.demo import run_demo
    from headwater.fast_demo import run_fast_demo

    settings = chosen_settings(config, data_dir=data_dir, port=port)
    if fast_clock:
        if rate is not None:
            raise SettingInvalid("--rate: expected none with --fast-clock, whose clock is its pace")
        if not run_fast_demo(settings, events=events, seed=seed):
            raise typer.Exit(1)
    elif not run_demo(settings, events=events, rate_per_s=rate, seed=seed):
        raise typer.Exit(1)


@app.command(epilog="Example: headwater up --data-dir /srv/headwater --port 8080")
def up(
    data_dir: DataDir = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the page and API; 0 for any free one.")
    ] = None,
    config: Config = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(help="Write url, process_id and keys (JSON) here once all is ready."),
    ] = None,
) -> None:
    """Run every role, and every server that the configuration does not name, until Ctrl-C."""
    from headwater.up import run_up

    run_up(chosen_settings(config, data_dir=data_dir, port=port), ready_file=ready_file, say=_say)


@app.command(epilog="Example: headwater run streams subjects-to-redis --config headwater.toml")
def run(
    roles: Annotated[
        list[str],
        typer.Argument(
            help="collector, api, streams, subjects-to-redis, accepted-to-clickhouse, reconciler, "
            "erasure, automation.",
            show_default=False,
        ),
    ],
    config: Config = None,
    data_dir: DataDir = None,
    settings: Annotated[Path | None, typer.Option(hidden=True)] = None,
    ready_file: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run chosen roles until SIGTERM; whoever started them restarts them."""
    from headwater.roles import plan_processes, run_process, run_side_by_side
    from runtime.settings import load_settings

    plan = plan_processes(roles)
    if settings is not None:
        # Written by our supervisor with the environment already in it.
        in_force = load_settings(settings, {})
    else:
        in_force = settings_in_force(chosen_settings(config, data_dir=data_dir))
    if len(plan) > 1:
        options = [("--config", config), ("--data-dir", data_dir), ("--settings", settings)]
        given = [text for name, path in options if path for text in (name, str(path))]
        raise typer.Exit(run_side_by_side(roles, given, metrics_port=in_force.metrics.port))

    def say_ready() -> None:
        if ready_file is not None:
            ready_file.write_text(f"{os.getpid()}\n", "utf-8")

    is_supervised = ready_file is not None
    metrics_file = ready_file.with_suffix(".metrics") if ready_file is not None else None
    ((name, together),) = plan.items()
    run_process(
        name, together, in_force, say_ready, metrics_file=metrics_file, is_supervised=is_supervised
    )


@app.command(epilog="Example: headwater replay orders.csv --mapping orders.mapping.toml")
def replay(
    file: Annotated[Path, typer.Argument(help="CSV, JSONL or Parquet file.", show_default=False)],
    mapping: Annotated[
        Path, typer.Option(help="TOML file that says what its columns mean.", show_default=False)
    ],
    source: Annotated[
        str | None, typer.Option(help="Name of the source that sends; by default the first one.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Of the collector; by default the configured or running one.")
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Send a file through the collector. Sending it again within 72 hours changes nothing."""
    from headwater.caller import url_of
    from headwater.replay import print_report, run_replay, write_key_of

    settings = settings_of_sender(chosen_settings(config, data_dir=data_dir))
    key = write_key_of(settings, source)
    console = Console(highlight=False, stderr=as_json)
    report, took_s = run_replay(
        file, mapping, url=url or url_of(settings.http), write_key=key, console=console
    )
    if as_json:
        _print_json({"sent": report.sent, "bad": report.bad, "bad_rows": report.bad_rows})
    else:
        print_report(report, took_s, console)
    if report.bad:
        raise typer.Exit(1)


@app.command(epilog="Example: headwater verify --watch --every 60")
def verify(
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until Ctrl-C; one line a change of the verdict.")
    ] = False,
    every: Annotated[
        float | None,
        typer.Option(
            min=0.1, help="With --watch: seconds between two looks; by default as configured."
        ),
    ] = None,
    as_json: AsJson = False,
    config: Config = None,
    data_dir: DataDir = None,
) -> None:
    """Count everything again from the facts, and compare with the live counters."""
    from headwater.verify import verify as recount

    settings = settings_in_force(chosen_settings(config, data_dir=data_dir))
    if watch:
        from headwater.reconcile import watch_verdicts

        watch_verdicts(settings, every_s=every, say=_say, as_json=as_json)
        return
    verdict = recount(settings)
    if as_json:
        _print_json(verdict.to_json())
    else:
        for line in verdict.lines():
            _say(line)
    if not verdict.is_verified:
        raise typer.Exit(1)


@app.command(epilog="Example: headwater doctor")
def doctor(as_json: AsJson = False, config: Config = None, data_dir: DataDir = None) -> None:
    """Check the configuration and every server, one line each, with what to do."""
    from headwater.doctor import examine

    checks = examine(config, data_dir)
    if as_json:
        _print_json([check.as_json() for check in checks])
    else:
        for check in checks:
            mark = "[green]ok[/green]  " if check.is_well else "[red]fail[/red]"
            Console(soft_wrap=True, highlight=False).print(
                f"{mark} {check.name:<13} {escape(check.text)}"
            )
    if not all(check.is_well for check in checks):
        raise typer.Exit(1)


@app.command(epilog="Example: headwater topics")
def topics(as_json: AsJson = False, config: Config = None, data_dir: DataDir = None) -> None:
    """Create topics and tables where they are missing, and check those that are there."""
    from headwater.roles import prepare_stores

    settings = settings_in_force(chosen_settings(config, data_dir=data_dir))
    made = prepare_stores(settings)
    names = [topic.name for topic in settings.topic_names.all()]
    if as_json:
        _print_json({"topics": names, "made": made})
        return
    for line in made:
        _say(f"made {line}")
    _say(f"{len(names)} topics with {settings.kafka.partitions} partitions: {', '.join(names)}")


@schemas_app.command(epilog="Example: headwater schemas check --json")
def check(as_json: AsJson = False) -> None:
    """Refuse a schema that would make an old log unreadable."""
    from schemas.codec import VERSIONS
    from schemas.compatibility import check_schemas

    problems = check_schemas()
    if as_json:
        _print_json({"schemas": len(VERSIONS), "problems": problems})
    else:
        for line in problems or [f"{len(VERSIONS)} schemas: compatible with every earlier version"]:
            _say(line)
    if problems:
        raise typer.Exit(1)
