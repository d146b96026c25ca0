"""Disks that are full and have room again: the broker's, the append-only file's, ClickHouse's.

Each server's directory is a small file system of its own in memory, whose size is cut to what is
used. Nothing that was acknowledged may be lost, whatever the server does about it: Kafka and Valkey
end at the first write that fails, ClickHouse refuses inserts.
"""

import os
import random
import subprocess
import time
from pathlib import Path

from tests.faults.copies import directory_of, log_lengths, said_since, server
from tests.faults.fault import Fault
from tests.faults.rig import Plan, Rig
from tests.waiting import eventually

ROOMY = "700m"
SERVERS = {"kafka": "the broker", "valkey": "the append-only file", "clickhouse": "ClickHouse"}
LEFT_BYTES = {"kafka": 65_536, "valkey": 65_536, "clickhouse": 500_000}
"""ClickHouse writes nothing without a reserve of a mebibyte. What is cut from under a merge that has
its reserve would be another fault: a disk that shrinks."""


def _mount(directory: Path) -> None:
    for name in SERVERS:
        (directory / name).mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={ROOMY}", "headwater", str(directory / name))


def _unmount(directory: Path) -> None:
    for name in SERVERS:
        if os.path.ismount(directory / name):
            _run("umount", "--lazy", str(directory / name))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def _resize(directory: Path, size: str) -> None:
    _run("mount", "-o", f"remount,size={size}", str(directory))


def _fill(directory: Path, left_bytes: int) -> None:
    """There is room for so much more, and no more."""

    def is_small() -> bool:
        at = os.statvfs(directory)
        used = (at.f_blocks - at.f_bfree) * at.f_frsize
        try:
            _resize(directory, str(used + left_bytes))
        except AssertionError:
            return False  # it grew meanwhile
        return True

    eventually(is_small, within_s=10, every_s=0)


def _room(directory: Path) -> int:
    at = os.statvfs(directory)
    return at.f_bavail * at.f_frsize


SMALL = Plan(prepare=_mount, clean=_unmount)


def _full(name: str) -> Fault:
    def do(rig: Rig, chance: random.Random) -> int:
        directory = directory_of(server(rig, name))
        sink = [rig.roles["accepted-to-clickhouse"]]
        marks = log_lengths(sink)
        _fill(directory, LEFT_BYTES[name])

        def is_felt() -> bool:
            # ClickHouse begins nothing that does not fit, and says so.
            return (
                _room(directory) < 16_384
                or not rig.servers[name].is_alive()
                or (name == "clickhouse" and "store_unavailable" in said_since(sink, marks)[0])
            )

        try:
            eventually(is_felt, within_s=60)
            time.sleep(chance.uniform(2.0, 10.0))
        finally:
            _resize(directory, ROOMY)
        return 1

    needs = ("apache", "mount")
    revision = 2 if name == "kafka" else 1
    return Fault(f"disk full for {SERVERS[name]}", do, plan=SMALL, needs=needs, revision=revision)


FAULTS = [_full(name) for name in SERVERS]
