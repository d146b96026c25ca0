"""Where does a test get Segment's SDK for Node?"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

_PACKAGE = "@segment/analytics-node@3.1.0"


def install_node_sdk(directory: Path) -> None:
    """The SDK is installed in `directory`; the test is skipped, with the reason, if npm cannot."""
    npm = shutil.which("npm")
    assert npm is not None
    command = [npm, "install", "--no-fund", "--no-audit", "--ignore-scripts", _PACKAGE]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"npm could not install {_PACKAGE}")


def run_node(directory: Path, script: str, *arguments: str) -> None:
    """Run `script` where the SDK is installed. Fails unless it says `sent` and nothing else."""
    node = shutil.which("node")
    assert node is not None
    (directory / "send.js").write_text(script)
    done = subprocess.run(
        [node, "send.js", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "sent"), json.dumps(done.stderr)
