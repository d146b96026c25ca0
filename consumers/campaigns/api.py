"""What do the people who run campaigns ask, and what are they told?

The counters of every campaign as of one moment, one number over time, and the same counters pushed
as they move. Times are of the events, UTC, by whole minutes; money is decimal text by currency.
"""

import difflib
from datetime import datetime
from typing import Annotated

import orjson
from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel

from consumers.campaigns.counts import END_OF_TIME_S, CampaignCounts, Progress, Span
from consumers.campaigns.series import METRICS, MOST_POINTS, read_series
from consumers.campaigns.stream import LiveCounters
from consumers.clickhouse_reader import ClickHouseReader
from consumers.rules.rates import decimal_text, view_campaigns
from consumers.rules.times import MINUTE_S, first_minute_s, rfc3339
from runtime.access import Access
from runtime.answers import json_answer
from runtime.clock import ClockMs, now_ms
from runtime.problems import Fault, Problem
from schemas.counters import MONEY
from schemas.topics import Topics


class Amount(BaseModel):
    """Money of one currency; the amount is a decimal."""

    currency: str
    amount: str


class Campaign(BaseModel):
    """Every counter (0 for what never happened), and rates (null when the divisor is zero)."""

    campaign_id: str
    counters: dict[str, int | None]
    rates: dict[str, float | list[Amount] | None]
    revenue: list[Amount]
    refunded: list[Amount]


class Campaigns(BaseModel):
    """All of one moment: `as_of` is when the counters last moved."""

    as_of: str
    campaigns: list[Campaign]


class Series(BaseModel):
    """[start of the step, value]: a number, or decimal text for money. Empty steps are left out."""

    points: list[tuple[str, int | str]]


From = Annotated[
    AwareDatetime | None,
    Query(alias="from", description="Event time, inclusive: 2026-01-31T00:00:00Z"),
]
To = Annotated[
    AwareDatetime | None, Query(description="Event time, exclusive: 2026-02-01T00:00:00Z")
]


class Campaigners:
    """What the routes share: one reader, one live stream."""

    def __init__(
        self, reader: ClickHouseReader, topics: Topics, clock_ms: ClockMs = now_ms
    ) -> None:
        self.reader = reader
        self.counts = CampaignCounts(reader, topics)
        self._clock_ms = clock_ms
        self.live = LiveCounters(self.counts.progress, self._read_all)

    async def read(self, span: Span) -> bytes:
        """The JSON of `GET /v1/campaigns`. Raises StoreUnavailable."""
        return await self._answer(span, await self.counts.progress())

    async def _read_all(self, progress: Progress) -> bytes:
        return await self._answer(Span(), progress)

    async def _answer(self, span: Span, progress: Progress) -> bytes:
        counted = await self.counts.count(span, progress)
        moved_at_ms = counted.updated_at_ms
        # Before anything was ever counted, "nothing" is true as of now.
        as_of_ms = self._clock_ms() if moved_at_ms is None else moved_at_ms
        campaigns = view_campaigns(counted.by_campaign)
        return orjson.dumps({"as_of": rfc3339(as_of_ms), "campaigns": campaigns})


def build_router(campaigners: Campaigners, access: Access) -> APIRouter:
    """`GET /v1/campaigns`, `/stream` and `/{id}/series`."""
    router = APIRouter(
        prefix="/v1/campaigns",
        tags=["Campaigns"],
        dependencies=[Depends(access.require("viewer"))],
    )

    @router.get(
        "",
        responses={200: {"model": Campaigns}},
        response_class=Response,
        summary="Counters of every campaign",
    )
    async def get_campaigns(from_: From = None, to: To = None) -> Response:
        """Of all time, or of the minutes that begin within `from` (inclusive) and `to` (exclusive).

        `aov` is revenue by orders, those in its own currency where a campaign has several.
        `(none)` holds what belongs to no campaign. People (`unique_opened`, `unique_clicked`,
        `buyers`, `visitors`) and their rates are null where facts went with age (`[tables.facts]`).
        """
        answer = await campaigners.read(_span(from_, to))
        return Response(answer, media_type="application/json")

    @router.get(
        "/stream",
        responses={200: {"content": {"text/event-stream": {}}}},
        response_class=Response,
        summary="Counters of every campaign, as they move",
    )
    async def stream_campaigns() -> StreamingResponse:
        """Server-sent events: `counters` with the object of `GET /v1/campaigns`, at every change.

        `stale` when the counters cannot be read for a while; comments as signs of life.
        """
        return StreamingResponse(
            campaigners.live.listen(),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )

    @router.get(
        "/{campaign_id:path}/series",
        responses={200: {"model": Series}},
        response_class=Response,
        summary="One number of one campaign over time",
    )
    async def get_series(
        campaign_id: str,
        metric: Annotated[str, Query(json_schema_extra={"enum": list(METRICS)})],
        step: Annotated[int, Query(ge=MINUTE_S, le=366 * 86_400, multiple_of=MINUTE_S)] = MINUTE_S,
        from_: From = None,
        to: To = None,
        currency: Annotated[
            str | None, Query(description="Which, for revenue and refunded")
        ] = None,
    ) -> Response:
        """`step` is in seconds, whole minutes. People are distinct within each step."""
        _check_metric(metric)
        series = await read_series(campaigners.reader, campaign_id, metric, step, _span(from_, to))
        is_money = metric in MONEY
        points = series.get(_choose_currency(series, currency) if is_money else "", [])
        if len(points) > MOST_POINTS:
            expected = f"a step that leaves at most {MOST_POINTS} points"
            raise Problem(400, f"Ask for {expected}", errors=[Fault("query.step", expected)])
        answer = [
            (rfc3339(at_s * 1000), decimal_text(value) if is_money else value)
            for at_s, value in points
        ]
        return json_answer({"points": answer})

    return router


def _span(from_: datetime | None, to: datetime | None) -> Span:
    bounds = (
        0 if from_ is None else first_minute_s(from_),
        END_OF_TIME_S if to is None else first_minute_s(to),
    )
    if from_ is not None and to is not None and from_ >= to:
        expected = "a moment after `from`"
        raise Problem(400, f"`to` must be {expected}", errors=[Fault("query.to", expected)])
    return Span(*(min(max(bound, 0), END_OF_TIME_S) for bound in bounds))


def _check_metric(metric: str) -> None:
    if metric not in METRICS:
        near = difflib.get_close_matches(metric, METRICS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        expected = f"one of {', '.join(METRICS)}"
        raise Problem(
            400, f"There is no such metric{hint}", errors=[Fault("query.metric", expected)]
        )


def _choose_currency(series: dict[str, list[tuple[int, int]]], wanted: str | None) -> str:
    if wanted is not None:
        return wanted
    if len(series) > 1:
        expected = f"one of {', '.join(sorted(series))}"
        raise Problem(
            400,
            "This campaign has several currencies: choose one",
            errors=[Fault("query.currency", expected)],
        )
    return next(iter(series), "")
