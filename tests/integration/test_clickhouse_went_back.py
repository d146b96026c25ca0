"""Does counting go on exactly after ClickHouse went back to a state that it had before?

A restored copy, or a disk that lost its newest writes, holds a prefix of what the sink wrote: facts,
counters, progress, in this order. The sink may run or rest meanwhile.
"""

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.clickhouse import connect
from runtime.embedded import EmbeddedStack, Wanted
from runtime.servers import Server
from runtime.settings import Settings
from runtime.topics_admin import ensure_topics
from sinks.accepted_to_clickhouse import AcceptedToClickHouse, run_accepted_to_clickhouse
from sinks.migrations.apply import apply_migrations
from tests.integration.test_accepted_to_clickhouse import (
    FailingStore,
    ask,
    is_at_the_end,
    totals,
)
from tests.sink_log import Lane, running, settings_of, truth
from tests.waiting import eventually


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    wanted = Wanted(broker=None, redis=False, clickhouse=True)
    with EmbeddedStack(tmp_path_factory.mktemp("clickhouse"), wanted) as stack:
        yield stack.servers[0]


@pytest.fixture
def settings(kafka: str, engine: Server, fresh_name: Any) -> Settings:
    made = settings_of(fresh_name("back"), kafka=kafka, clickhouse=engine.address)
    ensure_topics(made)
    with connect(made, database="default") as client:
        apply_migrations(client, made.clickhouse.database)
    return made


class Copies:
    """Takes a copy of the engine's directory, and brings it back."""

    def __init__(self, engine: Server, directory: Path) -> None:
        self.engine = engine
        self.directory = directory

    def kill(self) -> None:
        assert self.engine.pid is not None
        os.kill(self.engine.pid, signal.SIGKILL)
        eventually(lambda: not self.engine.is_alive())

    def take(self) -> None:
        self.kill()
        shutil.copytree(self.engine.directory, self.directory, symlinks=True)
        self.start()

    def restore(self) -> None:
        self.kill()
        shutil.rmtree(self.engine.directory)
        shutil.copytree(self.directory, self.engine.directory, symlinks=True)
        self.start()

    def start(self) -> None:
        self.engine.start()
        self.engine.wait_ready()


def die_after(settings: Settings, lanes: list[Lane], writes: int) -> None:
    """Count until so many inserts are in the store, then no more."""
    store = FailingStore(settings, writes, after=True)
    sink = AcceptedToClickHouse(settings, store, threading.Event())
    with pytest.raises(KeyboardInterrupt):
        while True:
            sink.step()
            for lane in lanes:
                lane.commit(20)
    sink.close()
    store.close()


def assert_all_counted_once(settings: Settings, lanes: list[Lane]) -> None:
    sent = [event for lane in lanes for event in lane.sent]
    assert totals(settings) == truth(sent)
    assert ask(settings, "SELECT sum(records) FROM progress FINAL") == [(len(sent),)]
    assert ask(settings, "SELECT count() FROM facts FINAL WHERE idx = 0") == [(len(sent),)]


def test_sink_counts_again_what_a_restored_copy_has_not(
    settings: Settings, engine: Server, tmp_path: Path
) -> None:
    """The copy has the facts and counters of a batch, not its progress; later batches were written
    over it before it was lost. Every other cut: tests/faults/store_faults.py.
    """
    lanes = [Lane(settings, 0), Lane(settings, 1)]
    for lane in lanes:
        lane.commit(60)
    die_after(settings, lanes, writes=5)
    copies = Copies(engine, tmp_path / "copy")
    copies.take()
    with running(run_accepted_to_clickhouse, settings):
        lanes[0].commit(40)
        eventually(lambda: is_at_the_end(settings))
    copies.restore()
    with running(run_accepted_to_clickhouse, settings):
        lanes[1].commit(10)
        eventually(lambda: is_at_the_end(settings))
    assert_all_counted_once(settings, lanes)


def test_running_sink_notices_that_the_store_went_back(
    settings: Settings, engine: Server, tmp_path: Path
) -> None:
    """It remembers more than the store has: going on from there would lose what lies between. Once
    with nothing to count meanwhile, once with new events.
    """
    lane = Lane(settings)
    copies = Copies(engine, tmp_path / "copy")
    with running(run_accepted_to_clickhouse, settings):
        lane.commit(100)
        eventually(lambda: is_at_the_end(settings))
        copies.take()
        for more in (0, 30):
            lane.commit(50)
            eventually(lambda: is_at_the_end(settings))
            copies.restore()
            if more:
                lane.commit(more)
            eventually(lambda: is_at_the_end(settings))
            assert_all_counted_once(settings, [lane])
