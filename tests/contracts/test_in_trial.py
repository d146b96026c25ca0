"""Does noida-db keep the contract, and differ from Apache Kafka only where we say so?

Its differences are written in the tests themselves (`trial=`) and in docs/trial-mode.md.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NoReturn

import pytest

from runtime.clock import now_ms
from runtime.embedded import EmbeddedStack, Wanted
from runtime.settings import Kafka, Settings
from runtime.topics_admin import ensure_topics
from runtime.trial import is_noida_db
from streams import lane as lane_module
from streams.app import arrows, lane_settings
from streams.lane import Lane
from tests.conftest import FreshName
from tests.contracts.broker import Broker
from tests.contracts.forgetting import *  # noqa: F403 - the tests themselves
from tests.contracts.test_broker import *  # noqa: F403
from tests.contracts.test_broker import Fault
from tests.contracts.test_groups import *  # noqa: F403
from tests.contracts.test_positions import *  # noqa: F403
from tests.contracts.test_producing import *  # noqa: F403
from tests.contracts.test_topic_settings import *  # noqa: F403
from tests.waiting import eventually


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """bootstrap.servers of a noida-db."""
    wanted = Wanted(broker="trial", redis=False, clickhouse=False)
    with EmbeddedStack(tmp_path_factory.mktemp("trial"), wanted) as stack:
        yield stack.addresses.bootstrap_servers


@pytest.fixture(scope="module")
def broker_kind() -> Literal["trial"]:
    """Which broker `kafka` is."""
    return "trial"


@pytest.fixture(scope="module")
def replication() -> int:
    """It is alone."""
    return 1


def settings_in_trial(
    kafka: str, fresh_name: FreshName, directory: Path, **values: Any
) -> Settings:
    section = Kafka(
        bootstrap_servers=kafka, topic_prefix=f"{fresh_name('trial')}.", partitions=1, **values
    )
    return Settings(kafka=section, data_dir=str(directory))


def test_noida_db_is_known_by_its_cluster(kafka: str) -> None:
    assert is_noida_db(kafka)


def test_transaction_of_an_owner_that_never_committed_is_ended_by_the_next(
    broker: Broker, fresh_name: FreshName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(why: str, **_where: object) -> NoReturn:
        raise Fault(why)

    monkeypatch.setattr(lane_module, "crash", die)
    settings = settings_in_trial(broker.servers, fresh_name, tmp_path, is_trial=True)
    ensure_topics(settings)
    accepted = settings.topic_names.accepted

    def open_lane() -> Lane:
        lane = Lane(0, lane_settings(settings, now_ms), arrows(settings.topic_names))
        lane.open()
        return lane

    dead = open_lane()
    dead.producer.send(accepted, b"left", b"key", 0)
    eventually(lambda: dead.producer.poll(0) == 0 and broker.ends(accepted) == (0, 1))
    assert broker.ends(accepted, "read_committed") == (0, 0)
    alive = open_lane()
    alive.producer.send(accepted, b"alive", b"key", 0)
    alive.producer.commit()
    eventually(lambda: [value for _, value in broker.read(accepted).records] == [b"alive"])
    with pytest.raises(Fault):
        dead.producer.commit()


def test_second_streams_worker_is_refused_at_start(
    kafka: str, fresh_name: FreshName, tmp_path: Path
) -> None:
    first = settings_in_trial(kafka, fresh_name, tmp_path / "first", instance_id="first")
    ensure_topics(first)
    of_another_name = first.kafka.model_copy(update={"instance_id": "second"})
    elsewhere = {"kafka": of_another_name, "data_dir": str(tmp_path / "second")}

    def begin(name: str, settings: Settings) -> "subprocess.Popen[bytes]":
        file = tmp_path / f"{name}.json"
        file.write_text(settings.model_dump_json())
        command = [sys.executable, "-m", "headwater", "run", "streams", "--settings", str(file)]
        with (tmp_path / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [*command, "--ready-file", str(tmp_path / f"{name}.ready")],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )

    works = begin("works", first)
    try:
        eventually((tmp_path / "works.ready").exists, within_s=60)
        assert "trial mode: the broker is noida-db" in (tmp_path / "works.log").read_text()
        seconds = {"twin": first, "other": first.model_copy(update=elsewhere)}
        for name, refused in [(name, begin(name, each)) for name, each in seconds.items()]:
            assert refused.wait(60) == 1
            said = (tmp_path / f"{name}.log").read_text()
            assert "trial mode runs one streams worker" in said
        assert works.poll() is None
    finally:
        works.terminate()
        assert works.wait(30) == 0
