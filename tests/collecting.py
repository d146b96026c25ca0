"""How does a test get a running collector, and what it wrote?"""

import asyncio
import base64
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import uvicorn
from confluent_kafka import Consumer, TopicPartition
from fastapi import FastAPI

from producers.calls_to_collected import Collector
from producers.http_to_collected import collector_router
from runtime.deliveries import Deliveries
from runtime.problems import install_problems
from runtime.sealing import make_secret, secrets_of
from runtime.settings import Settings, load_settings
from runtime.topics_admin import ensure_topics
from runtime.vault import AsyncVault, Person, Vault
from schemas.codec import COLLECTED, REJECTED
from schemas.events import Collected, Rejected

WRITE_KEY = "test-write-key"


def collect_settings(
    directory: Path, kafka: str, redis_url: str, tag: str, **more: Any
) -> Settings:
    """Settings with keys under `directory` and names that begin with `tag`; topics are created."""
    for name in ("kek", "pepper"):
        make_secret(directory / name)
    path = directory / "headwater.json"
    path.write_text(
        json.dumps(
            {
                "kafka": {"bootstrap_servers": kafka, "topic_prefix": f"{tag}."},
                "redis": {"url": redis_url},
                "vault": {
                    "key_prefix": f"{tag}:",
                    "key_encryption_key_file": str(directory / "kek"),
                    "pepper_file": str(directory / "pepper"),
                },
                "sources": [{"name": "web", "write_key": WRITE_KEY}],
            }
            | more
        )
    )
    settings = load_settings(path, {})
    ensure_topics(settings)
    return settings


@dataclass
class Running:
    """A collector that answers at `url`."""

    settings: Settings
    url: str
    people: Vault
    key: str = WRITE_KEY
    _readers: dict[str, "TopicReader"] = field(default_factory=dict)

    def post(self, path: str, body: object, **options: Any) -> httpx.Response:
        """POST with the write key; `body` as JSON, or bytes as they are."""
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        headers = {"Authorization": basic(self.key)} | options.pop("headers", {})
        return httpx.post(f"{self.url}{path}", content=raw, headers=headers, timeout=30, **options)

    def batch(self, *calls: object) -> httpx.Response:
        return self.post("/v1/batch", {"batch": calls})

    def collected(self) -> list[Collected]:
        """Every event so far."""
        topic = self.settings.topic_names.collected
        return [COLLECTED.decode(value) for value in self.values(topic)]

    def rejected(self) -> list[Rejected]:
        """Every rejection so far."""
        return [REJECTED.decode(value) for value in self.values(self.settings.topic_names.rejected)]

    def records(self, topic: str) -> list[tuple[bytes | None, bytes]]:
        """Key and value of every record of a topic so far, by partition and offset."""
        if topic not in self._readers:
            self._readers[topic] = TopicReader(self.settings, topic)
        return self._readers[topic].read()

    def values(self, topic: str) -> list[bytes]:
        """The values alone."""
        return [value for _, value in self.records(topic)]

    def close(self) -> None:
        """Give back what reading took."""
        self.people.close()
        for reader in self._readers.values():
            reader.close()

    def opened(self, event: Collected) -> dict[str, Any]:
        """What was sealed."""
        row = self.people.identifiers_of([event.pid])[0]
        assert row is not None
        opened: dict[str, Any] = orjson.loads(row[0].unseal(event.sealed, event.event_id))
        return opened

    def person(self, event: Collected) -> Person:
        row = self.people.identifiers_of([event.pid])[0]
        assert row is not None
        return row[0]


class TopicReader:
    """All records of a topic that no transaction wrote, read once and kept."""

    def __init__(self, settings: Settings, topic: str) -> None:
        self._partitions = [TopicPartition(topic, p, 0) for p in range(settings.kafka.partitions)]
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.kafka.bootstrap_servers,
                "group.id": "test-reader",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
                "receive.message.max.bytes": 1_000_000_000,
            }
        )
        self._consumer.assign(self._partitions)
        self._found: list[list[tuple[bytes | None, bytes]]] = [[] for _ in self._partitions]

    def read(self) -> list[tuple[bytes | None, bytes]]:
        """Key and value of every record up to now, by partition and offset."""
        ends = [self._consumer.get_watermark_offsets(at, 20)[1] for at in self._partitions]
        until_s = time.monotonic() + 30
        while any(len(found) < end for found, end in zip(self._found, ends, strict=True)):
            assert time.monotonic() < until_s, "Kafka gives fewer records than it has"
            for message in self._consumer.consume(10_000, 0.1):
                assert message.error() is None, message.error()
                self._found[message.partition()].append((message.key(), message.value()))
        return [record for found in self._found for record in found]

    def close(self) -> None:
        self._consumer.close()


@contextmanager
def running_collector(settings: Settings, deliver_within_s: float = 10) -> Iterator[Running]:
    """A collector on a free port, in a thread of its own."""
    kek, pepper = secrets_of(settings)
    chosen = settings.vault
    vault = AsyncVault(settings.vault_url, chosen.key_prefix, kek, pepper)
    deliveries = Deliveries(settings.kafka.bootstrap_servers, within_s=deliver_within_s)
    collector = Collector(settings, vault, deliveries, pepper)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await collector.start()
        yield
        await collector.close()

    app = FastAPI(lifespan=lifespan)
    install_problems(app)
    app.include_router(collector_router(collector))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", proxy_headers=False))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    ready = threading.Event()
    while not server.started:
        assert thread.is_alive(), "the collector did not start"
        ready.wait(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    people = Vault(settings.vault_url, chosen.key_prefix, kek, pepper)
    running = Running(settings, f"http://127.0.0.1:{port}", people)
    try:
        yield running
    finally:
        running.close()
        server.should_exit = True
        thread.join(30)


def basic(key: str) -> str:
    """An Authorization header that names a write key."""
    return "Basic " + base64.b64encode(f"{key}:".encode()).decode()
