"""How is a server's directory copied, lost and brought back, as an operator would do it?

The server is ended first and held down: a copy of a directory that is written to is no copy.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.faults.parts import Part, ServerPart
from tests.faults.rig import Rig
from tests.waiting import eventually


@contextmanager
def held_down(*parts: Part, how: str = "kill") -> Iterator[None]:
    """The parts have ended inside, and may start again afterwards."""
    for part in parts:
        part.is_held_down = True
    try:
        for part in parts:
            part.kill() if how == "kill" else part.terminate()
        for part in parts:
            eventually(lambda ending=part: not ending.is_alive(), within_s=60)  # type: ignore[misc]
        yield
    finally:
        for part in parts:
            part.is_held_down = False


def server(rig: Rig, name: str) -> ServerPart:
    """The server `name` of a rig."""
    found = rig.servers[name]
    assert isinstance(found, ServerPart)
    return found


def directory_of(part: ServerPart) -> Path:
    """Where its files are."""
    return part.server.directory


def copy(part: ServerPart, to: Path) -> None:
    """`to` holds what the directory of the ended server holds; links stay links."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(directory_of(part), to, symlinks=True)


def empty(part: ServerPart) -> None:
    """The directory of the ended server has nothing in it."""
    for found in directory_of(part).iterdir():
        shutil.rmtree(found) if found.is_dir() and not found.is_symlink() else found.unlink()


def restore(part: ServerPart, copied: Path) -> None:
    """The directory of the ended server holds what `copied` holds, and nothing else."""
    empty(part)
    shutil.copytree(copied, directory_of(part), symlinks=True, dirs_exist_ok=True)


def said_since(parts: Sequence[Part], marks: Sequence[int]) -> list[str]:
    """What each part wrote to its log since `marks`, the lengths of the logs then."""
    texts = []
    for part, mark in zip(parts, marks, strict=True):
        with part.log_file.open("rb") as log:
            log.seek(mark)
            texts.append(log.read().decode(errors="replace"))
    return texts


def log_lengths(parts: Sequence[Part]) -> list[int]:
    """How long the log of each part is."""
    return [part.log_file.stat().st_size if part.log_file.exists() else 0 for part in parts]
