"""Does noida-db keep the contract, and differ from Apache Kafka only where we say so?

Its differences are written in the tests themselves (`trial=`) and in docs/trial-mode.md.
"""

from collections.abc import Iterator
from typing import Literal

import pytest

from runtime.embedded import EmbeddedStack, Wanted
from tests.contracts.forgetting import *  # noqa: F403 - the tests themselves
from tests.contracts.test_broker import *  # noqa: F403
from tests.contracts.test_groups import *  # noqa: F403
from tests.contracts.test_positions import *  # noqa: F403
from tests.contracts.test_producing import *  # noqa: F403
from tests.contracts.test_topic_settings import *  # noqa: F403


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
