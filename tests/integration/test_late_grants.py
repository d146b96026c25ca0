"""Is what a grant was too late for released, once, and nothing else?

On a real broker, with a worker for which nothing counts before its person has agreed.
"""

import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from runtime.settings import Purpose
from schemas.codec import CONSENT_CHANGED, ERASURE_REQUESTED, PARKED
from schemas.events import Collected
from schemas.partitioning import partition_of
from schemas.requests import ERASE, ConsentChanged, ErasureRequested
from schemas.subjects import PARKED_PREFIX, Parked
from tests.stream_log import START_MS, Log, make_event, new_log
from tests.stream_worker import Worker

PARTITIONS = 2
SECOND_MS = 1_000
LIMIT_MS = 10 * 60 * SECOND_MS


@pytest.fixture
def log(kafka: str, fresh_name: Any) -> Log:
    made = new_log(kafka, fresh_name("late"), partitions=PARTITIONS)
    purposes = {**made.settings.purposes, "analytics": Purpose(basis="consent")}
    made.settings = made.settings.model_copy(update={"purposes": purposes})
    return made


@pytest.fixture
def worker(log: Log, tmp_path: Path) -> Iterator[Worker]:
    with Worker(tmp_path, "w1", log.settings.model_dump_json()) as worker:
        yield worker.start().wait_open()


def events_of(pid: bytes, count: int) -> list[Collected]:
    """A second apart, received as they happen."""
    times = [START_MS + number * SECOND_MS for number in range(count)]
    return [
        make_event(pid=pid, event_id=random.randbytes(16), occurred_at_ms=at, received_at_ms=at)
        for at in times
    ]


def decide(log: Log, pid: bytes, status: str, valid_from_ms: int, recorded_at_ms: int) -> None:
    change = ConsentChanged(
        random.randbytes(16), pid, "analytics", None, None, "consent", status, valid_from_ms, None,
        recorded_at_ms, "form",
    )  # fmt: skip
    value = CONSENT_CHANGED.encode(change)
    log.send_raw(log.topics.consents, value, pid, partition_of(pid, PARTITIONS))


def erase(log: Log, pid: bytes) -> None:
    request = ErasureRequested(random.randbytes(16), pid, START_MS, "withdrawn", [], ERASE)
    value = ERASURE_REQUESTED.encode(request)
    log.send_raw(log.topics.erasures, value, pid, partition_of(pid, PARTITIONS))


def parked(log: Log) -> dict[bytes, Parked | None]:
    """What is written of each person's withheld events; None: that nothing is left."""
    return {
        key.removeprefix(PARKED_PREFIX): PARKED.decode(value) if value is not None else None
        for _, key, value in log.read(log.topics.subjects)
        if key.startswith(PARKED_PREFIX)
    }


def test_what_a_grant_was_too_late_for_is_released_once(log: Log, worker: Worker) -> None:
    pids = [random.randbytes(16) for _ in range(5)]
    granted, older, over, erased, never = pids
    events = {pid: events_of(pid, 4) for pid in pids}
    log.send(event for pid in pids for event in events[pid])
    log.wait_applied(worker)
    assert not log.accepted()
    assert log.withheld() == {"analytics": 20}
    assert parked(log).keys() == set(pids)

    assert worker.end(signal.SIGKILL) != 0
    worker.start().wait_open()
    recorded_ms = START_MS + 30 * SECOND_MS
    decide(log, granted, "granted", START_MS + 2 * SECOND_MS, recorded_ms)
    decide(log, over, "granted", START_MS, START_MS + LIMIT_MS + 2 * SECOND_MS)
    erase(log, erased)
    log.wait_applied(worker)
    decide(log, erased, "granted", START_MS, recorded_ms)
    decide(log, older, "withdrawn", START_MS - 1, START_MS - 1)
    decide(log, older, "granted", START_MS, recorded_ms)
    decide(log, granted, "granted", START_MS + 2 * SECOND_MS, recorded_ms + 1)
    log.send([*events[granted], *events[older]])  # sent again
    log.wait_applied(worker)

    released = [*events[granted][2:], *events[older], *events[over][2:]]
    accepted = log.accepted()
    assert sorted(e.event_id for e in accepted) == sorted(e.event_id for e in released)
    for lane in range(PARTITIONS):
        places = [(each.seq, each.index) for each in accepted if each.lane == lane]
        assert places == sorted(set(places))
    assert log.withheld() == {"analytics": 20 - len(released), "erased": 1}
    assert {pid: log.subjects()[pid].events for pid in (granted, older, over)} == {
        granted: 2,
        older: 4,
        over: 2,
    }
    left = parked(log)
    assert left[erased] is None and left[older] is None
    assert left[never] is not None


def test_withheld_events_are_forgotten_when_their_time_is_over(log: Log, worker: Worker) -> None:
    pid, other = random.randbytes(16), random.randbytes(16)
    while partition_of(other, PARTITIONS) != partition_of(pid, PARTITIONS):
        other = random.randbytes(16)
    [early] = events_of(pid, 1)
    log.send([early])
    log.wait_applied(worker)
    later_ms = START_MS + LIMIT_MS + 1
    log.send([make_event(pid=other, occurred_at_ms=later_ms, received_at_ms=later_ms)])
    log.wait_applied(worker)
    assert parked(log)[pid] is None
    # Its stamps would allow it; but it came when nobody waited any more.
    decide(log, pid, "granted", START_MS, START_MS + SECOND_MS)
    log.wait_applied(worker)
    assert not log.accepted()
    assert log.withheld() == {"analytics": 2}


@pytest.mark.apache
def test_event_that_retention_has_removed_stays_withheld(log: Log, worker: Worker) -> None:
    pid = random.randbytes(16)
    p = partition_of(pid, PARTITIONS)
    log.send(events_of(pid, 3))
    log.wait_applied(worker)
    admin = AdminClient({"bootstrap.servers": log.kafka.bootstrap_servers})
    [cut] = admin.delete_records([TopicPartition(log.topics.collected, p, 2)]).values()
    assert cut.result(timeout=30).low_watermark == 2
    decide(log, pid, "granted", START_MS, START_MS + SECOND_MS)
    log.wait_applied(worker)
    assert [each.source_offset for each in log.accepted()] == [2]
    assert log.withheld() == {"analytics": 2}
    assert parked(log)[pid] is None
