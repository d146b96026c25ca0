"""How does a privacy officer give a person everything that is held on them?

Whoever asks is written down before the first byte is given out. The answer is written while it is
read, so it has no length beforehand: one that ends without `complete` (JSON) or its last line
(HTML) broke off, and its connection does too.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import StreamingResponse

from consumers.accesses import Accesses
from consumers.exports.held import Held
from consumers.exports.subject_to_export import Exporter
from consumers.profiles.profiles_api import EXPECTED_SUBJECT, parse_subject
from consumers.rules.export_formats import AsHtml, AsJson, Format, Section
from consumers.rules.export_sections import SECTIONS
from runtime.access import Access, Roles
from runtime.clock import ClockMs, now_ms
from runtime.problems import Problem

AT_ONCE = 2
"""Exports that read at the same time; the next ones wait."""

_GATHERED_BYTES = 32_768


def build_router(
    exporter: Exporter, accesses: Accesses, access: Access, clock_ms: ClockMs = now_ms
) -> APIRouter:
    """`GET /v1/subjects/{subject}/export`."""
    router = APIRouter(tags=["Privacy desk"])
    turns = asyncio.Semaphore(AT_ONCE)

    async def written(form: Format, held: Held) -> AsyncIterator[bytes]:
        async with turns:
            parts = [form.begin(exporter.about(held, clock_ms()), SECTIONS)]
            size = 0
            async for piece in exporter.pieces(held):
                if isinstance(piece, Section):
                    parts.append(form.open(piece))
                else:
                    parts.append(form.close() if piece is None else form.item(piece))
                size += len(parts[-1])
                if size > _GATHERED_BYTES:
                    yield b"".join(parts)
                    parts, size = [], 0
            yield b"".join([*parts, form.end()])

    @router.get(
        "/v1/subjects/{subject:path}/export",
        responses={200: {"content": {"application/json": {}, "text/html": {}}}},
        response_class=StreamingResponse,
        summary="Everything held on one person",
    )
    async def get_export(
        subject: Annotated[str, Path(description=EXPECTED_SUBJECT, examples=["user:42"])],
        roles: Annotated[Roles, Depends(access.require("privacy_officer"))],
        form: Annotated[
            Literal["json", "html"], Query(alias="format", description="For programs, or people")
        ] = "json",
    ) -> StreamingResponse:
        """Identifiers, profile, traits, decisions with their proof, accesses, counters, facts and
        events, each with where it lies, for what it is used, on which legal basis, and until when.

        404 when unknown or erased; 503 while it cannot be written down who reads it.
        """
        held = await exporter.find(subject, *parse_subject(subject))
        if held is None:
            raise Problem(404, "Nobody is known by this identifier")
        await accesses.record(held.person.pid, roles, "export", exporter.fields_given(held))
        writer: Format = AsHtml() if form == "html" else AsJson()
        headers = {
            "Content-Disposition": f'attachment; filename="export.{form}"',
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
        }
        return StreamingResponse(
            written(writer, held), media_type=writer.media_type, headers=headers
        )

    return router
