"""Events.accepted and subjects as the lanes would write them, for tests of what reads them."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

from confluent_kafka import Producer

from runtime.settings import ClickHouse, Kafka, Redis, Settings
from schemas.codec import ACCEPTED, RETRACTED
from schemas.events import Accepted, Retracted, VisitChange
from schemas.subjects import Consent
from schemas.topics import PARTITIONER
from sinks.rules.rows import CounterKey, additions, fact_rows

PARTITIONS = 2
START_MS = 1_760_000_000_000
CALLS = (
    ("page", ""),
    ("identify", ""),
    ("track", "Email Sent"),
    ("track", "Email Opened"),
    ("track", "Product Viewed"),
    ("track", "Order Completed"),
    ("track", "Order Refunded"),
)


def settings_of(
    prefix: str, *, kafka: str, clickhouse: str = "", redis: str = "", generation: int = 1
) -> Settings:
    """Settings on shared servers, with names of one test's own."""
    return Settings(
        kafka=Kafka(
            bootstrap_servers=kafka,
            topic_prefix=f"{prefix}.",
            partitions=PARTITIONS,
            generation=generation,
        ),
        clickhouse=ClickHouse(url=clickhouse, database=prefix.replace("-", "_")),
        redis=Redis(url=redis, key_prefix=f"{prefix}:"),
    )


@dataclass
class Lane:
    """One lane's transactions: rising coordinates, records in any partition, control records."""

    settings: Settings
    lane: int = 0
    seq: int = 0
    sent: list[Accepted] = field(default_factory=list)

    def __post_init__(self) -> None:
        kafka = self.settings.kafka
        self._chance = random.Random(self.lane)
        self._producer = Producer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "transactional.id": f"{kafka.topic_prefix}lane.{self.lane}",
                "partitioner": PARTITIONER,
                "linger.ms": 5,
            }
        )
        self._producer.init_transactions(30)

    def make(self, **changes: Any) -> Accepted:
        """A random event with this lane's next coordinates."""
        chance = self._chance
        type_, name = chance.choice(CALLS)
        has_money = name.startswith("Order")
        at_ms = START_MS + chance.randrange(600_000)
        visits = [VisitChange("visited", at_ms, 1)] if chance.random() < 0.2 else []
        fields: dict[str, Any] = {
            "event_id": chance.randbytes(16),
            "pid": bytes([chance.randrange(50)]) * 16,
            "source": "shop",
            "type": type_,
            "event": name,
            "occurred_at_ms": at_ms,
            "sent_at_ms": None,
            "received_at_ms": at_ms + 10,
            "flags": 0,
            "body_digest": 0,
            "clear": b"{}",
            "traits": [],
            "key_version": 1,
            "sealed": b"s" * 40,
            "generation": self.settings.kafka.generation,
            "lane": self.lane,
            "seq": self.seq,
            "source_topic": self.settings.topic_names.collected,
            "source_partition": self.lane,
            "source_offset": len(self.sent),
            "index": 0,
            "campaign_id": chance.choice(("spring", "o'hara\\ \0 ☂", "(none)")),
            "is_repeat_order": has_money and chance.random() < 0.1,
            "amount_micro": chance.randrange(1, 10**9) if has_money else None,
            "currency": "EUR" if has_money else "",
            "visit_changes": visits,
        }
        return Accepted(**(fields | changes))

    def commit(self, count: int, *, then_abort: int = 0, **changes: Any) -> list[Accepted]:
        """`count` events in one transaction; then one that aborts after `then_abort` others."""
        self.seq += 1
        self._producer.begin_transaction()
        made = []
        for index in range(count):
            made.append(self.make(**({"index": index} | changes)))
            self.sent.append(made[-1])
            self._produce(made[-1])
        self._producer.commit_transaction(30)
        if then_abort:
            self.seq += 1
            self._producer.begin_transaction()
            for index in range(then_abort):
                self._produce(self.make(index=index))
            # librdkafka may abort before the broker knows of the transaction: records that come
            # after it would hang without an end.
            self._producer.flush(30)
            self._producer.abort_transaction(30)
            self.seq -= 1
        return made

    def retract(self, pid: bytes, decisions: list[Consent], **changes: Any) -> None:
        """One retraction, in a transaction of its own."""
        self.seq += 1
        fields: dict[str, Any] = {
            "pid": pid,
            "purpose": "analytics",
            "basis": "legitimate_interest",
            "decisions": decisions,
            "generation": self.settings.kafka.generation,
            "lane": self.lane,
            "seq": self.seq,
            "source_topic": self.settings.topic_names.consents,
            "source_partition": self.lane,
            "source_offset": self.seq,
            "index": 0,
        }
        record = RETRACTED.encode(Retracted(**(fields | changes)))
        self.put_all(self.settings.topic_names.accepted, [(pid, record)])

    def put(self, topic: str, key: bytes, value: bytes | None, partition: int = 0) -> None:
        """One record as it is, in a transaction of its own."""
        self._producer.begin_transaction()
        self._producer.produce(topic, key=key, value=value, partition=partition)
        self._producer.commit_transaction(30)

    def put_all(self, topic: str, records: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Records in one transaction, partitioned by key."""
        self._producer.begin_transaction()
        for key, value in records:
            self._producer.produce(topic, key=key, value=value)
        self._producer.commit_transaction(30)

    def _produce(self, event: Accepted) -> None:
        self._producer.produce(
            self.settings.topic_names.accepted, key=event.pid, value=ACCEPTED.encode(event)
        )


def truth(events: list[Accepted]) -> dict[tuple[str, str, str], int]:
    """(campaign, metric, currency) -> total of `events`."""
    totals: dict[tuple[str, str, str], int] = {}
    for event in events:
        for fact in fact_rows(event, 0, 0):
            for key, added in additions(fact):
                totals[_total_of(key)] = totals.get(_total_of(key), 0) + added
    return totals


def _total_of(key: CounterKey) -> tuple[str, str, str]:
    return key[0], key[1], key[2]


Role = Callable[[Settings, Event], None]


@contextmanager
def running(role: Role, settings: Settings) -> Iterator[Thread]:
    """`role` in a thread, stopped cleanly at the end; its fault is raised then."""
    stop, faults = Event(), []

    def run() -> None:
        try:
            role(settings, stop)
        except BaseException as error:
            faults.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(60)
        assert not thread.is_alive()
    if faults:
        raise faults[0]
