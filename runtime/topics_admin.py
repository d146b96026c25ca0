"""Do the topics exist, and are they what the lanes need?

Creating is repeatable. A topic that exists with another partition count is refused: a pid would
change its lane, and with it its memory (a new generation is the way, see ARCHITECTURE.md).
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from runtime.settings import Settings
from schemas.errors import StoreRefused, StoreUnavailable
from schemas.topics import DAY_MS, Topic

HOUR_MS = 3_600_000
COMPACTED_WITHIN_MS = HOUR_MS
SEGMENT_MS = HOUR_MS // 2
TOMBSTONE_MS = 7 * DAY_MS
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


def align_topics(settings: Settings, made: Sequence[str] = ()) -> list[str]:
    """Every topic is kept as configured, also one that was made otherwise; what changed, a line
    each. Those that were `made` just now are so already.

    Raises StoreUnavailable when Kafka does not answer.
    """
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    topics = [topic for topic in settings.topic_names.all() if topic.name not in made]
    wanted = {topic.name: topic_config(topic, settings) for topic in topics}
    said, changes = [], []
    for name, found in topic_configs(admin, list(wanted)).items():
        # A broker that does not tell a setting (noida-db, of some) does not have it either.
        differing = {k: v for k, v in wanted[name].items() if found.get(k, v) != v}
        said += [f"{name}: {key} from {found[key]} to {v}" for key, v in differing.items()]
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
            for key, value in differing.items()
        ]
        if entries:
            changes.append(ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries))
    if changes:
        _await(admin.incremental_alter_configs(changes), "change the settings of")
    return said


def topic_configs(admin: AdminClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Of each topic the settings in force. Raises StoreUnavailable, also where one is missing."""
    if not names:
        return {}
    asked = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    answers = _await(admin.describe_configs(asked), "tell the settings of")
    return {
        name: {key: entry.value for key, entry in found.items()} for name, found in answers.items()
    }


def _await(futures: Mapping[ConfigResource, Any], asked: str) -> dict[str, Any]:
    answers = {}
    for resource, future in futures.items():
        try:
            answers[resource.name] = future.result(ANSWER_WITHIN_S)
        except (KafkaException, TimeoutError) as error:
            raise StoreUnavailable(f"Kafka did not {asked} {resource.name}") from error
    return answers


def retention_ms_of(topic: Topic, settings: Settings) -> int | None:
    """How long Kafka keeps a record for sure; None where the newest of each key stays."""
    if topic.retention_ms is None:
        return None
    chosen = settings.topics.get(topic.name.removeprefix(settings.kafka.topic_prefix))
    days = chosen.retention_days if chosen is not None else None
    return days * DAY_MS if days is not None else topic.retention_ms


def segment_ms_of(retention_ms: int) -> int:
    """How much longer it may stay: Kafka deletes whole segments, once their newest is old."""
    return min(7 * DAY_MS, retention_ms // 10)


def gone_after_ms(topic: Topic, settings: Settings) -> int:
    """How long a record is on the disk at most; of a compacted topic its key after a tombstone."""
    retention_ms = retention_ms_of(topic, settings)
    if retention_ms is None:
        return 2 * (SEGMENT_MS + COMPACTED_WITHIN_MS) + TOMBSTONE_MS
    return retention_ms + segment_ms_of(retention_ms)


def topic_config(topic: Topic, settings: Settings) -> dict[str, str]:
    """Kafka's settings of a topic: retention, or compaction that keeps up with erasure."""
    config = {"max.message.bytes": str(topic.max_message_bytes)}
    if settings.kafka.replication_factor >= 3:
        config |= {"min.insync.replicas": "2", "unclean.leader.election.enable": "false"}
    retention_ms = retention_ms_of(topic, settings)
    if retention_ms is None:
        # An erased person's older records are gone from closed segments within these bounds.
        return config | {
            "cleanup.policy": "compact",
            "max.compaction.lag.ms": str(COMPACTED_WITHIN_MS),
            "segment.ms": str(SEGMENT_MS),
            "delete.retention.ms": str(TOMBSTONE_MS),
            "min.cleanable.dirty.ratio": "0.2",
        }
    return config | {
        "cleanup.policy": "delete",
        "retention.ms": str(retention_ms),
        "segment.ms": str(segment_ms_of(retention_ms)),
    }


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
