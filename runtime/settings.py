"""What can be set, and what is said when it is set wrongly?

One frozen value, read once from `headwater.toml` (or JSON) and the environment: every scalar is
also `HEADWATER_SECTION_NAME`. Nothing else reads the environment. An unknown name or a wrong type
stops the start and says what was expected and which known name is nearest.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from schemas.errors import SettingInvalid
from schemas.topics import Topics

ENVIRONMENT_PREFIX = "HEADWATER_"
ROLES = ("write", "viewer", "activation", "consent_desk", "privacy_officer", "operator", "admin")
Role = Literal[
    "write", "viewer", "activation", "consent_desk", "privacy_officer", "operator", "admin"
]


class Section(BaseModel):
    """A part of the configuration: frozen, and closed to names it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kafka(Section):
    """`[kafka]`: the log."""

    bootstrap_servers: str = Field("", description="host:port,...; empty starts an embedded broker")
    embedded: Literal["auto", "apache", "trial"] = Field(
        "auto", description="which broker to embed: apache (Java 17), trial (noida-db), or the best"
    )
    topic_prefix: str = Field("", description="put before every topic, group and transactional id")
    partitions: int = Field(4, ge=1, le=1024, description="lanes; fixed once topics exist")
    replication_factor: int = Field(1, ge=1, le=9, description="3 in production")
    generation: int = Field(
        1, ge=1, description="incarnation of the log; raise it when the log was lost"
    )
    barrier_ms: int = Field(150, ge=10, le=5000, description="time between a lane's transactions")
    instance_id: str = Field(
        "", description="static group member (KIP-345), one for each worker; empty: dynamic"
    )
    is_trial: bool = Field(
        False, description="set by `headwater up`: the broker is noida-db, see docs/trial-mode.md"
    )


class Redis(Section):
    """`[redis]`: profiles."""

    url: str = Field("", description="redis://...; empty starts an embedded Valkey")
    key_prefix: str = Field("profile:", description="before every profile key")


class ClickHouse(Section):
    """`[clickhouse]`: facts and counters."""

    url: str = Field("", description="http://user:password@host:8123; empty starts an embedded one")
    database: str = Field("headwater", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")


class Vault(Section):
    """`[vault]`: who is behind a pid, and their keys."""

    url: str = Field("", description="redis://...; empty uses [redis] url")
    key_prefix: str = Field("vault:", description="before every vault key")
    key_encryption_key_file: str = Field("", description="32 bytes in hex; wraps the data keys")
    pepper_file: str = Field("", description="32 bytes in hex; keys the hashes of identifiers")
    durable_writes: bool = Field(
        True, description="new people are on disk before use; needs appendonly and Redis 7.2"
    )


class Http(Section):
    """`[http]`: the one port."""

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65535, description="0 takes a free one")
    keys: dict[Role, str] = Field(default_factory=dict, description="API key of each role")


class Metrics(Section):
    """`[metrics]`: where the roles beside collector and API show their numbers."""

    host: str = "127.0.0.1"
    port: int = Field(0, ge=0, le=65535, description="0: nowhere; `headwater up` takes free ones")


class Source(Section):
    """`[[sources]]`: who may send events."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    write_key: str = Field(min_length=8)
    quota_per_s: int = Field(0, ge=0, description="events a second; 0 is without limit")


class Purpose(Section):
    """`[purposes.*]`: why data may be used (GDPR Art. 6)."""

    basis: Literal["consent", "legitimate_interest"]
    owner: str = Field("", description="who in your organisation answers for this use")
    recipients: tuple[str, ...] = Field((), description="whom you give the data to for it")


class Consent(Section):
    """`[consent]`: how decisions come in."""

    signing_key_file: str = Field(
        "", description="32 bytes in hex; the Ed25519 key that signs the ledger of consents"
    )
    public_url: str = Field(
        "", description="https://... of the one port, for links in messages; empty: its address"
    )
    unsubscribe_link_days: int = Field(365, ge=30, le=3650, description="how long a link works")
    preferences_link_days: int = Field(30, ge=1, le=3650, description="how long a link works")
    confirm_hours: int = Field(24, ge=1, le=168, description="to confirm a pending subscription")

    categories: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="purposes that a category of an SDK stands for; each purpose is one by itself",
    )


class ClearFields(Section):
    """`[fields.*]`: names whose values may travel readable; everything else is sealed."""

    clear: tuple[str, ...] = ()


class Fields(Section):
    """Fields that name things, not people, in Segment's e-commerce and e-mail events."""

    properties: ClearFields = ClearFields(
        clear=(
            "affiliation",
            "brand",
            "campaign_id",
            "campaign_name",
            "cart_id",
            "category",
            "checkout_id",
            "coupon",
            "currency",
            "discount",
            "email_id",
            "link_id",
            "list_id",
            "machine",
            "order_id",
            "position",
            "price",
            "product_id",
            "products",
            "quantity",
            "revenue",
            "shipping",
            "sku",
            "subtotal",
            "tax",
            "total",
            "value",
            "variant",
        )
    )
    context: ClearFields = ClearFields(clear=("campaign",))
    traits: ClearFields = ClearFields()


class TopicSettings(Section):
    """`[topics.*]`: departures from a topic's defaults."""

    retention_days: int | None = Field(None, ge=1)


class TableSettings(Section):
    """How long a table of ClickHouse keeps its rows."""

    retention_days: int = Field(ge=1, le=36_500)


class Tables(Section):
    """`[tables.*]`: those whose rows grow old. Facts stay until their person is erased."""

    accesses: TableSettings = TableSettings(retention_days=365)
    verdicts: TableSettings = TableSettings(retention_days=90)


class Time(Section):
    """`[time]`: windows and limits, in event or received time as each says."""

    deduplication_hours: int = Field(72, ge=1, le=720, description="of received time")
    visit_gap_minutes: int = Field(30, ge=1, le=1440, description="without an event; event time")
    future_limit_s: int = Field(300, ge=0, description="later than this is clamped and flagged")
    skew_limit_s: int = Field(300, ge=0, description="larger client skew is corrected")
    stuck_after_s: int = Field(
        60, ge=2, le=86_400, description="of lag without progress: the role ends, to start again"
    )
    verify_every_s: int = Field(
        30, ge=1, le=86_400, description="between two comparisons of counters with facts"
    )


class Attribution(Section):
    """`[attribution]`: which campaign gets an order."""

    window_days: int = Field(5, ge=1, le=365)


class Erasure(Section):
    """`[erasure]`: how people are forgotten, and how that is proved."""

    signing_key_file: str = Field(
        "", description="32 bytes in hex: the Ed25519 key that signs certificates"
    )
    backups_days: int = Field(30, ge=0, le=3650, description="longest life of any backup")
    look_every_hours: int = Field(
        24, ge=1, le=8760, description="between two looks at an erasure that is not final"
    )
    rewrite_every_hours: int = Field(
        24, ge=0, le=8760, description="between two rewrites of ClickHouse's parts, at least"
    )
    keep_consent_proof: bool = Field(
        False, description="keep keyed hash and pid linked: consents stay provable"
    )
    sign_up_events: tuple[str, ...] = Field(
        ("Signed Up", "Account Created"),
        description="track events by which an erased person comes back as somebody new",
    )


class Settings(Section):
    """Everything, with the defaults of a first start."""

    data_dir: str = Field("headwater-data", description="embedded servers and made keys live here")
    kafka: Kafka = Kafka()
    redis: Redis = Redis()
    clickhouse: ClickHouse = ClickHouse()
    vault: Vault = Vault()
    http: Http = Http()
    metrics: Metrics = Metrics()
    sources: tuple[Source, ...] = ()
    purposes: dict[str, Purpose] = Field(
        default_factory=lambda: {
            "analytics": Purpose(basis="legitimate_interest"),
            "personalisation": Purpose(basis="legitimate_interest"),
            "advertising": Purpose(basis="consent"),
            "sale": Purpose(basis="consent"),
        }
    )
    consent: Consent = Consent()
    fields: Fields = Fields()
    topics: dict[str, TopicSettings] = Field(default_factory=dict)
    tables: Tables = Tables()
    attribution: Attribution = Attribution()
    time: Time = Time()
    erasure: Erasure = Erasure()

    @field_validator("topics")
    @classmethod
    def _know_topics(cls, topics: dict[str, TopicSettings]) -> dict[str, TopicSettings]:
        limits = {topic.name: topic.retention_ms for topic in Topics().all()}
        for name, chosen in topics.items():
            if name not in limits:
                raise ValueError(f"{name} is not a topic{_nearest(name, limits)}")
            if limits[name] is None and chosen.retention_days is not None:
                raise ValueError(f"{name} keeps the newest record of each key, not days")
        return topics

    @property
    def topic_names(self) -> Topics:
        return Topics(self.kafka.topic_prefix)

    @property
    def vault_url(self) -> str:
        return self.vault.url or self.redis.url


def load_settings(path: Path | None, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of `path` (TOML or JSON; None for the defaults), overlaid by the environment.

    Raises SettingInvalid naming the first setting at fault, what was expected and, for an unknown
    name, the nearest known one.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            text = path.read_text("utf-8")
            values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except OSError as error:
            raise SettingInvalid(f"cannot read {path}: {error.strerror}") from error
        except ValueError as error:
            raise SettingInvalid(
                f"{path} is not valid {path.suffix[1:].upper()}: {error}"
            ) from error
    _overlay(values, os.environ if environment is None else environment)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingInvalid(_explain(error)) from None


def _overlay(values: dict[str, Any], environment: Mapping[str, str]) -> None:
    scalars: dict[str, tuple[str, ...]] = {
        _variable(path): path for path in _scalar_paths(Settings)
    }
    for name in ("purposes", "topics"):
        inner = Purpose if name == "purposes" else TopicSettings
        known: Iterable[str] = Settings().purposes
        if name == "topics":
            known = [topic.name for topic in Topics().all() if topic.retention_ms is not None]
        for key in {*known, *values.get(name, {})}:
            for path in _scalar_paths(inner):
                scalars[_variable((name, key, *path))] = (name, key, *path)
    for role in ROLES:
        scalars[_variable(("http", "keys", role))] = ("http", "keys", role)
    for variable, value in environment.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable.startswith("HEADWATER_TEST_"):
            continue
        if variable not in scalars:
            raise SettingInvalid(f"{variable} is not a setting{_nearest(variable, scalars)}")
        path = scalars[variable]
        at = values
        for part in path[:-1]:
            at = at.setdefault(part, {})
        at[path[-1]] = value


def _variable(path: tuple[str, ...]) -> str:
    return ENVIRONMENT_PREFIX + "_".join(path).upper().replace(".", "_")


def _scalar_paths(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from ((name, *path) for path in _scalar_paths(inner))
        elif str(inner).startswith(("dict", "tuple")):
            continue
        else:
            yield (name,)


def _nearest(name: str, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _explain(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    path = [str(part) for part in first["loc"]]
    where = f"[{'.'.join(path[:-1])}] {path[-1]}" if len(path) > 1 else path[-1]
    if first["type"] != "extra_forbidden":
        return f"{where}: {first['msg']} (or set {_variable(tuple(path))})"
    model: Any = Settings
    for part in path[:-1]:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = field.annotation if field is not None else None
    names = dict.fromkeys(model.model_fields) if hasattr(model, "model_fields") else {}
    return f"{where} is not a setting{_nearest(path[-1], names)}"
