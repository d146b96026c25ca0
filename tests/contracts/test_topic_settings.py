"""Does a topic behave as it was set up, and are settings that cannot be kept refused?"""

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from tests.conftest import FreshName
from tests.contracts.broker import Broker
from tests.contracts.conftest import MakeTopic
from tests.waiting import eventually


def test_topic_says_how_it_was_made_and_takes_changes(
    broker: Broker, make_topic: MakeTopic
) -> None:
    topic = make_topic(retention_ms="86400000", max_message_bytes="50000")
    admin = broker.admin()
    resource = ConfigResource(ResourceType.TOPIC, topic)

    def configured() -> dict[str, str]:
        [future] = admin.describe_configs([resource]).values()
        return {name: entry.value for name, entry in future.result(30).items()}

    found = configured()
    assert (found["retention.ms"], found["max.message.bytes"]) == ("86400000", "50000")
    change = ConfigEntry("retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET)
    [done] = admin.incremental_alter_configs(
        [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[change])]
    ).values()
    done.result(30)
    eventually(lambda: configured()["retention.ms"] == "3600000")
    assert configured()["max.message.bytes"] == "50000"


def test_wrong_setting_is_refused(broker: Broker, fresh_name: FreshName) -> None:
    admin = broker.admin()
    name = fresh_name("wrong")
    wanted = NewTopic(name, 1, broker.replication, config={"retention.ms": "soon"})
    [made] = admin.create_topics([wanted]).values()
    with pytest.raises(KafkaException):
        made.result(30)
    assert name not in admin.list_topics(timeout=30).topics


def test_more_replicas_than_brokers_are_refused(broker: Broker, fresh_name: FreshName) -> None:
    admin = broker.admin()
    [made] = admin.create_topics([NewTopic(fresh_name("wide"), 1, 4)]).values()
    with pytest.raises(KafkaException):
        made.result(30)


def test_topic_that_is_only_asked_for_is_not_made(broker: Broker, fresh_name: FreshName) -> None:
    name = fresh_name("misspelt")
    admin = broker.admin()
    admin.list_topics(name, timeout=10)
    broker.shows(name in admin.list_topics(timeout=10).topics, False, trial=True)
