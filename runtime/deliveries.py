"""When may a request be answered with "it is in Kafka"?

Once all in-sync replicas have every record of it: an idempotent producer, acks=all, and a report
for each record. The reports arrive on a thread of their own; a request's are counted there, and
only the last one wakes the event loop, so that a record costs a decrement and no hop.
"""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from runtime.logs import get_logger
from schemas.errors import StoreUnavailable
from schemas.topics import PARTITIONER

WITHIN_S = 10.0
_POLL_S = 0.2
_MOST_QUEUED = 200_000
_MOST_QUEUED_KB = 262_144

Record = tuple[str, bytes | None, bytes]
"""Topic, key and value."""


class Deliveries:
    """A producer whose callers wait for delivery; for one event loop at a time.

    A record is reported as failed after `within_s` at the latest. It may still have arrived, so a
    caller sends it again with the same event id.
    """

    def __init__(self, bootstrap_servers: str, *, within_s: float = WITHIN_S) -> None:
        self._config: dict[str, Any] = {
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "acks": "all",
            "partitioner": PARTITIONER,
            # A request's records are produced at once: there is little to wait for.
            "linger.ms": 2,
            "message.timeout.ms": int(within_s * 1000),
            "queue.buffering.max.messages": _MOST_QUEUED,
            "queue.buffering.max.kbytes": _MOST_QUEUED_KB,
            # A broker that comes back is found within a second.
            "reconnect.backoff.max.ms": 1000,
            "log_level": 2,
            "error_cb": self._note_error,
        }
        self._within_s = within_s
        self._current: _Polled | None = None
        self._renewing = threading.Lock()

    def start(self) -> None:
        """Connect in the background; what is sent before waits its turn."""
        if self._current is None:
            self._current = _Polled(self._config)

    def close(self) -> None:
        """Wait for what is under way, at most as long as a delivery may take."""
        if self._current is not None:
            self._current.producer.flush(self._within_s)
            self._current.retire()
            self._current = None

    async def send(self, records: Sequence[Record]) -> None:
        """Every record is in Kafka, on all in-sync replicas.

        Raises StoreUnavailable if one was not confirmed in time, or the queue is full.
        """
        if not records:
            return
        current = self._current
        if current is None:
            raise StoreUnavailable("the producer has stopped")
        sending = _Sending(len(records), asyncio.get_running_loop())
        produce = current.producer.produce
        try:
            for topic, key, value in records:
                produce(topic, value, key, on_delivery=sending.on_delivery)
        except BufferError:
            raise StoreUnavailable("Kafka takes records more slowly than they come") from None
        except KafkaException as error:
            self._renew_if_fatal(error.args[0], current)
            raise StoreUnavailable(f"Kafka took no record ({error.args[0].name()})") from None
        try:
            failed = await asyncio.wait_for(sending.done, self._within_s + 1)
        except TimeoutError:
            failed = "no report"
        if failed:
            raise StoreUnavailable(f"Kafka did not confirm every record ({failed})")

    async def check(self, topic: str, *, within_s: float = 2.0) -> None:
        """Raise StoreUnavailable unless Kafka answers and knows `topic`."""
        if self._current is None:
            raise StoreUnavailable("the producer has not started")
        producer = self._current.producer
        try:
            found = await asyncio.to_thread(producer.list_topics, topic, within_s)
        except KafkaException as error:
            raise StoreUnavailable(f"Kafka does not answer ({error.args[0].name()})") from None
        if found.topics[topic].error is not None:
            raise StoreUnavailable(f"Kafka has no topic {topic}; run headwater topics")

    def _note_error(self, error: KafkaError) -> None:
        if self._current is not None:
            self._renew_if_fatal(error, self._current)

    def _renew_if_fatal(self, error: KafkaError, failed: "_Polled") -> None:
        """An idempotent producer that met a gap in the log works no more: begin with a fresh one.

        Its unconfirmed records fail, their requests are answered 503 and come again. A broker that
        forgot its producers does this (noida-db after a restart), and it may be told by the
        callback, by `produce`, or by both.
        """
        if not (error.fatal() or error.code() == KafkaError._FATAL):
            return
        with self._renewing:
            if self._current is not failed:
                return
            get_logger().error("producer_renewed", fault=error.name())
            self._current = _Polled(self._config)
        failed.retire()


class _Polled:
    """A producer and the thread that takes its reports, until it is retired and has none left."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.producer = Producer(config)
        self._is_retired = threading.Event()
        threading.Thread(target=self._poll, name="kafka-reports", daemon=True).start()

    def retire(self) -> None:
        self._is_retired.set()

    def _poll(self) -> None:
        while not self._is_retired.is_set() or len(self.producer):
            self.producer.poll(_POLL_S)


class _Sending:
    """The records of one caller that are not confirmed yet."""

    __slots__ = ("_failed", "_loop", "_missing", "done")

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        self._missing = count
        self._failed = ""
        self._loop = loop
        self.done: asyncio.Future[str] = loop.create_future()

    def on_delivery(self, error: KafkaError | None, _: object) -> None:
        """Runs on the reports' thread, which alone writes these fields."""
        if error is not None:
            self._failed = error.name()
        self._missing -= 1
        if self._missing == 0 and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._finish)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(self._failed)
