"""What would have gone out, where no mail server is configured?

For development and demos: the page `/outbox` shows the newest messages as their people would have
seen them. They are sealed with the person's own key and gone after a day; each look at one is
written down like every other reading of a person's data.
"""

import asyncio
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from consumers.accesses import Accesses
from consumers.campaigns.page_api import page_file, whole_page
from consumers.messages.store import MessageStore
from consumers.rules.times import rfc3339
from runtime.access import Access, Roles
from runtime.answers import json_answer
from runtime.vault import Vault
from schemas.errors import StoreRefused

MOST = 200
_FIELDS = ("address", "subject", "text", "html")


class MailShown(BaseModel):
    """A message as it would have gone."""

    message_id: str
    at: str
    journey_id: str
    step: int
    to: str
    subject: str
    text: str
    html: str


class OutboxShown(BaseModel):
    """Newest first."""

    messages: list[MailShown]


class Outbox:
    """Opens what is in the outbox. Raises StoreUnavailable while it cannot."""

    def __init__(self, store: MessageStore, vault: Vault) -> None:
        self._store = store
        self._vault = vault

    def newest(self, limit: int) -> list[tuple[bytes, dict[str, Any]]]:
        """(pid, message) of the newest, but for people who were erased."""
        found = self._store.put_out_newest(limit)
        rows = self._vault.identifiers_of([pid for _, _, pid, _ in found])
        shown = []
        for (id_, at_ms, pid, sealed), row in zip(found, rows, strict=True):
            if row is None:
                continue
            try:
                mail = orjson.loads(row[0].unseal(sealed, bytes.fromhex(id_)))
            except StoreRefused:
                continue  # of a key that is no more
            shown.append((pid, {"message_id": id_, "at": rfc3339(at_ms), **mail}))
        return shown

    async def close(self) -> None:
        """Give the connections back."""
        self._vault.close()


def build_router(outbox: Outbox, accesses: Accesses, access: Access) -> APIRouter:
    """`GET /outbox` and what it shows."""
    router = APIRouter(tags=["Automation"])
    page = whole_page("outbox.html", "Outbox", "outbox.js")

    @router.get("/outbox", response_class=Response, summary="The page of the outbox")
    async def get_page(request: Request) -> Response:
        """Messages that would have gone out; holds no data itself."""
        return page_file("outbox.html", page, request)

    @router.get(
        "/v1/outbox",
        responses={200: {"model": OutboxShown}},
        response_class=Response,
        summary="Messages that would have gone out",
    )
    async def get_outbox(
        roles: Annotated[Roles, Depends(access.require("operator"))],
        limit: Annotated[int, Query(ge=1, le=MOST)] = 20,
    ) -> Response:
        """The newest first, as their people would have seen them.

        503 while it cannot be written down who reads them.
        """
        found = await asyncio.to_thread(outbox.newest, limit)
        for pid in dict.fromkeys(pid for pid, _ in found):
            await accesses.record(pid, roles, "outbox", _FIELDS)
        answer = {"messages": [mail for _, mail in found]}
        return json_answer(answer)

    return router
