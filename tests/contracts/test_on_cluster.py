"""Does a cluster of three keep the contract, with three replicas of each record?

A part of the suite: what goes through other paths in a cluster (coordinators, last stable offsets,
leaders that know who is in sync), and what a broker forgets.
"""

from typing import Literal

import pytest

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
