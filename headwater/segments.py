"""How are segments listed, tried and applied from a terminal?

Definitions are read and checked here, where their file is and its lines can be told; how many would
be members is counted by the running API, which has the profiles.
"""

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from headwater.caller import Caller, url_of
from headwater.running import chosen_settings, settings_in_force, settings_of_desk
from runtime.segment_settings import read_segments
from runtime.settings import Settings
from schemas.errors import SettingInvalid
from schemas.segments import MOST_DEPTH, Segment
from schemas.toml_lines import lines_of

segments_app = typer.Typer(
    no_args_is_help=True,
    help="Who belongs together: list, try and apply segments.",
    epilog="Example: headwater segments preview segments.toml",
)
Config = Annotated[
    Path | None,
    typer.Option(help="Configuration file; headwater.toml of this directory if there is one."),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Where embedded servers, made keys and logs live.", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
File = Annotated[Path, typer.Argument(help="TOML file with [[segments]].", show_default=False)]


def segments_of_file(file: Path, settings: Settings) -> tuple[Segment, ...]:
    """The segments that `file` defines. Raises SettingInvalid with the line of each fault."""
    try:
        text = file.read_text("utf-8")
        values = tomllib.loads(text)
    except OSError as error:
        raise SettingInvalid(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise SettingInvalid(f"{file} is not valid TOML: {error}") from error
    except RecursionError:
        expected = f"expected at most {MOST_DEPTH} conditions within each other"
        raise SettingInvalid(f"{file}: {expected}, there are hundreds") from None
    if set(values) != {"segments"}:
        raise SettingInvalid(f"{file}: expected [[segments]] and nothing else")
    return read_segments(
        values["segments"], settings.segment_names, where=str(file), lines=lines_of(text)
    )


@segments_app.command("list", epilog="Example: headwater segments list --json")
def list_(as_json: AsJson = False, config: Config = None, data_dir: DataDir = None) -> None:
    """Every segment, how many people are in it, and since which version."""
    _, caller = _asking(config, data_dir)
    found: Any = caller.get("/v1/segments", "activation")
    _tell(found, as_json, f"Version {found['version']}", "size")


@segments_app.command(epilog="Example: headwater segments preview segments.toml")
def preview(
    file: File, as_json: AsJson = False, config: Config = None, data_dir: DataDir = None
) -> None:
    """Count who would be in each segment of FILE now; nothing changes."""
    settings, caller = _asking(config, data_dir)
    segments = [segment.to_json() for segment in segments_of_file(file, settings)]
    found: Any = caller.post("/v1/segments/preview", "activation", {"segments": segments})
    _tell(found, as_json, f"Of {found['people']} people", "members")


@segments_app.command(epilog="Example: headwater segments apply segments.toml")
def apply(
    file: File, as_json: AsJson = False, config: Config = None, data_dir: DataDir = None
) -> None:
    """The segments of FILE take the place of all others; running workers switch to them."""
    from runtime.segment_log import apply_segments

    settings = settings_in_force(chosen_settings(config, data_dir=data_dir))
    segments = segments_of_file(file, settings)
    defined = apply_segments(settings, segments)
    if as_json:
        typer.echo(json.dumps({"version": defined and defined.version, "segments": len(segments)}))
    elif defined is None:
        typer.echo("Nothing to do: these are in force already.")
    else:
        typer.echo(f"Version {defined.version}: {len(segments)} segments; workers switch now.")


def _asking(config: Path | None, data_dir: Path | None) -> tuple[Settings, Caller]:
    settings = settings_of_desk(chosen_settings(config, data_dir=data_dir), "activation")
    return settings, Caller(url_of(settings.http), settings.http.keys)


def _tell(found: Mapping[str, Any], as_json: bool, head: str, counted: str) -> None:
    """The segments of an answer, for people with the number that they have under `counted`."""
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    table = Table("segment", counted, "name")
    for segment in found["segments"]:
        table.add_row(segment["id"], str(segment[counted]), segment["name"])
    console = Console(highlight=False)
    console.print(f"{head}, as of {found['as_of']}")
    console.print(table)


def apply_configured(settings: Settings, say: Callable[[str], None]) -> None:
    """The segments of the configuration are in force, where it defines any."""
    from runtime.segment_log import apply_segments

    if not settings.segments:
        return  # what was applied from a file stays
    segments = read_segments(settings.segments, settings.segment_names, where="[[segments]]")
    defined = apply_segments(settings, segments)
    if defined is not None:
        say(f"Segments: version {defined.version}, {len(segments)} of the configuration.")
