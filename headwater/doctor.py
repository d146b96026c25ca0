"""Is everything that Headwater needs there, and what is to be done where it is not?

One check a line, in the order in which one needs the next. A line never shows a secret or a value
of a person: names, addresses without passwords, counts and versions.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from consumers.messages.templates_of_messages import SHIPPED, TemplateFault, Templates
from consumers.rules.messages import EMAIL
from headwater.caller import Caller, url_of
from headwater.running import chosen_settings, settings_in_force
from runtime import apache_kafka
from runtime.clickhouse import answering, connect
from runtime.settings import Settings
from runtime.smtp import SmtpServer
from runtime.trial import NOIDA_DB_CLUSTER_ID
from runtime.vault import Vault
from runtime.webhooks import secret_of
from schemas.compatibility import check_schemas
from schemas.errors import StoreRefused, StoreUnavailable, StreamError
from sinks.migrations.apply import migrations

_ANSWER_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `text` says what to do when it is not well."""

    name: str
    is_well: bool
    text: str

    def as_json(self) -> dict[str, object]:
        """For programs."""
        return {"check": self.name, "ok": self.is_well, "text": self.text}


def examine(config: Path | None, data_dir: Path | None) -> list[Check]:
    """Every check that can be made; those behind a missing configuration are left out."""
    found = [
        _check("schemas", _schemas),
        _check("embedded", _embedded),
    ]
    try:
        chosen = chosen_settings(config, data_dir=data_dir)
        found.insert(0, Check("configuration", True, f"valid; data_dir is {chosen.data_dir}"))
    except StreamError as error:
        return [Check("configuration", False, str(error)), *found]
    try:
        settings = settings_in_force(chosen)
    except StreamError as error:
        return [*found, Check("running", False, str(error))]
    return [*found, *_examine_servers(settings)]


def _examine_servers(settings: Settings) -> Iterator[Check]:
    checks: tuple[tuple[str, Callable[[Settings], str]], ...] = (
        ("keys", _keys),
        ("kafka", _kafka),
        ("topics", _topics),
        ("redis", _redis),
        ("vault", _vault),
        ("clickhouse", _clickhouse),
        ("migrations", _migrations),
        ("http", _http),
        ("mail", _mail),
        ("webhooks", _webhooks),
    )
    for name, look in checks:
        yield _check(name, partial(look, settings))


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except StreamError as error:
        return Check(name, False, str(error))


def _schemas() -> str:
    problems = check_schemas()
    if problems:
        raise StoreRefused(f"{problems[0]} (headwater schemas check shows all)")
    return "compatible with every earlier version"


def _embedded() -> str:
    tools = apache_kafka.look_for_tools()
    if tools.is_enough:
        return f"`headwater up` can embed Apache Kafka {apache_kafka.VERSION}"
    return f"`headwater up` embeds noida-db in trial mode ({tools.missing})"


def _keys(settings: Settings) -> str:
    missing = [role for role in ("viewer", "admin") if not settings.http.keys.get(role)]
    if not settings.sources and not settings.http.keys.get("write"):
        missing.append("write")
    if missing:
        raise StoreUnavailable(f"no API key for {', '.join(missing)}: set them in [http.keys]")
    return f"API keys for {len(settings.http.keys)} roles, {len(settings.sources)} sources"


def _kafka(settings: Settings) -> str:
    address = settings.kafka.bootstrap_servers
    try:
        known: Any = AdminClient({"bootstrap.servers": address, "log_level": 0}).list_topics(
            timeout=_ANSWER_WITHIN_S
        )
    except KafkaException as error:
        raise StoreUnavailable(
            f"no broker answers at {address}; start it, or correct [kafka] bootstrap_servers"
        ) from error
    is_trial = settings.kafka.is_trial or known.cluster_id == NOIDA_DB_CLUSTER_ID
    kind = ", trial mode: exact over clean stops only" if is_trial else ""
    return f"{len(known.brokers)} broker(s) at {address}{kind}"


def _topics(settings: Settings) -> str:
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers, "log_level": 0})
    try:
        known: Any = admin.list_topics(timeout=_ANSWER_WITHIN_S).topics
    except KafkaException as error:
        raise StoreUnavailable("not checked: no broker answers") from error
    wanted = [topic.name for topic in settings.topic_names.all()]
    if missing := [name for name in wanted if name not in known]:
        raise StoreUnavailable(f"missing: {', '.join(missing)}; run headwater topics")
    for name in wanted:
        count = len(known[name].partitions)
        if count != settings.kafka.partitions:
            raise StoreRefused(
                f"{name} has {count} partitions, [kafka] partitions says "
                f"{settings.kafka.partitions}; set it to {count}"
            )
    return f"{len(wanted)} topics with {settings.kafka.partitions} partitions"


def _redis(settings: Settings) -> str:
    where = _without_password(settings.redis.url)
    try:
        with redis.Redis.from_url(settings.redis.url, socket_timeout=_ANSWER_WITHIN_S) as client:
            about: Any = client.info("server")
    except (redis.RedisError, ValueError) as error:
        raise StoreUnavailable(
            f"nobody answers at {where} ({type(error).__name__}); start it, or correct [redis] url"
        ) from error
    name = "Valkey" if "valkey_version" in about else "Redis"
    version = about.get("valkey_version") or about.get("redis_version")
    return f"{name} {version} at {where}"


def _vault(settings: Settings) -> str:
    vault = Vault.from_settings(settings)
    try:
        vault.check()
    finally:
        vault.close()
    return f"key files are there; writes are durable at {_without_password(settings.vault_url)}"


def _clickhouse(settings: Settings) -> str:
    client = connect(settings, database="")
    try:
        with answering("its version"):
            version = client.command("SELECT version()")
    finally:
        client.close()
    return f"ClickHouse {version} at {_without_password(settings.clickhouse.url)}"


def _migrations(settings: Settings) -> str:
    database = settings.clickhouse.database
    known = [name for _, name, _ in migrations()]
    client = connect(settings, database="")
    try:
        with answering("which migrations it has"):
            # A setting's pattern allows letters, digits and underscores in the name only.
            sql = f"SELECT DISTINCT name FROM {database}.migrations"  # noqa: S608
            applied = {row[0] for row in client.query(sql).result_rows}
    except StoreRefused as error:
        raise StoreUnavailable(
            f"no tables in database {database} yet; run headwater topics"
        ) from error
    finally:
        client.close()
    if missing := [name for name in known if name not in applied]:
        raise StoreUnavailable(f"not applied: {', '.join(missing)}; run headwater topics")
    return f"{len(known)} applied in database {database}"


def _http(settings: Settings) -> str:
    url = url_of(settings.http)
    caller = Caller(url, settings.http.keys, wait=lambda _: True)
    try:
        caller.get("/readyz", "viewer")
    except StreamError as error:
        raise StoreUnavailable(
            f"{url}/readyz is not ready ({error}); see the logs of the role http"
        ) from error
    finally:
        caller.close()
    return f"ready at {url}"


def _mail(settings: Settings) -> str:
    templates = Templates(settings)
    try:
        named = {each.template for each in settings.journeys if each.channel == EMAIL}
        for name in sorted(named.union(SHIPPED)):
            templates.check(name)
    except TemplateFault as fault:
        raise StoreRefused(f"[sending] templates_dir: {fault.reason}") from None
    if not settings.smtp.host:
        return "no [smtp] host: messages go to the page /outbox, to nobody"
    server = SmtpServer(settings.smtp)

    async def connect_once() -> None:
        async with server.connected():
            pass

    asyncio.run(connect_once())
    where = f"{settings.smtp.host}:{settings.smtp.port}"
    return f"{where} takes us, from {server.sender.addr_spec}"


def _webhooks(settings: Settings) -> str:
    for chosen in settings.webhooks:
        secret_of(chosen)
    return f"{len(settings.webhooks)} with a secret each"


def _without_password(url: str) -> str:
    at = urlsplit(url)
    host = at.hostname or ""
    return f"{at.scheme}://{host}{f':{at.port}' if at.port else ''}"
