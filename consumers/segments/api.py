"""Which segments are there, who is in them, and who would be in others?

Definitions are the newest on the log; members are what the sink wrote a moment ago. Nobody is shown
who objected since: what was decided is in force when it is answered, and the overlay knows it.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from consumers.accesses import Accesses
from consumers.profiles.profiles_api import Profiles
from consumers.rules.profile import PURPOSE
from consumers.rules.segment_preview import count_members
from consumers.rules.times import rfc3339
from consumers.segments.members import SegmentMembers
from runtime.access import Access, Roles, sees_identifiers
from runtime.answers import is_answerable, json_answer
from runtime.clock import ClockMs, now_ms
from runtime.problems import Fault, Problem
from runtime.segment_log import newest_segments, segments_of
from runtime.settings import Settings
from schemas.consent import Basis, allowed_now_in_all, decisions_on
from schemas.segment_rules import compile_segments
from schemas.segments import Segment, SegmentsInvalid, nearest, parse_segments, with_built_in

MOST_MEMBERS = 1_000
READ_WITHIN_S = 3.0


class SegmentShown(BaseModel):
    """One definition, and how many people are in it."""

    id: str
    name: str
    condition: dict[str, Any]
    size: int


class SegmentsShown(BaseModel):
    """All segments. `version` 0: nothing was applied yet."""

    version: int
    defined_at: str | None
    as_of: str
    segments: list[SegmentShown]


class MembersShown(BaseModel):
    """Pids, in order; `cursor` asks for those behind them, null where there are none. With the
    right to see them, by which `identifiers` each is known; else null."""

    segment: str
    as_of: str
    members: list[str]
    identifiers: dict[str, list[str]] | None = Field(examples=[{"0" * 32: ["user:42"]}])
    cursor: str | None


class PreviewBody(BaseModel):
    """Definitions as they stand in a file: id, name, condition."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"segments": [{"id": "buyers", "condition": {"computed": "orders", "at_least": 1}}]}
            ]
        },
    )

    segments: list[dict[str, Any]]


class PreviewShown(BaseModel):
    """Of so many `people`, how many would be in each segment at `as_of`."""

    as_of: str
    people: int
    segments: list[dict[str, Any]]


class Segments:
    """What the routes below ask. Raises StoreUnavailable while it cannot tell."""

    def __init__(self, settings: Settings, profiles: Profiles) -> None:
        self._settings = settings
        self._profiles = profiles
        self.members = SegmentMembers(settings)
        self.bases: dict[str, Basis] = {n: p.basis for n, p in settings.purposes.items()}

    async def defined(self) -> tuple[int, int, tuple[Segment, ...]]:
        """Version, when it was applied (UTC ms), and all segments."""
        newest = await asyncio.to_thread(newest_segments, self._settings, READ_WITHIN_S)
        return newest.version, newest.defined_at_ms, with_built_in(segments_of(newest))

    async def shown(self, pids: Sequence[bytes], at_ms: int) -> dict[bytes, list[str]]:
        """Those of `pids` whose data may be used for personalisation at `at_ms`, with every
        identifier of theirs."""
        basis = self.bases.get(PURPOSE, "consent")
        decided = await self._profiles.decided_by_each(pids)
        about = f"purpose/{PURPOSE}"
        allowed = [
            pid
            for pid in pids
            if pid in decided
            and allowed_now_in_all(basis, [decisions_on(about, g) for g in decided[pid]], at_ms)
        ]
        return await self._profiles.known_as(allowed)

    def preview(self, segments: Sequence[Segment], at_ms: int) -> tuple[dict[str, int], int]:
        """How many would be in each, and of how many people; for a thread of its own."""
        measures = self._settings.measures
        compiled = compile_segments(with_built_in(segments), self.bases, measures)
        gap_ms = self._settings.time.visit_gap_minutes * 60_000
        counts, people = count_members(compiled, self.members.everybody(), at_ms, gap_ms)
        return {each.id: counts[each.id] for each in segments}, people

    def parse(self, definitions: list[dict[str, Any]]) -> tuple[Segment, ...]:
        """The segments of a body. Raises Problem."""
        if not is_answerable(definitions):
            expected = "expected whole characters (no half of a surrogate pair) and 64-bit numbers"
            wrong = Fault("$.segments", expected)
            raise Problem(400, "These segments cannot be used", errors=[wrong])
        try:
            return parse_segments(definitions, self._settings.segment_names)
        except SegmentsInvalid as error:
            faults = [
                Fault("$.segments" + each.said().partition(": ")[0][8:], each.expected)
                for each in error.faults
            ]
            raise Problem(400, "These segments cannot be used", errors=faults) from None

    async def close(self) -> None:
        """Give the connections back."""
        await self.members.close()


def build_router(
    segments: Segments, accesses: Accesses, access: Access, clock_ms: ClockMs = now_ms
) -> APIRouter:
    """`/v1/segments`, the members of one, and a preview of others."""
    router = APIRouter(tags=["Segments"])

    @router.get(
        "/v1/segments",
        responses={200: {"model": SegmentsShown}},
        response_class=Response,
        dependencies=[Depends(access.require("activation"))],
        summary="All segments, and how many people are in each",
    )
    async def get_segments() -> Response:
        """Definitions as they were applied last; a size follows an event within a moment."""
        at_ms = clock_ms()
        await segments.members.sizes([])  # tells at once that there is nothing to count in
        version, defined_at_ms, found = await segments.defined()
        sizes = await segments.members.sizes([each.id for each in found])
        return json_answer(
            {
                "version": version,
                "defined_at": rfc3339(defined_at_ms) if version else None,
                "as_of": rfc3339(at_ms),
                "segments": [
                    each.to_json() | {"size": size} for each, size in zip(found, sizes, strict=True)
                ],
            }
        )

    @router.get(
        "/v1/segments/{segment_id}/members",
        responses={200: {"model": MembersShown}},
        response_class=Response,
        summary="Who is in a segment",
    )
    async def get_members(
        segment_id: Annotated[str, Path(pattern="^[a-z0-9_]{1,64}$")],
        roles: Annotated[Roles, Depends(access.require("activation"))],
        cursor: Annotated[str, Query(pattern="^([0-9a-f]{32})?$")] = "",
        limit: Annotated[int, Query(ge=1, le=MOST_MEMBERS)] = 100,
    ) -> Response:
        """A page of pseudonyms; a key that stands for the role privacy_officer too, or for admin,
        is told their identifiers. A page may be shorter than its limit. 404 when there is no such
        segment; 503 when it cannot be told who objected, or be written down who reads.
        """
        at_ms = clock_ms()
        pids = await segments.members.page(segment_id, cursor, limit)
        if not pids and not cursor:
            # Of one that is defined no more the members are shown until they have left.
            known = [each.id for each in (await segments.defined())[2]]
            if segment_id not in known:
                raise Problem(404, f"No segment has this id{nearest(segment_id, known)}")
        shown = await segments.shown(pids, at_ms)
        named = shown if sees_identifiers(roles) else {pid: list[str]() for pid in shown}
        await asyncio.gather(
            *(
                accesses.record(pid, roles, "segment", [f"segments/{segment_id}", *_kinds(names)])
                for pid, names in named.items()
            )
        )
        return json_answer(
            {
                "segment": segment_id,
                "as_of": rfc3339(at_ms),
                "members": [pid.hex() for pid in shown],
                "identifiers": {pid.hex(): names for pid, names in named.items()}
                if named is shown
                else None,
                "cursor": pids[-1].hex() if len(pids) == limit else None,
            }
        )

    @router.post(
        "/v1/segments/preview",
        responses={200: {"model": PreviewShown}},
        response_class=Response,
        dependencies=[Depends(access.require("activation"))],
        summary="How many people would be in these segments",
    )
    async def post_preview(body: PreviewBody) -> Response:
        """Every stored profile is looked at, by the rules of the lanes; nothing changes."""
        parsed, at_ms = segments.parse(body.segments), clock_ms()
        counts, people = await asyncio.to_thread(segments.preview, parsed, at_ms)
        told = [{"id": each.id, "name": each.name, "members": counts[each.id]} for each in parsed]
        return json_answer({"as_of": rfc3339(at_ms), "people": people, "segments": told})

    return router


def _kinds(names: Sequence[str]) -> list[str]:
    """What is shown of somebody with `names`, for the record of who read it: never a value."""
    return sorted({f"identifiers/{name.partition(':')[0]}" for name in names})
