"""What lies on the log that no lane can use, and where exactly?

Straight onto the input topics, past the collector: null, empty and torn values, other schemas,
values of a megabyte, and well-made events that are wrong inside: under another's key, in another's
partition, with broken JSON. Each must be set aside once, under its place in the log.
"""

import random
import secrets
from typing import Any

from confluent_kafka import Producer

from runtime.settings import Settings
from schemas.codec import COLLECTED
from schemas.partitioning import partition_of
from tests.stream_log import make_event
from tests.waiting import eventually

DELIVERED_WITHIN_S = 120
HUGE_BYTES = 1_000_000
YEAR_3000_MS = 32_503_680_000_000


class Poisoner:
    """Puts one unusable record after another onto the log."""

    def __init__(self, settings: Settings, chance: random.Random) -> None:
        self._settings = settings
        self._chance = chance
        self._producer: Producer | None = None

    def put(self) -> list[dict[str, Any]]:
        """One more record is on the log; its line of history."""
        if self._producer is None:
            self._producer = Producer(
                {
                    "bootstrap.servers": self._settings.kafka.bootstrap_servers,
                    "enable.idempotence": True,
                    "delivery.timeout.ms": DELIVERED_WITHIN_S * 1000,
                    "message.max.bytes": 2 * 1_048_576,
                    "linger.ms": 0,
                    "log_level": 2,
                }
            )
        topics = self._settings.topic_names
        topic = self._chance.choice(
            (topics.collected,) * 6 + (topics.consents, topics.erasures, topics.moves)
        )
        what, key, value, partition = self._record(topic == topics.collected)
        lines: list[dict[str, Any]] = []

        def delivered(error: object, message: Any) -> None:
            assert error is None, error
            lines.append(
                {
                    "via": "log",
                    "outcome": "set aside",
                    "what": what,
                    "topic": message.topic(),
                    "partition": message.partition(),
                    "offset": message.offset(),
                }
            )

        self._producer.produce(topic, value, key, partition, on_delivery=delivered)
        producer = self._producer
        eventually(lambda: producer.poll(0.05) or lines, within_s=DELIVERED_WITHIN_S)
        return lines

    def close(self) -> None:
        """Nothing is under way any more."""
        if self._producer is not None:
            self._producer.flush(DELIVERED_WITHIN_S)

    def _record(self, is_event: bool) -> tuple[str, bytes | None, bytes | None, int]:
        """What it is, its key, its value, its partition."""
        chance = self._chance
        pid = secrets.token_bytes(16)
        home = partition_of(pid, self._settings.kafka.partitions)
        other = (home + 1) % self._settings.kafka.partitions
        made: list[tuple[str, bytes | None, bytes | None, int]] = [
            ("null", pid, None, home),
            ("null without a key", None, None, other),
            ("empty", pid, b"", home),
            ("noise", pid, chance.randbytes(300), home),
            ("huge noise", pid, chance.randbytes(HUGE_BYTES), home),
            ("unknown schema", pid, b"\0\0\0\xff\xff" + b"x" * 40, home),
        ]
        if is_event:
            whole = COLLECTED.encode(make_event(pid=pid))
            huge = make_event(pid=pid, clear=b"[" * (HUGE_BYTES - 1_000))
            made += [
                ("torn", pid, whole[: len(whole) // 2], home),
                ("under another's key", secrets.token_bytes(16), whole, home),
                ("in another's partition", pid, whole, other),
                ("broken JSON", pid, COLLECTED.encode(make_event(pid=pid, clear=b'{"a":')), home),
                ("deep JSON of a megabyte", pid, COLLECTED.encode(huge), home),
                ("no such type", pid, COLLECTED.encode(make_event(pid=pid, type="trakc")), home),
                (
                    "of the year 3000",
                    pid,
                    COLLECTED.encode(make_event(pid=pid, occurred_at_ms=YEAR_3000_MS)),
                    home,
                ),
            ]
        return chance.choice(made)
