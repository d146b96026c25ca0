"""Does a role that has stopped working end, and one that waits for a store or sleeps not?

Real workers and sinks under the real supervisor, with `[time] stuck_after_s` of a few seconds.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from headwater.supervision import Restarts, RoleProcess
from runtime.crash import EXIT_CRASHED
from runtime.embedded import EmbeddedStack, Wanted
from runtime.processes import free_ports
from runtime.settings import Http, Settings, Time
from runtime.stalls import LogRange, Place, Standing
from runtime.topics_admin import ensure_topics
from runtime.watchdog import Watchdog
from tests.conftest import FreshName
from tests.sink_log import Lane, settings_of
from tests.stream_log import assert_exact, make_event, new_log
from tests.up import ROOT
from tests.waiting import eventually

KEY = "operator-key-of-this-test"


def numbers(url: str) -> dict[tuple[str, ...], float]:
    """(name, label values in order of their names) -> value of every sample at `url`."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


# -- the watchdog itself, with a clock of the test's own


class Kennel:
    """A watchdog over what the test says: `standings`, `logs`, `now_s`."""

    def __init__(self) -> None:
        self.standings: dict[Place, Standing] = {}
        self.logs: dict[Place, LogRange] = {}
        self.now_s = 0.0
        self.ends: list[Mapping[str, Any]] = []
        self.tag = secrets.token_hex(4)
        self.dog = Watchdog(
            lambda: self.standings,
            lambda _: self.logs,
            limit_s=60,
            lag_gauge="headwater_sink_lag_records",
            labels_of=lambda place: (self.tag, str(place[1])),
            end=lambda why, **where: self.ends.append(where),
            now_s=lambda: self.now_s,
        )

    def look(self, times: int = 1, *, every_s: float = 5) -> None:
        for _ in range(times):
            self.now_s += every_s
            self.dog.look()

    def lag(self, partition: int) -> float | None:
        labels = {"sink": self.tag, "partition": str(partition)}
        return REGISTRY.get_sample_value("headwater_sink_lag_records", labels)


def test_the_limit_ends_the_process_and_names_the_place() -> None:
    kennel = Kennel()
    kennel.standings = {("t", 0): Standing(4), ("t", 1): Standing(7)}
    kennel.logs = {("t", 0): LogRange(0, 9), ("t", 1): LogRange(0, 7)}
    kennel.look(12)
    assert kennel.ends == []
    kennel.look()
    (said,) = kennel.ends
    assert {name: said[name] for name in ("topic", "partition", "position", "end")} == {
        "topic": "t", "partition": 0, "position": 4, "end": 9,
    }  # fmt: skip
    assert __file__ in said["at"] or "pytest" in said["at"], "where the main thread is"


def test_lag_is_shown_of_silent_partitions_and_not_of_those_that_went() -> None:
    kennel = Kennel()
    kennel.standings = {("t", 0): Standing(4), ("t", 1): Standing(7)}
    kennel.logs = {("t", 0): LogRange(0, 4), ("t", 1): LogRange(0, 7)}
    kennel.look()
    assert (kennel.lag(0), kennel.lag(1)) == (0, 0)
    kennel.logs[("t", 1)] = LogRange(0, 10)
    kennel.look()
    assert (kennel.lag(0), kennel.lag(1)) == (0, 3)
    del kennel.standings[("t", 1)]
    kennel.look()
    assert (kennel.lag(0), kennel.lag(1)) == (0, None)


def test_a_process_that_slept_is_not_taken_for_a_stuck_one() -> None:
    kennel = Kennel()
    kennel.standings, kennel.logs = {("t", 0): Standing(4)}, {("t", 0): LogRange(0, 9)}
    kennel.look(2)
    kennel.look(every_s=3_600)
    kennel.standings = {("t", 0): Standing(9)}
    kennel.look(20)
    assert kennel.ends == []


def test_log_that_ends_before_what_was_read_ends_the_process_at_the_second_look() -> None:
    """A new leader may not know at once how far its followers are."""
    kennel = Kennel()
    place: Place = ("events.accepted", 1)
    kennel.standings = {place: Standing(50)}
    for end in (49, 50, 49):
        kennel.logs = {place: LogRange(0, end)}
        kennel.look()
    assert kennel.ends == []
    kennel.look()
    assert kennel.ends == [{"topic": "events.accepted", "partition": 1, "position": 50, "end": 49}]


def test_looks_without_an_answer_do_not_hide_a_log_that_went_back() -> None:
    kennel = Kennel()
    place: Place = ("events.accepted", 1)
    kennel.standings = {place: Standing(50)}
    for told in ({place: LogRange(0, 49)}, {}, {}, {place: LogRange(0, 49)}):
        assert kennel.ends == []
        kennel.logs = told
        kennel.look()
    assert [end["position"] for end in kennel.ends] == [50]


def test_ends_that_kafka_told_last_stand_while_it_is_away() -> None:
    kennel = Kennel()
    kennel.standings, kennel.logs = {("t", 0): Standing(4)}, {("t", 0): LogRange(0, 9)}
    kennel.look()
    kennel.logs = {}
    kennel.look(12)
    assert len(kennel.ends) == 1


# -- real roles


@contextmanager
def supervised(tmp_path: Path, role: str, settings: Settings) -> Iterator[tuple[RoleProcess, Any]]:
    """A role as `headwater up` keeps it: (its process, a step of the supervisor)."""
    settings = settings.model_copy(update={"http": Http(keys={"operator": KEY})})
    file = tmp_path / "settings.json"
    file.write_text(settings.model_dump_json())
    said: list[str] = []
    process, restarts = RoleProcess(role, [role], tmp_path, file), Restarts(said.append)

    def tend() -> list[str]:
        restarts.tend(process)
        return said

    process.start()
    try:
        yield process, tend
    finally:
        process.stop()


def wait_ready(process: RoleProcess, tend: Callable[[], object]) -> str:
    """The address of its metrics, once it works."""

    def is_ready() -> bool:
        tend()
        return process.is_ready()

    eventually(is_ready, within_s=60)
    return (
        process.log_file.parents[1].joinpath("run", f"{process.name}.metrics").read_text().strip()
    )


@contextmanager
def stopped(pid: int) -> Iterator[Callable[[], None]]:
    """A process that stands still until the block ends or what it gives is called."""

    def go_on() -> None:
        os.kill(pid, signal.SIGCONT)

    os.kill(pid, signal.SIGSTOP)
    try:
        yield go_on
    finally:
        go_on()


@pytest.fixture
def broker_stack(tmp_path: Path) -> Iterator[EmbeddedStack]:
    """A broker of this test's own, to be put to sleep."""
    wanted = Wanted(broker="apache", redis=False, clickhouse=False)
    with EmbeddedStack(tmp_path / "broker", wanted) as stack:
        yield stack


@pytest.mark.apache
def test_a_worker_whose_commit_hangs_is_ended_and_replaced_and_nothing_is_lost(
    broker_stack: EmbeddedStack, fresh_name: FreshName, tmp_path: Path
) -> None:
    # So long between commits that the broker can be stopped after an event and before its commit.
    log = new_log(broker_stack.addresses.bootstrap_servers, fresh_name("stuck"), barrier_ms=2_000)
    # Longer than between two commits on a busy machine; shorter than Kafka's client waits for one.
    settings = log.settings.model_copy(update={"time": Time(stuck_after_s=6)})
    (broker,) = (server for server in broker_stack.servers if server.name == "kafka")
    assert broker.pid is not None
    events = [make_event(event_id=secrets.token_bytes(16)) for _ in range(200)]
    with supervised(tmp_path, "streams", settings) as (process, tend):
        url = wait_ready(process, tend)
        log.send(events)

        def lags() -> bool:
            shown = numbers(url).items()
            return any(name[0] == "headwater_lane_lag_records" and lag for name, lag in shown)

        eventually(lags, every_s=0.01)
        with stopped(broker.pid) as go_on:
            ended = eventually(lambda: tend())
            assert f"exit code {EXIT_CRASHED}" in ended[0]
            go_on()
            wait_ready(process, tend)
        log.wait_applied()
    assert_exact(log, events)
    (line,) = (line for line in process.log_file.read_text().splitlines() if "no progress" in line)
    for part in ('"topic": "' + log.topics.collected, '"partition": ', '"position": ', '"end": '):
        assert part in line


HANGS = """
import threading
from streams.lane import Lane
Lane._apply = lambda *_: threading.Event().wait()
from headwater.cli import main
main()
"""


def test_a_loop_that_hangs_is_ended_by_a_thread_beside_it(
    kafka: str, fresh_name: FreshName, tmp_path: Path
) -> None:
    log = new_log(kafka, fresh_name("hung"))
    settings = log.settings.model_copy(update={"time": Time(stuck_after_s=2)})
    file, output = tmp_path / "settings.json", tmp_path / "out"
    file.write_text(settings.model_dump_json())
    log.send([make_event()])
    command = [sys.executable, "-c", HANGS, "run", "streams", "--settings", str(file)]
    with output.open("wb") as out:
        hung = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=out, stderr=out, timeout=90
        )
    assert hung.returncode == EXIT_CRASHED, output.read_text()
    assert "no progress" in output.read_text()


def test_a_sink_waits_for_a_store_that_is_away_but_not_for_ever_for_one_that_hangs(
    kafka: str, fresh_name: FreshName, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    settings = settings_of(
        fresh_name("away"), kafka=kafka, clickhouse=f"http://127.0.0.1:{port}"
    ).model_copy(update={"time": Time(stuck_after_s=12)})  # twice what is between two tries
    ensure_topics(settings)
    Lane(settings).commit(50)
    with supervised(tmp_path, "accepted-to-clickhouse", settings) as (process, tend):
        metrics = tmp_path / "run" / f"{process.name}.metrics"

        def has_waited() -> bool:
            assert tend() == []
            found = numbers(metrics.read_text().strip()) if metrics.exists() else {}
            lag = sum(value for name, value in found.items() if name[0].endswith("_lag_records"))
            # The first is the records, and one for each transaction's mark.
            waited_s = found.get(("headwater_waiting_for_store_seconds", "start"), 0)
            return lag >= 50 and waited_s > 15

        eventually(has_waited, within_s=90)
        with socket.create_server(("127.0.0.1", port)):  # answers nothing
            ended = eventually(lambda: tend(), within_s=60)
        assert f"exit code {EXIT_CRASHED}" in ended[0]
