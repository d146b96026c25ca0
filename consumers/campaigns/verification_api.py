"""Do the live counters equal the facts, and when did they last?

The reconciler looks again and again (`headwater verify --watch`) and keeps what it found in
ClickHouse; this reads its newest verdict.
"""

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel

from consumers.clickhouse_reader import ClickHouseReader
from consumers.rules.times import rfc3339
from runtime.access import Access
from runtime.answers import json_answer
from runtime.clock import ClockMs, real_ms
from schemas.topics import Topics


class VerificationAnswer(BaseModel):
    """`verified` and `differences` are of the last look; all are null before the first.

    `overdue` is true when no look has ended though one should have: then nobody looks any more, and
    the answer is old. `last_verified_at` reaches back 90 days.
    """

    verified: bool | None
    differences: int | None
    checked_at: str | None
    last_verified_at: str | None
    overdue: bool


_NEWEST = """
SELECT count(), argMax(differences, checked_at), toUnixTimestamp64Milli(max(checked_at)),
    toUnixTimestamp64Milli(argMax(next_by, checked_at)),
    countIf(differences = 0), toUnixTimestamp64Milli(maxIf(checked_at, differences = 0))
FROM verdicts WHERE topic = {topic:String}
"""


class Verification:
    """Reads verdicts. Raises StoreUnavailable as ClickHouseReader does."""

    def __init__(
        self, reader: ClickHouseReader, topics: Topics, clock_ms: ClockMs = real_ms
    ) -> None:
        self._reader = reader
        self._topic = topics.accepted
        self._clock_ms = clock_ms

    async def read(self) -> VerificationAnswer:
        """What the reconciler found last."""
        (
            (looks, differences, checked_at_ms, next_by_ms, agreed, agreed_at_ms),
        ) = await self._reader.rows(_NEWEST, {"topic": self._topic})
        if not looks:
            return VerificationAnswer(
                verified=None,
                differences=None,
                checked_at=None,
                last_verified_at=None,
                overdue=False,
            )
        return VerificationAnswer(
            verified=differences == 0,
            differences=differences,
            checked_at=rfc3339(checked_at_ms),
            last_verified_at=rfc3339(agreed_at_ms) if agreed else None,
            overdue=self._clock_ms() > next_by_ms,
        )


def build_router(verification: Verification, access: Access) -> APIRouter:
    """`GET /v1/verification`."""
    router = APIRouter(tags=["Campaigns"])

    @router.get(
        "/v1/verification",
        responses={200: {"model": VerificationAnswer}},
        response_class=Response,
        dependencies=[Depends(access.require("viewer"))],
        summary="Are the live counters what the facts say?",
    )
    async def get_verification() -> Response:
        """What the last look at every counter found, and when they were last all right."""
        answer = await verification.read()
        return json_answer(answer.model_dump())

    return router
