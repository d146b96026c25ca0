"""Do the topics exist, and are they what the lanes need?

Creating is repeatable. A topic that exists with another partition count is refused: a pid would
change its lane, and with it its memory (a new generation is the way, see ARCHITECTURE.md).
"""

import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from runtime.settings import Settings
from schemas.errors import StoreRefused, StoreUnavailable
from schemas.topics import DAY_MS, Topic

HOUR_MS = 3_600_000
ANSWER_WITHIN_S = 30.0


def ensure_topics(settings: Settings) -> list[str]:
    """Every topic of ours exists with the right partitions; the names of those just created.

    Raises StoreUnavailable when Kafka does not answer, StoreRefused when a topic stands with
    another partition count.
    """
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    topics = settings.topic_names.all()
    made = []
    wanted = [
        NewTopic(
            topic.name,
            settings.kafka.partitions,
            settings.kafka.replication_factor,
            config=topic_config(topic, settings),
        )
        for topic in topics
    ]
    for name, future in admin.create_topics(wanted, operation_timeout=ANSWER_WITHIN_S).items():
        try:
            future.result(ANSWER_WITHIN_S)
            made.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise StoreUnavailable(f"Kafka did not create {name}: {error.args[0]}") from error
        except TimeoutError as error:
            raise StoreUnavailable(f"Kafka did not answer while creating {name}") from error
    _check_partitions(admin, topics, settings, made)
    return made


def topic_config(topic: Topic, settings: Settings) -> dict[str, str]:
    """Kafka's settings of a topic: retention, or compaction that keeps up with erasure."""
    config = {"max.message.bytes": str(topic.max_message_bytes)}
    if settings.kafka.replication_factor >= 3:
        config |= {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"}
    if topic.retention_ms is None:
        # An erased person's older records are gone from closed segments within these bounds.
        return config | {
            "cleanup.policy": "compact",
            "max.compaction.lag.ms": str(HOUR_MS),
            "segment.ms": str(HOUR_MS // 2),
            "delete.retention.ms": str(7 * DAY_MS),
            "min.cleanable.dirty.ratio": "0.2",
        }
    bare_name = topic.name.removeprefix(settings.kafka.topic_prefix)
    chosen = settings.topics.get(bare_name)
    days = chosen.retention_days if chosen is not None else None
    retention_ms = days * DAY_MS if days is not None else topic.retention_ms
    return config | {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}


def _check_partitions(
    admin: AdminClient, topics: tuple[Topic, ...], settings: Settings, made: list[str]
) -> None:
    until_s = time.monotonic() + ANSWER_WITHIN_S
    while True:
        try:
            known: Any = admin.list_topics(timeout=ANSWER_WITHIN_S).topics
        except KafkaException as error:
            raise StoreUnavailable(f"Kafka did not list its topics: {error.args[0]}") from error
        # A broker says that a topic is made a moment before it knows it.
        if known.keys() >= set(made) or time.monotonic() > until_s:
            break
        time.sleep(0.05)
    for topic in topics:
        found = len(known[topic.name].partitions) if topic.name in known else 0
        if found and found != settings.kafka.partitions:
            raise StoreRefused(
                f"{topic.name} has {found} partitions, [kafka] partitions says "
                f"{settings.kafka.partitions}; set it to {found}, or begin a new generation"
            )
