"""Does a cluster of three keep the contract, with three replicas of each record?

A part of the suite: what goes through other paths in a cluster (coordinators, last stable offsets,
leaders that know who is in sync), what a broker forgets, and what it must not forget.
"""

from typing import Literal

import pytest
from confluent_kafka.admin import NewTopic

from tests.conftest import FreshName
from tests.contracts.broker import Broker
from tests.contracts.forgetting import (  # noqa: F401 - the tests themselves
    test_compaction_keeps_the_newest_value_of_each_key_and_its_offset,
    test_records_older_than_retention_are_gone,
)
from tests.contracts.test_broker import (  # noqa: F401
    open_lane,
    test_topics_are_created_once_as_configured,
    test_transaction_of_a_fenced_owner_is_never_seen,
    topics,
)
from tests.contracts.test_groups import (  # noqa: F401
    test_committed_offset_comes_back_with_its_metadata,
)
from tests.contracts.test_positions import (  # noqa: F401
    test_open_transaction_holds_the_last_stable_offset,
    test_reader_from_mid_log_after_an_abort_sees_all_that_is_committed,
)
from tests.contracts.test_producing import test_batch_sent_again_is_written_once  # noqa: F401
from tests.kafka_cluster import KafkaCluster
from tests.waiting import eventually


@pytest.fixture
def kafka(kafka_cluster: KafkaCluster) -> str:
    """bootstrap.servers of the cluster."""
    return kafka_cluster.bootstrap_servers


@pytest.fixture
def broker_kind() -> Literal["apache"]:
    """Which broker `kafka` is."""
    return "apache"


@pytest.fixture
def replication() -> int:
    """How many brokers have each record."""
    return 3


def test_commit_while_a_partition_has_no_leader_is_seen_once_it_has_one(
    kafka_cluster: KafkaCluster, broker: Broker, fresh_name: FreshName
) -> None:
    """What was committed stays committed: 4.3 and 4.4 forget it (KAFKA-20734, ADR 0008)."""
    topic, alone = fresh_name("contract"), 2
    admin = broker.admin()
    admin.create_topics([NewTopic(topic, 1, replica_assignment=[[alone]])])[topic].result(30)
    broker.wait_known(topic)
    lane = broker.transactional(fresh_name("lane"))
    lane.begin_transaction()
    lane.produce(topic, b"committed", partition=0)
    assert lane.flush(30) == 0
    kafka_cluster.kill(alone)
    try:
        eventually(lambda: kafka_cluster.leader_of(topic, 0) == -1, within_s=60)
        lane.commit_transaction(60)
    finally:
        kafka_cluster.restart(alone)
    eventually(lambda: [value for _, value in broker.read(topic).records] == [b"committed"])
