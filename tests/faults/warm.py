"""How does a process of the models begin without importing what others wrote?

Of the second and a half that one takes to begin, most goes to libraries that no mutant changes. So
one process imports these, and nothing of ours, and every run is a fork of it: on any tree, and as
separate from other runs as a process of its own.
"""

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn


class Warm:
    """Runs modules of the tree at `root`, which may change between runs."""

    def __init__(self, root: Path, like: str) -> None:
        """`like` is a module of the tree: what it imports from elsewhere is imported already."""
        self._said = root / "said"
        self._process = subprocess.Popen(
            # -P: the directory of this file is not where modules are looked for.
            [sys.executable, "-P", __file__, str(root), like],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, module: str, *arguments: str, within_s: int) -> tuple[int, str]:
        """As `python -m module` with these arguments: the exit code, and what it said."""
        order = {"argv": [module, *arguments], "within_s": within_s, "said": str(self._said)}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        return code, self._said.read_text("utf-8", "replace")

    def close(self) -> None:
        """It has ended."""
        self._process.communicate()


def _serve(root: str, like: str) -> None:
    """Run what the lines of stdin ask for, one after the other."""
    for name in _imported_with(like, root):
        # A few names are made by the module that they seem to be in.
        with suppress(ImportError):
            importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        status = _forked(lambda order=order: _run(**order))  # type: ignore[misc]
        print(os.waitstatus_to_exitcode(status), flush=True)


def _imported_with(like: str, root: str) -> list[str]:
    """The modules that are not under `root` and come with importing `like`, found out by a fork."""
    ours, theirs = os.pipe()

    def look() -> int:
        importlib.import_module(like)
        named = [(name, getattr(found, "__file__", None)) for name, found in sys.modules.items()]
        names = [name for name, file in named if file and not file.startswith(root)]
        with os.fdopen(theirs, "w") as told:
            json.dump(names, told)
        return 0

    status = _forked(look, wait=False)
    os.close(theirs)
    with os.fdopen(ours) as told:
        text = told.read()
    os.waitpid(status, 0)
    return list(json.loads(text))


def _forked(work: Callable[[], int], *, wait: bool = True) -> int:
    """Have a fork of this process do `work`; its status at the end, or its id at once."""
    pid = os.fork()
    if pid == 0:
        _end_with(work)
    return os.waitpid(pid, 0)[1] if wait else pid


def _end_with(work: Callable[[], int]) -> NoReturn:
    code = 1
    try:
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(argv: Sequence[str], within_s: int, said: str) -> int:
    signal.alarm(within_s)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv[:] = argv
    try:
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    _serve(*sys.argv[1:])
