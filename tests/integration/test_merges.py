"""Are pids of different lanes one person on a real broker, also after the worker was killed?"""

import random
import signal
from pathlib import Path
from typing import Any

import pytest

from schemas.codec import CLAIMED, ERASURE_REQUESTED, LINKED
from schemas.moves import Claimed
from schemas.partitioning import partition_of
from schemas.persons import whole_subject
from schemas.requests import MERGED, ErasureRequested
from schemas.subjects import PID_BYTES
from tests.stream_log import START_MS, Log, make_event, new_log
from tests.stream_worker import Worker
from tests.waiting import eventually

PARTITIONS = 2


@pytest.fixture
def log(kafka: str, fresh_name: Any) -> Log:
    return new_log(kafka, fresh_name("merges"), partitions=PARTITIONS)


def pid_in(partition: int) -> bytes:
    """A new pid that lies there."""
    while True:
        pid = random.randbytes(PID_BYTES)
        if partition_of(pid, PARTITIONS) == partition:
            return pid


def claim(log: Log, pid: bytes, claimant: bytes, cause: str, at_ms: int) -> None:
    claimed = Claimed(pid, claimant, 3, at_ms, random.randbytes(16), cause, at_ms)
    log.send_raw(log.topics.moves, CLAIMED.encode(claimed), pid, partition_of(pid, PARTITIONS))


def events_of(log: Log, pid: bytes) -> int:
    """Of the whole person that the pid stands for, as the newest record has it."""
    found = log.subjects().get(pid)
    return 0 if found is None else whole_subject(found).events


def test_pids_of_two_lanes_are_one_person_until_they_are_not(log: Log, tmp_path: Path) -> None:
    user, device = pid_in(0), pid_in(1)
    with Worker(tmp_path, "w1", log.settings.model_dump_json()) as worker:
        worker.start().wait_open()
        log.send([make_event(pid=user), make_event(pid=device)])
        claim(log, device, user, "identify", START_MS)
        eventually(lambda: events_of(log, user) == 2, within_s=30, every_s=0.2)
        worker.end(signal.SIGKILL)
    with Worker(tmp_path, "w1", log.settings.model_dump_json()) as worker:
        worker.start().wait_open()
        log.send([make_event(pid=device)])
        eventually(lambda: events_of(log, user) == 3, within_s=30, every_s=0.2)
        claim(log, device, user, "revoked", START_MS + 1)
        eventually(lambda: events_of(log, user) == 1, within_s=30, every_s=0.2)
        assert log.subjects()[device].moved_to is None
        told = [LINKED.decode(v) for _, _, v in log.read(log.topics.accepted) if _is_linked(v)]
        assert [(each.pid, each.root, each.is_linked) for each in told] == [
            (device, user, True),
            (device, user, False),
        ]

        claim(log, device, user, "linked", START_MS + 2)
        request = ErasureRequested(random.randbytes(16), user, START_MS, "withdrawn")
        log.send_raw(log.topics.erasures, ERASURE_REQUESTED.encode(request), user, 0)
        eventually(lambda: _is_erased(log, device), within_s=30, every_s=0.2)
        asked = [ERASURE_REQUESTED.decode(v) for _, _, v in log.read(log.topics.erasures)]
        assert {each.reason for each in asked if each.pid == device} == {MERGED}


def _is_linked(value: bytes | None) -> bool:
    return value is not None and value[:5] in LINKED.headers


def _is_erased(log: Log, pid: bytes) -> bool:
    return log.subjects()[pid].erased_at_ms == START_MS
