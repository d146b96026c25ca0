"""Is the broker noida-db, and would this be its only streams worker?

What noida-db does differently must be known before a lane writes (docs/trial-mode.md). `headwater
up` knows it of the broker that it started; whoever names the address of one, we ask. Trial mode is
tested with one streams worker, so a second one is refused instead of trusted.
"""

from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from runtime.logs import get_logger
from runtime.processes import lock_directory
from runtime.settings import Settings
from schemas.errors import SettingInvalid, StoreRefused, StoreUnavailable

NOIDA_DB_CLUSTER_ID = "MkU3OEVBNTctOEUyRi00"
"""Every noida-db calls its cluster so (0.2.3); a test tells when one does not."""

ANSWER_WITHIN_S = 10.0


def is_noida_db(bootstrap_servers: str) -> bool:
    """True if the broker there is noida-db. Raises StoreUnavailable when none answers."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    try:
        known: Any = admin.list_topics(timeout=ANSWER_WITHIN_S)
    except KafkaException as error:
        raise StoreUnavailable(f"no broker answers at {bootstrap_servers}") from error
    return bool(known.cluster_id == NOIDA_DB_CLUSTER_ID)


def admit_streams_worker(settings: Settings, group: str) -> Settings:
    """The settings to work by: with `is_trial`, said in a line, where the broker is noida-db.

    In trial mode this process is then the only one that works on its data_dir. Raises StoreRefused
    if another worker is at work, in `group` or on the data_dir; StoreUnavailable when the broker
    does not answer.
    """
    kafka = settings.kafka
    if not kafka.is_trial:
        if not is_noida_db(kafka.bootstrap_servers):
            return settings
        get_logger().warning("trial mode: the broker is noida-db", see="docs/trial-mode.md")
        kafka = kafka.model_copy(update={"is_trial": True})
        settings = settings.model_copy(update={"kafka": kafka})
    if others := _others(kafka.bootstrap_servers, group, kafka.instance_id):
        raise StoreRefused(
            f"trial mode runs one streams worker, and {group} has another ({', '.join(others)}); "
            "stop that one, or wait 10 s if it was killed"
        )
    try:
        # Two that share a name cannot be told apart in the group. Held until this process ends.
        lock_directory(Path(settings.data_dir) / "run" / "streams")
    except SettingInvalid as error:
        raise StoreRefused(f"trial mode runs one streams worker: {error}") from None
    return settings


def _others(bootstrap_servers: str, group: str, instance_id: str) -> list[str]:
    """Members of `group` that are not an earlier run of ours."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    try:
        found: Any = admin.describe_consumer_groups([group])[group].result(ANSWER_WITHIN_S)
    except (KafkaException, TimeoutError) as error:
        raise StoreUnavailable(f"{bootstrap_servers} did not say who is in {group}") from error
    names = (each.group_instance_id or each.member_id for each in found.members)
    return sorted(name for name in names if not instance_id or name != instance_id)
