"""What do tests put on the lanes' inputs, and what came out of them?

The check is independent of the rules: it counts what was sent with a few lines of its own.
"""

import itertools
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from runtime.log_ends import log_ends
from runtime.settings import Kafka, Settings
from runtime.topics_admin import ensure_topics
from schemas.codec import (
    ACCEPTED,
    COLLECTED,
    CURSOR,
    ERASED,
    HEADER_BYTES,
    LINKED,
    REATTRIBUTED,
    REJECTED,
    RETRACTED,
    SUBJECT,
    Codec,
)
from schemas.events import Accepted, Collected, Rejected, Retracted
from schemas.requests import Erased
from schemas.subjects import CURSOR_KEY, PID_BYTES, Cursor, Subject
from schemas.topics import PARTITIONER, Topics
from tests.stream_worker import Worker
from tests.waiting import eventually

START_MS = 1_760_000_000_000
GAP_MS = 30 * 60_000
EMAIL = "Email Opened"
ORDER = "Order Completed"


def make_event(**changes: Any) -> Collected:
    """A page view like any other, but for `changes`; `clear` may be given as a dictionary."""
    clear = changes.pop("clear", {})
    fields: dict[str, Any] = {
        "event_id": os.urandom(16),
        "pid": b"p" * PID_BYTES,
        "source": "shop",
        "type": "track" if changes.get("event") else "page",
        "event": "",
        "occurred_at_ms": START_MS,
        "sent_at_ms": None,
        "received_at_ms": START_MS + 1_000,
        "flags": 0,
        "body_digest": 7,
        "clear": clear if isinstance(clear, bytes) else orjson.dumps(clear),
        "traits": [],
        "key_version": 1,
        "sealed": b"sealed",
    }
    return Collected(**{**fields, **changes})


def random_events(chance: random.Random, count: int, people: int) -> list[Collected]:
    """Visits, orders with money and e-mails of `people` persons, in no order of time."""
    pids = [chance.randbytes(PID_BYTES) for _ in range(people)]
    events = []
    for number in range(count):
        name = chance.choice(("", "", "Product Viewed", EMAIL, ORDER))
        properties: dict[str, Any] = {"campaign_id": f"c{chance.randrange(5)}"}
        if name == ORDER:
            total = f"{chance.randrange(10_000)}.{chance.randrange(100):02}"
            properties |= {"order_id": number, "total": total, "currency": "EUR"}
        events.append(
            make_event(
                event_id=chance.randbytes(16),
                pid=chance.choice(pids),
                event=name,
                occurred_at_ms=START_MS + chance.randrange(48 * 3_600_000),
                received_at_ms=START_MS + 48 * 3_600_000 + number,
                clear={"properties": properties},
            )
        )
    return events


def visits_of(times: Iterable[int], gap_ms: int = GAP_MS) -> int:
    """How many visits these times make: a new one after a gap of `gap_ms` or more."""
    ordered = sorted(times)
    return len(ordered[:1]) + sum(
        later - earlier >= gap_ms for earlier, later in itertools.pairwise(ordered)
    )


@dataclass
class Log:
    """The topics of one test, on a shared broker."""

    settings: Settings
    topics: Topics = field(init=False)

    def __post_init__(self) -> None:
        self.topics = self.settings.topic_names
        self.kafka = self.settings.kafka
        ensure_topics(self.settings)
        self.producer = Producer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "partitioner": PARTITIONER,
                "enable.idempotence": True,
                "message.max.bytes": 2_000_000,
                "linger.ms": 5,
            }
        )

    def send(self, events: Iterable[Collected]) -> None:
        """Put events on the log; they are there afterwards."""
        for event in events:
            self.producer.produce(self.topics.collected, COLLECTED.encode(event), event.pid)
            self.producer.poll(0)
        self.flush()

    def send_raw(
        self, topic: str, value: bytes | None, key: bytes | None, partition: int
    ) -> tuple[str, int, int]:
        """Put any bytes on the log; (topic, partition, offset) of where they lie."""
        offsets: list[int] = []

        def delivered(error: KafkaError | None, message: Any) -> None:
            assert error is None, error
            offsets.append(message.offset())

        self.producer.produce(topic, value, key, partition, on_delivery=delivered)
        self.flush()
        return topic, partition, offsets[0]

    def flush(self) -> None:
        """Everything sent is acknowledged."""
        assert self.producer.flush(60) == 0

    def read(self, topic: str) -> list[tuple[int, bytes, bytes | None]]:
        """(partition, key, value) of every committed record of `topic` in log order."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "group.id": f"{self.topics.prefix}test",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 20,
                "receive.message.max.bytes": 1_000_000_000,
            }
        )
        records = []
        ended: set[int] = set()
        consumer.assign([TopicPartition(topic, p, 0) for p in range(self.kafka.partitions)])

        def is_read() -> bool:
            for message in consumer.consume(10_000, 0.1):
                if message.error() is None:
                    records.append((message.partition(), message.key(), message.value()))
                else:
                    assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                    ended.add(message.partition())
            return len(ended) == self.kafka.partitions

        try:
            eventually(is_read, within_s=60, every_s=0)
        finally:
            consumer.close()
        return records

    def accepted(self) -> list[Accepted]:
        """Every committed accepted event."""
        records = self.read(self.topics.accepted)
        return [ACCEPTED.decode(value) for _, _, value in records if _is_accepted(value)]

    def retracted(self) -> list[Retracted]:
        """Every committed retraction."""
        records = self.read(self.topics.accepted)
        return [RETRACTED.decode(value) for _, _, value in records if _is(RETRACTED, value)]

    def erased(self) -> list[Erased]:
        """Every committed word that all of a person has passed."""
        records = self.read(self.topics.accepted)
        return [ERASED.decode(value) for _, _, value in records if _is(ERASED, value)]

    def rejected(self) -> list[Rejected]:
        """Every committed rejection."""
        return [REJECTED.decode(value) for _, _, value in self.read(self.topics.rejected)]

    def cursors(self) -> dict[int, list[Cursor]]:
        """Lane -> every cursor it committed, oldest first."""
        found: dict[int, list[Cursor]] = defaultdict(list)
        for p, key, value in self.read(self.topics.subjects):
            if key == CURSOR_KEY:
                found[p].append(CURSOR.decode(value))
        return found

    def subjects(self) -> dict[bytes, Subject]:
        """pid -> the newest committed state of the person."""
        newest = {key: value for _, key, value in self.read(self.topics.subjects)}
        return {
            key: SUBJECT.decode(value)
            for key, value in newest.items()
            if len(key) == PID_BYTES and value is not None
        }

    def withheld(self) -> Counter[str]:
        """Events withheld by purpose, over all lanes."""
        total: Counter[str] = Counter()
        for cursors in self.cursors().values():
            for each in cursors[-1].withheld:
                total[each.purpose] += each.count
        return total

    def wait_applied(self, worker: Worker | None = None, *, within_s: float = 60) -> None:
        """Every lane's cursor has reached the end that its inputs have now.

        Does not wait for a `worker` that has ended.
        """
        inputs = self.topics.inputs
        ends = {
            (topic, p): end
            for topic in inputs
            for p, (_, end) in log_ends(
                self.kafka.bootstrap_servers, topic, self.kafka.partitions
            ).items()
            if end
        }

        def is_applied() -> bool:
            stands = {
                (each.topic, p): each.next_offset
                for p, cursors in self.cursors().items()
                if cursors[-1].generation == self.kafka.generation
                for each in cursors[-1].positions
            }
            behind = {at: (stands.get(at), e) for at, e in ends.items() if stands.get(at, -1) < e}
            if behind and worker is not None and worker.exit_code() is not None:
                raise RuntimeError(f"{worker.name} ended: {worker.said()}")
            assert not behind, behind
            return True

        eventually(is_applied, within_s=within_s, every_s=0.3)


def new_log(kafka: str, name: str, **settings: Any) -> Log:
    """A log with fresh topics on a shared broker; `settings` go to [kafka]."""
    values = {"partitions": 2, "barrier_ms": 50, "instance_id": "w1", **settings}
    return Log(Settings(kafka=Kafka(bootstrap_servers=kafka, topic_prefix=f"{name}.", **values)))


def assert_exact(log: Log, sent: Iterable[Collected]) -> None:
    """Every distinct event of `sent` took effect exactly once, in outputs, people and cursors."""
    truth = {event.event_id: event for event in sent}
    accepted = log.accepted()
    counts = Counter(each.event_id for each in accepted)
    missing = len(truth.keys() - counts.keys())
    multiple = sum(count > 1 for count in counts.values())
    alien = len(counts.keys() - truth.keys())
    assert (missing, multiple, alien) == (0, 0, 0), f"of {len(truth)}: missing, multiple, alien"

    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for each in accepted:
        places[each.lane].append((each.seq, each.index))
    for lane, cursors in log.cursors().items():
        assert [each.seq for each in cursors] == list(range(1, len(cursors) + 1)), f"seq of {lane}"
        assert places[lane] == sorted(set(places[lane])), f"coordinates of lane {lane}"
        assert all(seq <= len(cursors) for seq, _ in places[lane])

    by_pid: dict[bytes, list[Collected]] = defaultdict(list)
    for event in truth.values():
        by_pid[event.pid].append(event)
    subjects = log.subjects()
    assert subjects.keys() >= by_pid.keys()
    changes: Counter[bytes] = Counter()
    for each in accepted:
        changes[each.pid] += sum(change.delta for change in each.visit_changes)
    for pid, events in by_pid.items():
        subject = subjects[pid]
        orders = [event for event in events if event.event == ORDER]
        times = [event.occurred_at_ms for event in events]
        visits = visits_of(e.occurred_at_ms for e in events if e.event != EMAIL)
        spent = sum(_cents(event) for event in orders) * 10_000
        found = (subject.events, subject.orders, subject.first_seen_ms, subject.last_seen_ms)
        assert found == (len(events), len(orders), min(times), max(times))
        assert sum(money.amount_micro for money in subject.spent) == spent
        assert len(subject.visits) // 34 == changes[pid] == visits


def _cents(order: Collected) -> int:
    return int(orjson.loads(order.clear)["properties"]["total"].replace(".", ""))


def _is(codec: Codec[Any], value: bytes | None) -> bool:
    return value is not None and value[:HEADER_BYTES] == codec.header


def _is_accepted(value: bytes | None) -> bool:
    return not any(_is(other, value) for other in (RETRACTED, REATTRIBUTED, ERASED, LINKED))
