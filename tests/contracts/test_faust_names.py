"""Are the private names that runtime/lane_transport.py builds on where they were, and as they were?

Faust and aiokafka promise nothing about them, hence the pins. When a pin is raised, this fails
first, and says which name to look at.
"""

import ast
import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from runtime import batches, lane_transport, plain_records

sys_argv = sys.argv
import aiokafka  # noqa: E402
from aiokafka.consumer import subscription_state  # noqa: E402
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords  # noqa: E402
from aiokafka.structs import ConsumerRecord  # noqa: E402
from faust import App  # noqa: E402
from faust.tables.recovery import Recovery  # noqa: E402
from faust.topics import Topic  # noqa: E402
from faust.transport import consumer as faust_consumer  # noqa: E402
from faust.transport.drivers import aiokafka as driver  # noqa: E402


@pytest.mark.parametrize(
    ("package", "pinned"), [("faust-streaming", "0.15.3"), ("aiokafka", "0.14.0")]
)
def test_pinned_versions_are_installed(package: str, pinned: str, checkout: Path) -> None:
    assert version(package) == pinned
    assert f'"{package}=={pinned}"' in (checkout / "pyproject.toml").read_text()


OVERRIDDEN: list[tuple[type, str, list[str]]] = [
    (driver.AIOKafkaConsumerThread, "_create_worker_consumer", ["self", "transport"]),
    (driver.AIOKafkaConsumerThread, "_seek_wait", ["self", "consumer", "partitions"]),
    (
        driver.AIOKafkaConsumerThread,
        "_fetch_records",
        ["self", "consumer", "active_partitions", "timeout", "max_records"],
    ),
    (driver.Consumer, "_new_consumer_thread", ["self"]),
    (driver.Consumer, "on_partitions_revoked", ["self", "revoked"]),
    (driver.Consumer, "on_partitions_assigned", ["self", "assigned", "generation_id"]),
    (driver.Consumer, "perform_seek", ["self"]),
    (driver.Consumer, "_drain_messages", ["self", "fetcher"]),
    (driver.Consumer, "_filter_tps_with_pending_acks", ["self", "topics"]),
    (driver.Consumer, "_new_offset", ["self", "tp"]),
    (driver.Consumer, "_commit", ["self", "offsets"]),
    (driver.Consumer, "ack", ["self", "message"]),
    (driver.Consumer, "on_stop", ["self"]),
    (Topic, "decode", ["self", "message", "propagate"]),
    (App, "_new_transport", ["self"]),
    (App, "crash", ["self", "reason"]),
    (aiokafka.AIOKafkaConsumer, "start", ["self"]),
    (Fetcher, "_proc_fetch_request", ["self", "assignment", "node_id", "request"]),
    (PartitionRecords, "_consumer_record", ["self", "tp", "record"]),
]

OURS: dict[type, type] = {
    driver.AIOKafkaConsumerThread: lane_transport.LaneThread,
    driver.Consumer: lane_transport.LaneConsumer,
    Topic: batches.BatchTopic,
    App: batches.BatchApp,
    aiokafka.AIOKafkaConsumer: plain_records.PlainConsumer,
    Fetcher: plain_records.PlainFetcher,
    PartitionRecords: plain_records.PlainRecords,
}


@pytest.mark.parametrize(
    ("base", "name", "parameters"), OVERRIDDEN, ids=[f"{b.__name__}.{n}" for b, n, _ in OVERRIDDEN]
)
def test_overridden_method_is_there_with_its_parameters(
    base: type, name: str, parameters: list[str]
) -> None:
    theirs = getattr(base, name)
    ours = getattr(OURS[base], name)
    assert list(inspect.signature(theirs).parameters) == parameters
    assert ours is not theirs
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)


def test_every_method_that_we_override_is_listed() -> None:
    """Those that hide a private name of the base class: the list above must not lag behind."""
    listed = {(base, name) for base, name, _ in OVERRIDDEN}
    for base, ours in OURS.items():
        for name, member in vars(ours).items():
            if inspect.isfunction(member) and hasattr(base, name) and not name.startswith("__"):
                assert (base, name) in listed, f"{ours.__name__}.{name}"


def assigned_names(function: Callable[..., Any]) -> set[str]:
    """Attributes that `function` sets on self."""
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(function)).lstrip())
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }


def test_consumer_keeps_its_flow_and_its_messages_under_these_names() -> None:
    made = assigned_names(faust_consumer.Consumer.__init__)
    assert {"can_resume_flow", "suspend_flow", "_unacked_messages"} <= made
    for name in ("stop_flow", "resume_flow", "_wait_next_records", "wait_first", "seek_wait"):
        assert callable(getattr(driver.Consumer, name))
    for name in ("earliest_offsets", "highwaters", "assignment", "topic_partitions"):
        assert callable(getattr(driver.Consumer, name))
    assert assigned_names(faust_consumer.Consumer.stop_flow) == {"flow_active"}
    assert driver.Consumer.consumer_stopped_errors
    assert inspect.signature(driver.Consumer._wait_next_records).parameters.keys() == {
        "self",
        "timeout",
    }


def test_consumer_thread_makes_its_worker_consumer_by_the_name_that_we_override() -> None:
    source = inspect.getsource(driver.AIOKafkaConsumerThread._create_consumer)
    assert "self._create_worker_consumer(transport)" in source
    assert "self._fetch_records" in inspect.getsource(driver.AIOKafkaConsumerThread.getmany)
    assert "self._seek_wait" in inspect.getsource(driver.AIOKafkaConsumerThread.seek_wait)
    assert "_assignor" in inspect.getsource(driver.AIOKafkaConsumerThread)


def test_aiokafka_keeps_positions_under_these_names() -> None:
    """`_positions` reads them without a lock, in the loop that writes them."""
    assert "subscription" in dir(subscription_state.SubscriptionState)
    assert "assignment" in dir(subscription_state.Subscription)
    assert {"tps", "state_value"} <= set(dir(subscription_state.Assignment))
    state = set(dir(subscription_state.TopicPartitionState))
    assert {"position", "has_valid_position"} <= state
    assert "lso" in assigned_names(subscription_state.TopicPartitionState.__init__)
    assert "_subscription" in assigned_names(aiokafka.AIOKafkaConsumer.__init__)
    assert "fetched_records" in dir(Fetcher)


def test_aiokafka_takes_every_option_that_we_set() -> None:
    source = inspect.getsource(lane_transport.LaneThread._create_worker_consumer)
    tree = ast.parse(inspect.cleandoc("\n" + source).lstrip())
    [call] = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "PlainConsumer"
    ]
    options = {keyword.arg for keyword in call.keywords}
    assert {"isolation_level", "auto_offset_reset", "enable_auto_commit"} <= options
    assert options <= inspect.signature(aiokafka.AIOKafkaConsumer.__init__).parameters.keys()


def test_fetched_records_are_made_where_we_replace_them() -> None:
    """And nowhere else, with everything that a replacement is made from."""
    source = inspect.getsource(Fetcher)
    assert source.count("PartitionRecords(") == source.count("FetchResult(") == 1
    assert "self._records[tp] = FetchResult(" in inspect.getsource(Fetcher._proc_fetch_request)
    assert {
        *("_tp", "_records", "_aborted_transactions", "next_fetch_offset", "_check_crcs"),
        "_isolation_level",
    } <= assigned_names(PartitionRecords.__init__)
    assert "_partition_records" in assigned_names(FetchResult.__init__)
    # It reads nothing before it is asked, so nothing is lost when it is replaced.
    assert inspect.isgeneratorfunction(PartitionRecords._unpack_records)
    assert inspect.getsource(PartitionRecords).count("_consumer_record(") == 2


def test_consumer_makes_one_fetcher_from_options_that_we_pass_too() -> None:
    source = inspect.getsource(aiokafka.AIOKafkaConsumer.start)
    assert source.count("Fetcher(") == 1
    made = assigned_names(aiokafka.AIOKafkaConsumer.__init__)
    tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(plain_records.PlainConsumer)))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {name for name in used if name.startswith("_")} <= made
    # The two are the same but for the class and for what serves other needs than ours.
    theirs = set(inspect.signature(Fetcher.__init__).parameters) - {"self"}
    [call] = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "PlainFetcher"
    ]
    passed = {keyword.arg for keyword in call.keywords} | {"client", "subscriptions"}
    assert theirs - passed == {
        *("key_deserializer", "value_deserializer", "prefetch_backoff", "client_rack")
    }
    assert {"offset", "key", "value", "timestamp"} <= set(ConsumerRecord.__dataclass_fields__)


def test_recovery_opens_lanes_before_it_seeks_and_seeks_before_the_flow() -> None:
    """The order that fencing, rebuilding, seeking and flowing hang on."""
    source = inspect.getsource(Recovery._resume_streams)
    steps = [
        "await app.on_rebalance_complete.send()",
        "consumer.perform_seek()",
        "app.flow_control.resume()",
        "consumer.resume_flow()",
    ]
    places = [source.index(step) for step in steps]
    assert places == sorted(places)
    assert source.count("resume_flow()") == 1
    # We have no tables, so this is the only way that the flow resumes.
    assert "if not self.tables" in inspect.getsource(Recovery._restart_recovery.fun)


def test_revocation_stops_the_flow_and_drains_the_streams_first() -> None:
    source = inspect.getsource(App._on_partitions_revoked)
    assert source.index("T(consumer.stop_flow)") < source.index("T(self._consumer_wait_empty)")


def test_faust_reads_no_argument_of_ours() -> None:
    """It reads sys.argv when it is imported; batches hides it meanwhile, and puts it back."""
    assert sys.argv is sys_argv
    assert "sys.argv" in inspect.getsource(import_module("faust"))
