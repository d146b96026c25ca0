"""Which real servers do tests get, and what does this machine leave out?

Servers are never mocked: the broker speaks Kafka, Valkey is Valkey, ClickHouse is its own engine.
Each starts once a session, when a test first asks for it. They are shared, so a test keeps to names
of its own (`fresh_name`). HEADWATER_TEST_BROKER=apache|trial|cluster chooses the broker; by default it
is the best that the machine can have, alone. Tests that the machine cannot run are left out with a line at
the end of the report that says why: never in silence.

HEADWATER_TEST_EXAMPLES=fresh draws other examples for properties at each run.
"""

import itertools
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, cast
from uuid import uuid4

import clickhouse_connect
import hypothesis
import pytest
import redis
from clickhouse_connect.driver.client import Client

from runtime import apache_kafka
from runtime.embedded import Choice, EmbeddedStack, Wanted
from tests import kafka_classes
from tests.kafka_cluster import KafkaCluster
from tests.mounting import lacks_mount

os.environ.setdefault("JAVA_TOOL_OPTIONS", kafka_classes.options())

# A shared machine is slow at times: how long an example takes says nothing of the code. And a run
# that fails says something of the change: examples are the same each time, unless others are wanted.
_IS_SEARCHING = os.environ.get("HEADWATER_TEST_EXAMPLES") == "fresh"
hypothesis.settings.register_profile("house", deadline=None, derandomize=not _IS_SEARCHING)
hypothesis.settings.load_profile("house")

FreshName = Callable[[str], str]
Say = Callable[[str], None]

_WHAT = {
    "apache": "Apache Kafka",
    "node": "Node",
    "browser": "browser",
    "mount": "small disk",
}
_LONGEST = ("test_real_input.py", "test_up_under_kills.py", "test_replay_under_kills.py")
_SLOW_FOLDERS = ("faults", "integration", "contracts", "model")
_left_out: Counter[tuple[str, str]] = Counter()
_SAID = "said"


def _chosen_broker() -> Choice | Literal["cluster"]:
    chosen = os.environ.get("HEADWATER_TEST_BROKER", "auto")
    if chosen not in ("auto", "apache", "trial", "cluster"):
        raise pytest.UsageError(
            f"HEADWATER_TEST_BROKER={chosen}: expected auto, apache, trial or cluster"
        )
    return cast(Choice | Literal["cluster"], chosen)


def _reasons() -> dict[str, str]:
    """Why tests of a marker cannot run here; no entry if they can."""
    reasons: dict[str, str] = {}
    tools = apache_kafka.look_for_tools()
    if _chosen_broker() == "trial":
        reasons["apache"] = "HEADWATER_TEST_BROKER=trial"
    elif not tools.is_enough:
        reasons["apache"] = f"{tools.missing}; install openjdk-17-jre-headless and maven"
    if not (shutil.which("node") and shutil.which("npm")):
        reasons["node"] = "no Node.js with npm found; install nodejs and npm"
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        reasons["browser"] = "no Chromium found; install chromium"
    if why := lacks_mount():
        reasons["mount"] = why
    return reasons


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what cannot run here, and remember it for the report.

    Files that take minutes begin first: where several processes share the files, one that begins
    last has the others wait.
    """
    items.sort(key=_turn)
    reasons = _reasons()
    out: list[pytest.Item] = []
    for item in items:
        if "kafka_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("apache")
        lacking = next((mark for mark in reasons if item.get_closest_marker(mark)), None)
        if lacking is not None:
            _left_out[lacking, reasons[lacking]] += 1
            out.append(item)
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in set(out)]


def _turn(item: pytest.Item) -> int:
    if item.path.name in _LONGEST:
        return -1
    folder = item.path.parent.name
    return _SLOW_FOLDERS.index(folder) if folder in _SLOW_FOLDERS else len(_SLOW_FOLDERS)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand what was left out to the process that reports, where several share the tests."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = [[*why, count] for why, count in _left_out.items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Remember what a worker left out: each looks at all tests, so the counts are the same."""
    for mark, reason, count in getattr(node, "workeroutput", {}).get("left_out", ()):
        _left_out[mark, reason] = count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests said, and say what was left out, one line each."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, line in report.user_properties:
                if name == _SAID:
                    terminalreporter.write_line(line)
    for (mark, reason), count in sorted(_left_out.items()):
        tests = "test" if count == 1 else "tests"
        terminalreporter.write_line(f"left out: {count} {_WHAT[mark]} {tests} ({reason})")


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Say:
    """Put a line into the end of the report, whatever becomes of the test: its seed, its figures."""

    def said(line: str) -> None:
        print(line)
        request.node.user_properties.append((_SAID, line))

    return said


@pytest.fixture
def fresh_name() -> FreshName:
    """Make names that no other test uses: `fresh_name("orders")` gives `orders-3f2a...-1`."""
    tag, numbers = uuid4().hex[:12], itertools.count(1)
    return lambda prefix: f"{prefix}-{tag}-{next(numbers)}"


@pytest.fixture(scope="session")
def _broker(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[str, Literal["apache", "trial"]]]:
    """(bootstrap.servers, kind) of the chosen broker."""
    chosen, directory = _chosen_broker(), tmp_path_factory.mktemp("broker")
    if chosen == "cluster":
        with KafkaCluster(directory) as cluster:
            yield cluster.bootstrap_servers, "apache"
        return
    wanted = Wanted(broker=chosen, redis=False, clickhouse=False)
    with EmbeddedStack(directory, wanted, say=print) as stack:
        assert stack.broker_kind != "external"
        yield stack.addresses.bootstrap_servers, stack.broker_kind


@pytest.fixture(scope="session")
def kafka(_broker: tuple[str, str]) -> str:
    """bootstrap.servers of a real broker."""
    return _broker[0]


@pytest.fixture(scope="session")
def broker_kind(
    _broker: tuple[str, Literal["apache", "trial"]],
) -> Literal["apache", "trial"]:
    """Which broker `kafka` is."""
    return _broker[1]


@pytest.fixture(scope="session")
def replication() -> int:
    """How many replicas a topic of `kafka` can have, and has in the contract's tests."""
    return 3 if _chosen_broker() == "cluster" else 1


@pytest.fixture(scope="module")
def kafka_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaCluster]:
    """Three Apache Kafka brokers, for tests that leave them whole."""
    with KafkaCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """redis://... of a real Valkey."""
    wanted = Wanted(broker=None, redis=True, clickhouse=False)
    with EmbeddedStack(tmp_path_factory.mktemp("valkey"), wanted) as stack:
        yield stack.addresses.redis_url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator["redis.Redis"]:
    """A client of `redis_url`; answers are bytes."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def clickhouse_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """http://... of a real ClickHouse engine."""
    wanted = Wanted(broker=None, redis=False, clickhouse=True)
    with EmbeddedStack(tmp_path_factory.mktemp("clickhouse"), wanted) as stack:
        yield stack.addresses.clickhouse_url


@pytest.fixture
def clickhouse(clickhouse_url: str) -> Iterator[Client]:
    """A client in an empty database of its own, which is dropped afterwards."""
    database = f"test_{uuid4().hex[:12]}"
    with clickhouse_connect.get_client(dsn=clickhouse_url) as client:
        client.command(f"CREATE DATABASE {database}")
        client.database = database
        yield client
        client.command(f"DROP DATABASE {database}")


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the source tree."""
    return Path(__file__).parent.parent
