"""Is this process alive, can it serve, and what has it counted?

Liveness says nothing of others: restarting us does not heal a broker. Readiness asks every server
that this process needs and names those that fail, without addresses or what they said. Both are
open to whoever routes traffic here; metrics need an operator's key.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import redis
import redis.asyncio
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST

from runtime.access import Access
from runtime.answers import json_answer
from runtime.problems import Fault, problem_answer
from runtime.settings import Settings
from schemas.errors import StoreUnavailable, StreamError

ANSWER_WITHIN_S = 3.0
REMEMBERED_S = 0.5
"""Open to everybody, so asked of the servers no more often than this."""

Check = Callable[[], Awaitable[None]]
"""Raises StreamError when the part does not serve."""

Failures = Mapping[str, str]


class Readiness:
    """Asks all parts at once and remembers the answer for a moment."""

    def __init__(self, parts: Mapping[str, Check]) -> None:
        self._parts = dict(parts)
        self._turn = asyncio.Lock()
        self._failures: Failures = {}
        self._asked_at_s = -REMEMBERED_S

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of what this process needs."""
        return tuple(self._parts)

    async def failures(self) -> Failures:
        """Part that fails -> what was expected of it; empty when all serve."""
        async with self._turn:
            if time.monotonic() - self._asked_at_s >= REMEMBERED_S:
                answers = await asyncio.gather(*map(self._ask, self._parts.values()))
                found = zip(self._parts, answers, strict=True)
                self._failures = {part: expected for part, expected in found if expected}
                self._asked_at_s = time.monotonic()
            return self._failures

    async def _ask(self, check: Check) -> str:
        try:
            await asyncio.wait_for(check(), ANSWER_WITHIN_S)
        except TimeoutError:
            return f"an answer within {ANSWER_WITHIN_S:g} s"
        except StoreUnavailable:
            return "an answer"
        except StreamError:
            return "an answer that is not a refusal; the log has its place"
        return ""


def check_kafka(settings: Settings) -> Check:
    """Kafka answers, and has our topics."""
    admin: AdminClient | None = None

    def ask() -> None:
        nonlocal admin
        if admin is None:
            admin = AdminClient(
                {"bootstrap.servers": settings.kafka.bootstrap_servers, "log_level": 2}
            )
        try:
            known = admin.list_topics(timeout=ANSWER_WITHIN_S).topics
        except KafkaException as error:
            raise StoreUnavailable("Kafka does not answer") from error
        for topic in settings.topic_names.all():
            if topic.name not in known:
                raise StoreUnavailable(f"Kafka has no topic {topic.name}; run headwater topics")

    async def check() -> None:
        await asyncio.to_thread(ask)

    return check


def check_redis(url: str) -> Check:
    """Redis answers a PING."""
    client = redis.asyncio.Redis.from_url(
        url, socket_timeout=ANSWER_WITHIN_S, socket_connect_timeout=ANSWER_WITHIN_S
    )

    async def check() -> None:
        try:
            await client.execute_command("PING")  # type: ignore[no-untyped-call]
        except (redis.RedisError, OSError) as error:
            raise StoreUnavailable("Redis does not answer") from error

    return check


def build_router(
    readiness: Readiness, access: Access, metrics: Callable[[], Awaitable[bytes]]
) -> APIRouter:
    """`GET /healthz`, `/readyz`, `/metrics`."""
    router = APIRouter(tags=["Operation"])

    @router.get("/healthz", response_class=Response, summary="Is the process alive?")
    async def get_health() -> Response:
        """200 while the event loop turns."""
        return Response(b'{"status":"alive"}', media_type="application/json")

    @router.get("/readyz", response_class=Response, summary="Can it serve? What fails?")
    async def get_readiness() -> Response:
        """200 when every part serves; 503 naming those that do not."""
        failures = await readiness.failures()
        if failures:
            return problem_answer(
                503,
                f"Not ready: {', '.join(failures)}",
                errors=[Fault(part, expected) for part, expected in failures.items()],
                headers={"Retry-After": "1"},
            )
        answer = {"status": "ready", "parts": readiness.parts}
        return json_answer(answer)

    @router.get(
        "/metrics",
        response_class=Response,
        dependencies=[Depends(access.require("operator"))],
        summary="Numbers of this process, and of all under `headwater up`, for Prometheus",
    )
    async def get_metrics() -> Response:
        """Prometheus's text format."""
        return Response(await metrics(), media_type=CONTENT_TYPE_LATEST)

    return router
