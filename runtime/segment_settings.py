"""How are definitions of segments read from a file, and what is said of one that is wrong?

They stand as `[[segments]]` in headwater.toml or in a file of their own, and what they may name
depends on the rest of the configuration: purposes, clear traits, how long activity is kept.
"""

from collections.abc import Mapping

from schemas.errors import SettingInvalid
from schemas.segments import Known, Segment, SegmentsInvalid, parse_segments
from schemas.toml_lines import Path, line_at

MOST_TOLD = 10


def read_segments(
    definitions: object,
    known: Known,
    *,
    where: str,
    lines: Mapping[Path, int] | None = None,
) -> tuple[Segment, ...]:
    """The segments in `definitions`, the value of `segments` in the file `where`.

    Raises SettingInvalid: each fault with its line (by `lines`, schemas/toml_lines.py), its place
    and what was expected there.
    """
    try:
        return parse_segments(definitions, known)
    except SegmentsInvalid as error:
        told = []
        for fault in error.faults[:MOST_TOLD]:
            line = line_at(dict(lines or {}), ("segments", *fault.path))
            told.append(f"{where}{'' if line is None else f':{line}'}: {fault.said()}")
        more = len(error.faults) - MOST_TOLD
        if more > 0:
            told.append(f"and {more} more")
        raise SettingInvalid("\n".join(told)) from None
