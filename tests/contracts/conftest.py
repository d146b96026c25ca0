"""On which brokers does the contract suite run, and what do its tests share?

On the one that HEADWATER_TEST_BROKER chooses; on noida-db as well (test_in_trial.py), so that trial
mode is kept honest; and a part of it on three Apache Kafka brokers with three replicas of everything
(test_on_cluster.py), the whole with HEADWATER_TEST_BROKER=cluster.
"""

from collections.abc import Callable

import pytest
from confluent_kafka.admin import NewTopic

from tests.conftest import FreshName
from tests.contracts.broker import Broker

MakeTopic = Callable[..., str]


@pytest.fixture
def broker(kafka: str, broker_kind: str, replication: int) -> Broker:
    """The broker under contract."""
    return Broker(kafka, broker_kind, replication)


@pytest.fixture
def make_topic(broker: Broker, fresh_name: FreshName) -> MakeTopic:
    """Makes a topic; its name."""

    def make(partitions: int = 1, **config: str) -> str:
        name = fresh_name("contract")
        settings = {key.replace("_", "."): value for key, value in config.items()}
        admin = broker.admin()
        wanted = NewTopic(name, partitions, broker.replication, config=settings)
        for made in admin.create_topics([wanted]).values():
            made.result(30)
        broker.wait_known(name)
        return name

    return make


@pytest.fixture
def topic(make_topic: MakeTopic) -> str:
    """A topic of one partition."""
    return make_topic()
