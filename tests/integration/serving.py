"""A Headwater's HTTP port on real stores, and rows that a sink would have written."""

import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import uvicorn
from clickhouse_connect.driver.client import Client

from headwater.http import build_app
from runtime.settings import ROLES, Settings
from sinks.migrations.apply import apply_migrations
from sinks.rules.rows import FACT_COLUMNS
from tests.waiting import eventually

KEYS = {role: f"key-of-{role}-0123456789" for role in ROLES}
MORNING_MS = 1_767_258_000_000
"""2026-01-01T09:00:00Z."""


def at(text: str) -> int:
    """UTC milliseconds of an RFC 3339 moment."""
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def settings_of(
    directory: Path,
    *,
    kafka: str = "127.0.0.1:1",
    redis_url: str = "redis://127.0.0.1:1/0",
    clickhouse_url: str = "http://127.0.0.1:1",
    name: str = "t",
) -> Settings:
    """Settings whose names nobody else uses; a server that is not given is away."""
    for file in ("kek", "pepper"):
        (directory / file).write_text("0123456789abcdef" * 4)
    return Settings.model_validate(
        {
            "data_dir": str(directory),
            "kafka": {"bootstrap_servers": kafka, "topic_prefix": f"{name}.", "partitions": 2},
            "redis": {"url": redis_url, "key_prefix": f"{name}:profile:"},
            "clickhouse": {
                "url": clickhouse_url,
                "database": name.replace("-", "_").replace(".", "_"),
            },
            "vault": {
                "key_prefix": f"{name}:vault:",
                "key_encryption_key_file": str(directory / "kek"),
                "pepper_file": str(directory / "pepper"),
            },
            "http": {"port": 0, "keys": KEYS},
        }
    )


@dataclass
class Served:
    """A running port: ask it in a role."""

    url: str
    settings: Settings

    def get(self, path: str, role: str | None = "admin", **query: str | float) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEYS.get(role, role)}"} if role else {}
        return httpx.get(f"{self.url}{path}", params=query or None, headers=headers, timeout=30)


@contextmanager
def serving(
    settings: Settings, roles: Sequence[str] = ("api",), *, port: int = 0
) -> Iterator[Served]:
    """The application of `roles` on `port` (0: a free one), stopped as in production."""
    app = build_app(settings, roles)
    config = uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        eventually(lambda: server.started or not thread.is_alive())
        assert server.started
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Served(f"http://127.0.0.1:{port}", settings)
    finally:
        app.state.parts.end_streams()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@dataclass
class Rows:
    """Writes what the sink would: facts, counters, progress; one partition, offsets rising."""

    client: Client
    topic: str
    offset: int = 0
    totals: dict[tuple[str, str, str, int], int] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    def into(cls, client: Client, settings: Settings) -> "Rows":
        apply_migrations(client, settings.clickhouse.database)
        client.database = settings.clickhouse.database
        return cls(client, settings.topic_names.accepted)

    def fact(
        self,
        campaign: str,
        metric: str,
        person: int,
        at_ms: int = MORNING_MS,
        *,
        value: int = 1,
        visitor: bool = False,
        amount_micro: int = 0,
        currency: str = "",
        is_counted: bool = True,
    ) -> None:
        """One fact, and the counters that it moves."""
        at_time = datetime.fromtimestamp(at_ms / 1000, UTC)
        row = dict.fromkeys(FACT_COLUMNS, 0) | {
            "campaign_id": campaign, "event_date": at_time.date(), "generation": 1,
            "off": self.offset, "pid": person.to_bytes(16, "big"),
            "event_id": next(self.numbers).to_bytes(16, "big"),
            "occurred_at": at_time, "received_at": at_time, "metric": metric,
            "value": value if metric else 0, "amount_micro": amount_micro, "currency": currency,
            "is_visitor": int(visitor), "src_topic": "events.collected", "source": "",
        }  # fmt: skip
        self.client.insert("facts", [list(row.values())], column_names=list(row))
        if metric and is_counted:
            self.count(campaign, metric, value, at_ms)
        if currency and is_counted:
            money = {"orders": "revenue", "refunds": "refunded"}[metric]
            self.count(campaign, money, amount_micro, at_ms, currency)
        if is_counted:
            self.offset += 1

    def retract(self, campaign: str, metric: str, person: int, offset: int) -> None:
        """The fact at `offset` is taken back by what lies at the offset in hand."""
        self.client.command(
            "INSERT INTO facts SELECT * REPLACE (1 AS retracted_generation, "
            f"{self.offset + 1} AS retracted_next_off) FROM facts FINAL WHERE off = {offset} "
            f"AND pid = unhex('{person.to_bytes(16, 'big').hex()}')"
        )
        self.count(campaign, metric, -1)
        self.offset += 1

    def count(
        self, campaign: str, metric: str, value: int, at_ms: int = MORNING_MS, currency: str = ""
    ) -> None:
        """One absolute counter row, as of the offset in hand."""
        minute = at_ms // 60_000 * 60
        key = (campaign, metric, currency, minute)
        self.totals[key] = self.totals.get(key, 0) + value
        row = [campaign, metric, currency, minute, 1, 0, self.totals[key], self.offset]
        names = [
            "campaign_id",
            "metric",
            "currency",
            "minute",
            "generation",
            "kp",
            "value",
            "last_off",
        ]
        row[3] = datetime.fromtimestamp(minute, UTC)
        self.client.insert("counters", [row], column_names=names)

    def progress(self, at_ms: int = MORNING_MS, next_off: int | None = None) -> None:
        """The sink has come this far."""
        position = self.offset if next_off is None else next_off
        row = [
            "accepted-to-clickhouse",
            1,
            self.topic,
            0,
            position,
            position,
            {},
            datetime.fromtimestamp(at_ms / 1000, UTC),
        ]
        names = ["sink", "generation", "topic", "kp", "next_off", "records", "lanes", "updated_at"]
        self.client.insert("progress", [row], column_names=names)
