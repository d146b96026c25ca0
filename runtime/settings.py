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
from typing import Any, get_args

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator

from runtime.segment_settings import read_segments
from runtime.settings_journeys import Journey
from runtime.settings_sections import (
    ROLES,
    Attribution,
    ClearFields,
    ClickHouse,
    Consent,
    Erasure,
    FactSettings,
    Fields,
    Http,
    Kafka,
    Metrics,
    Profiles,
    Purpose,
    Redis,
    Role,
    Section,
    Source,
    Tables,
    TableSettings,
    Time,
    TopicSettings,
    Vault,
)
from runtime.settings_sending import Sending, Smtp, Webhook
from runtime.settings_traits import Traits
from schemas.circumstances import words_of
from schemas.errors import SettingInvalid
from schemas.segments import MOST_WINDOW_DAYS, Known
from schemas.toml_lines import lines_of
from schemas.topics import DAY_MS, Topics
from schemas.traits import Measures

__all__ = [
    "ENVIRONMENT_PREFIX",
    "ROLES",
    "Attribution",
    "ClearFields",
    "ClickHouse",
    "Consent",
    "Erasure",
    "FactSettings",
    "Fields",
    "Http",
    "Journey",
    "Kafka",
    "Metrics",
    "Profiles",
    "Purpose",
    "Redis",
    "Role",
    "Section",
    "Settings",
    "Source",
    "TableSettings",
    "Tables",
    "Time",
    "TopicSettings",
    "Traits",
    "Vault",
    "load_settings",
]

ENVIRONMENT_PREFIX = "HEADWATER_"


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
    profiles: Profiles = Profiles()
    attribution: Attribution = Attribution()
    time: Time = Time()
    traits: Traits = Traits()
    erasure: Erasure = Erasure()
    sending: Sending = Sending()
    smtp: Smtp = Smtp()
    webhooks: tuple[Webhook, ...] = Field((), validate_default=True)
    journeys: tuple[Journey, ...] = ()
    segments: tuple[dict[str, Any], ...] = Field(
        (), description="who belongs together: id, name, condition (schemas/segments.py)"
    )

    @field_validator("journeys")
    @classmethod
    def _name_journeys_once(cls, journeys: tuple[Journey, ...]) -> tuple[Journey, ...]:
        names = [journey.id for journey in journeys]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{min(twice)} is the id of two journeys")
        return journeys

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

    @field_validator("tables")
    @classmethod
    def _outlast_the_log(cls, tables: Tables, told: ValidationInfo) -> Tables:
        """Facts are made from the log: what is gone must not come out of it again."""
        days, name = tables.facts.retention_days, "events.accepted"
        chosen = told.data.get("topics", {}).get(name, TopicSettings()).retention_days
        shipped_ms = next(t.retention_ms for t in Topics().all() if t.name == name)
        least = 2 * (chosen or (shipped_ms or 0) // DAY_MS)
        if 0 < days < least:
            raise ValueError(
                f"facts.retention_days: expected 0, or {least} at least: twice as long as {name}"
            )
        return tables

    @field_validator("webhooks")
    @classmethod
    def _know_webhooks(
        cls, webhooks: tuple[Webhook, ...], told: ValidationInfo
    ) -> tuple[Webhook, ...]:
        names = [each.name for each in webhooks]
        if len(set(names)) < len(names) or "email" in names:
            raise ValueError("expected a name of its own for each, and not email")
        chosen = told.data.get("sending", Sending()).segment_webhook
        if chosen and chosen not in names:
            raise ValueError(f"[sending] segment_webhook names {chosen}, which is none of them")
        return webhooks

    @field_validator("profiles")
    @classmethod
    def _know_the_idle(cls, profiles: Profiles, told: ValidationInfo) -> Profiles:
        """Who is idle is told by their facts."""
        tables = told.data.get("tables", Tables())
        if 0 < tables.facts.retention_days <= profiles.idle_days:
            raise ValueError("idle_days: expected less than [tables.facts] retention_days")
        return profiles

    @property
    def topic_names(self) -> Topics:
        return Topics(self.kafka.topic_prefix)

    @property
    def segment_names(self) -> Known:
        """The names that the condition of a segment may use."""
        days = min(self.time.history_days, MOST_WINDOW_DAYS)
        return Known(
            tuple(self.purposes),
            self.fields.traits.clear,
            days,
            tuple(self.traits.monetary),
            words_of("timezone"),
        )

    @property
    def measures(self) -> Measures:
        """By what scores and favourites are told."""
        return Measures(self.traits.thresholds, self.time.history_days)

    @property
    def vault_url(self) -> str:
        return self.vault.url or self.redis.url


def load_settings(path: Path | None, environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of `path` (TOML or JSON; None for the defaults), overlaid by the environment.

    Raises SettingInvalid naming the first setting at fault, what was expected and, for an unknown
    name, the nearest known one.
    """
    values: dict[str, Any] = {}
    text = ""
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
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise SettingInvalid(_explain(error)) from None
    if settings.segments and path is not None:
        lines = {} if path.suffix == ".json" else lines_of(text)
        read_segments(settings.segments, settings.segment_names, where=path.name, lines=lines)
    return settings


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
        if part.isdigit():
            model = get_args(model)[0]  # of a list of sections
            continue
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = field.annotation if field is not None else None
    names = dict.fromkeys(model.model_fields) if hasattr(model, "model_fields") else {}
    return f"{where} is not a setting{_nearest(path[-1], names)}"
