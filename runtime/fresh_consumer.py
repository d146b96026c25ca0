"""Whom does one ask who had no answer from Kafka, while others have theirs?

A new client. librdkafka 2.16 may hold a partition for unknown, or its leader for another one than
it is, and then does so for good: after a rolling restart of three brokers, or under a broker that
came back with an older log. A sink's reader, a member of a group, has ways of its own
(kafka_reader.py).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import Consumer, KafkaException

from schemas.errors import StoreUnavailable


class FreshConsumer:
    """A consumer outside any group, for one thread: made when first asked, anew after a fault."""

    def __init__(self, config: Mapping[str, str | int | float | bool]) -> None:
        self._config = dict(config)
        self._consumer: Consumer | None = None
        self._is_doubted = False

    @contextmanager
    def asked(self) -> Iterator[Consumer]:
        """The client, for some questions; after StoreUnavailable or a KafkaException it is left."""
        if self._is_doubted:
            self.close()
        if self._consumer is None:
            self._consumer = Consumer(self._config)
        try:
            yield self._consumer
        except (KafkaException, StoreUnavailable):
            self._is_doubted = True
            raise

    def close(self) -> None:
        """End the connections; whoever asks later begins anew."""
        if self._consumer is not None:
            self._consumer.close()
        self._consumer, self._is_doubted = None, False
