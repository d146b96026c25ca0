"""What do we hold of people, of which class, for what, on which basis, for how long, and where?

Read from the Avro schemas, from ClickHouse's own columns, from the layouts beside the code that
writes Redis keys, and from the configuration; how long things are kept is asked of Kafka and
ClickHouse, so that it is what is in force (GDPR Art. 30(1)).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka.admin import AdminClient

from consumers.erasures import store as erasure_store
from consumers.erasures.fact_ages import STEPS
from consumers.messages import scripts as message_scripts
from runtime import consent_overlay, kin, vault_rows
from runtime.clickhouse import answering, connect
from runtime.purposes import explain, purposes_in_force
from runtime.settings import Fields, Settings
from runtime.topics_admin import retention_ms_of, topic_configs
from schemas.codec import VERSIONS
from schemas.events import MADE_CONTEXT
from schemas.held import Held, Layout, column, fields_of
from schemas.topics import DAY_MS, Topic
from sinks import profile_store
from sinks.migrations.limits import limits_in_force

LAYOUTS: tuple[Layout, ...] = (
    *vault_rows.LAYOUT,
    *consent_overlay.LAYOUT,
    *kin.LAYOUT,
    *erasure_store.LAYOUT,
    *profile_store.LAYOUT,
    *message_scripts.LAYOUT,
)
"""Every kind of key that we write into Redis."""

UNTIL_ERASED = "until the person is erased"
_HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Place:
    """A topic, table or kind of key; `kept` says for how long in words."""

    kind: str
    name: str
    kept: str
    fields: tuple[Held, ...]


def take_inventory(settings: Settings) -> list[Place]:
    """Every place and every field in it. Raises StoreUnavailable or StoreRefused."""
    return [*_topics(settings), *_tables(settings), *_keys(settings)]


def unclassed(places: Sequence[Place]) -> list[str]:
    """Fields of which nothing says what they hold."""
    return [
        f"{place.kind} {place.name}: {field.name}"
        for place in places
        for field in place.fields
        if not (field.data_class and field.purposes)
    ]


def to_json(places: Sequence[Place], settings: Settings) -> dict[str, Any]:
    """The inventory for programs."""
    known = purposes_in_force(settings)
    return {
        "places": [
            {
                "kind": place.kind,
                "name": place.name,
                "kept": place.kept,
                "fields": [
                    {
                        "field": field.name,
                        "class": field.data_class,
                        "purposes": explain(field.purposes, known),
                        "sealed": field.is_sealed,
                        "meaning": field.meaning,
                    }
                    for field in place.fields
                ],
            }
            for place in places
        ],
        "unclassed": unclassed(places),
    }


def topic_fields(topic: Topic, fields: Fields) -> tuple[Held, ...]:
    """Every field of a topic's records, `Accepted.clear.properties.order_id`."""
    newest = {version.record: version.schema for version in VERSIONS}
    return tuple(
        replace(field, name=f"{record}.{field.name}")
        for record in topic.records
        for each in fields_of(newest[record])
        for field in _spelt_out(each, fields)
    )


def _spelt_out(field: Held, configured: Fields) -> Iterator[Held]:
    """What travels readable, name by name, as `[fields.*]` says."""
    part = field.name.removeprefix("clear.")
    if part == field.name:
        yield field
        return
    made = MADE_CONTEXT if part == "context" else {}
    ours = {name.partition(".")[0] for name in made}
    for name in getattr(configured, part).clear:
        if name not in ours:
            yield replace(field, name=f"{field.name}.{name}")
    for name, meaning in made.items():
        yield replace(field, name=f"{field.name}.{name}", meaning=meaning)


def _topics(settings: Settings) -> Iterator[Place]:
    topics = settings.topic_names.all()
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers, "log_level": 0})
    configs = topic_configs(admin, [topic.name for topic in topics])
    for topic in topics:
        kept = _kept(topic, configs[topic.name], settings)
        yield Place("topic", topic.name, kept, topic_fields(topic, settings.fields))


def _kept(topic: Topic, found: dict[str, str], settings: Settings) -> str:
    if "compact" in found.get("cleanup.policy", ""):
        return f"newest record of each key, {_until_erased(settings)}"
    retention_ms = int(found["retention.ms"])
    said = _span(retention_ms)
    if "segment.ms" in found:
        said += f", and {_span(int(found['segment.ms']))} at most until its segment closes"
    wanted_ms = retention_ms_of(topic, settings)
    if wanted_ms is not None and wanted_ms != retention_ms:
        said += f" (configured: {_span(wanted_ms)}; run headwater topics)"
    return said


def _span(ms: int) -> str:
    if ms < 0:
        return "for ever"
    return f"{ms / DAY_MS:g} days" if ms % DAY_MS == 0 else f"{ms / _HOUR_MS:.3g} hours"


def _tables(settings: Settings) -> Iterator[Place]:
    database = settings.clickhouse.database
    with connect(settings) as client:
        limits = limits_in_force(client, database)
        with answering("what its columns hold"):
            rows = client.query(
                "SELECT table, name, comment FROM system.columns "
                "WHERE database = {database:String} ORDER BY table, position",
                {"database": database},
            ).result_rows
    fields: dict[str, list[Held]] = {}
    for table, name, comment in rows:
        fields.setdefault(table, []).append(column(name, comment))
    for table, columns in fields.items():
        days = limits.get(table)
        facts_days = settings.tables.facts.retention_days
        if days is not None:
            kept = f"{days} days"
        elif table == "facts" and facts_days:
            step = max(1, facts_days // STEPS) + 1
            kept = f"{facts_days} days, and {step} at most until they are taken out"
        elif any(field.data_class == "identifier" for field in columns):
            kept = _until_erased(settings)
        else:
            kept = "without limit: it is of nobody"
        yield Place("table", f"{database}.{table}", kept, tuple(columns))


def _keys(settings: Settings) -> Iterator[Place]:
    prefixes = {
        "vault": settings.vault.key_prefix,
        "redis": settings.redis.key_prefix,
        "sending": settings.sending.key_prefix,
    }
    for layout in LAYOUTS:
        name = f"{prefixes[layout.prefix_of]}{layout.pattern}"
        kept = layout.kept.replace(UNTIL_ERASED, _until_erased(settings))
        yield Place("key", name, kept, layout.fields)


def _until_erased(settings: Settings) -> str:
    days = settings.profiles.idle_days
    return f"{UNTIL_ERASED}, or idle for {days} days" if days else UNTIL_ERASED
