"""Which events were set aside lately, and why?

Read from the end of `events.rejected`: where each event lies, which part of it was not as expected
and what was. Never a value of it: those records hold none.
"""

import asyncio
import time
from collections.abc import Iterator
from typing import Annotated

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel

from consumers.rules.times import rfc3339
from runtime.access import Access
from runtime.answers import json_answer
from runtime.settings import Settings
from schemas.codec import REJECTED, Malformed
from schemas.errors import StoreUnavailable
from schemas.events import Rejected

ANSWER_WITHIN_S = 5.0
MOST = 1000
_CHUNK = 1000


class RejectedEvent(BaseModel):
    """Topic, partition and offset are null for what the collector set aside before the log."""

    stage: str
    reason: str
    path: str
    expected: str
    topic: str | None
    partition: int | None
    offset: int | None
    source: str | None
    message_id: str | None
    rejected_at: str


class RejectedEvents(BaseModel):
    """Newest first."""

    rejected: list[RejectedEvent]


class RejectedReader:
    """Reads the end of `events.rejected`; for one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topic_names.rejected
        self._config: dict[str, str | int | float | bool] = {
            "bootstrap.servers": settings.kafka.bootstrap_servers,
            # Named because librdkafka asks for it; no offset is ever committed.
            "group.id": f"{settings.kafka.topic_prefix}headwater.rejected-api",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "socket.timeout.ms": int(ANSWER_WITHIN_S * 1000),
            "log_level": 2,
        }

    def newest(self, limit: int) -> list[Rejected]:
        """The `limit` newest records, newest first. Raises StoreUnavailable in a few seconds."""
        consumer = Consumer(self._config)
        try:
            ranges = self._ranges(consumer)
            reach = limit
            while True:
                starts = {p: max(low, high - reach) for p, (low, high) in ranges.items()}
                found = list(self._read(consumer, starts, ranges))
                is_whole = all(starts[p] == low for p, (low, _) in ranges.items())
                if is_whole or len(found) >= limit:
                    break
                # Transaction markers took some of the offsets: go back further.
                reach *= 8
        except KafkaException as error:
            raise StoreUnavailable("Kafka does not answer") from error
        finally:
            consumer.close()
        found.sort(key=lambda record: record.rejected_at_ms, reverse=True)
        return found[:limit]

    def _ranges(self, consumer: Consumer) -> dict[int, tuple[int, int]]:
        listed = consumer.list_topics(self._topic, ANSWER_WITHIN_S).topics[self._topic]
        if listed.error is not None:
            raise StoreUnavailable(f"Kafka has no topic {self._topic} yet; run headwater topics")
        return {
            p: consumer.get_watermark_offsets(TopicPartition(self._topic, p), ANSWER_WITHIN_S)
            for p in listed.partitions
        }

    def _read(
        self, consumer: Consumer, starts: dict[int, int], ranges: dict[int, tuple[int, int]]
    ) -> Iterator[Rejected]:
        open_partitions = {p for p, (_, high) in ranges.items() if starts[p] < high}
        consumer.assign([TopicPartition(self._topic, p, starts[p]) for p in open_partitions])
        until_s = time.monotonic() + ANSWER_WITHIN_S
        while open_partitions:
            messages = consumer.consume(_CHUNK, 0.1)
            if not messages and time.monotonic() > until_s:
                raise StoreUnavailable("Kafka does not answer")
            for message in messages:
                error = message.error()
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise KafkaException(error)
                    open_partitions.discard(message.partition())
                    continue
                record = _decode(message.value())
                if record is not None:
                    yield record


def _decode(value: bytes | None) -> Rejected | None:
    try:
        return REJECTED.decode(value)
    except Malformed:
        return None  # whoever wrote it, it tells nothing about an event of ours


def view_rejected(record: Rejected) -> dict[str, object]:
    """One record as it is answered."""
    return {
        "stage": record.stage,
        "reason": record.reason,
        "path": record.path,
        "expected": record.expected,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "source": record.source,
        "message_id": record.message_id,
        "rejected_at": rfc3339(record.rejected_at_ms),
    }


def build_router(reader: RejectedReader, access: Access) -> APIRouter:
    """`GET /v1/events/rejected`."""
    router = APIRouter(tags=["Operation"])
    # A reader holds a connection and a batch in memory: one at a time is enough for operators.
    turn = asyncio.Lock()

    @router.get(
        "/v1/events/rejected",
        responses={200: {"model": RejectedEvents}},
        response_class=Response,
        dependencies=[Depends(access.require("operator"))],
        summary="Events that were set aside, and why",
    )
    async def get_rejected(limit: Annotated[int, Query(ge=1, le=MOST)] = 100) -> Response:
        """The newest first: where each lies, which part of it is wrong, and what was expected."""
        async with turn:
            found = await asyncio.to_thread(reader.newest, limit)
        answer = {"rejected": [view_rejected(record) for record in found]}
        return json_answer(answer)

    return router
