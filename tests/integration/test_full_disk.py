"""Does ClickHouse's engine say so when an insert does not fit on its disk?

chDB's own call for inserts answers how many rows it wrote although there are none: what the sink
took for written would be lost. Needs root, for a small file system in memory.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError

from runtime.embedded import EmbeddedStack, Wanted

ROOMY, LEFT_BYTES = "200m", 500_000
"""The engine writes nothing without a reserve of a mebibyte."""


def resize(directory: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(directory)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "data" / "clickhouse"
    directory.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOMY}", "headwater", str(directory)]
    subprocess.run(mount, check=True)
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def client(small_disk: Path) -> Iterator[Client]:
    wanted = Wanted(broker=None, redis=False, clickhouse=True)
    with EmbeddedStack(small_disk.parent, wanted) as stack:
        url = stack.addresses.clickhouse_url
        with clickhouse_connect.get_client(dsn=url, query_retries=0) as client:
            yield client


@pytest.mark.mount
def test_insert_that_does_not_fit_is_refused_and_taken_once_there_is_room(
    client: Client, small_disk: Path
) -> None:
    client.command("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    client.insert("t", [[1]], column_names=["a"])
    at = os.statvfs(small_disk)
    used = (at.f_blocks - at.f_bfree) * at.f_frsize
    resize(small_disk, str(used + LEFT_BYTES))
    with pytest.raises(DatabaseError, match="NOT_ENOUGH_SPACE"):
        client.insert("t", [[2]], column_names=["a"])
    resize(small_disk, ROOMY)
    client.insert("t", [[3]], column_names=["a"])
    assert client.query("SELECT a FROM t ORDER BY a").result_rows == [(1,), (3,)]
