"""How does whoever writes to a person get the links that belong into the message?"""

from typing import Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from consumers.consents.api import Consenting, misfit, subject_of_body
from consumers.rules.consent_bodies import Misfit, Name
from consumers.rules.times import rfc3339
from runtime.access import Access
from runtime.answers import json_answer
from runtime.consent_links import unsubscribe_headers
from schemas.decisions import ALL_TOPICS


class LinkBody(BaseModel):
    """Which link, for whom. `channel` and `topic` belong to `unsubscribe`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"subject": "user:42", "kind": "preferences"}]},
    )

    subject: str = Field(
        max_length=600, description="user:ID, anonymous:ID, email:ADDRESS or phone:NUMBER"
    )
    kind: Literal["preferences", "unsubscribe"]
    channel: Name | None = None
    topic: Name | None = Field(None, description="Or 'all', which it is if left out")


class LinkMade(BaseModel):
    """`headers` belong into the mail beside an unsubscribe link (RFC 8058)."""

    url: str
    expires_at: str
    headers: dict[str, str]


def build_router(consenting: Consenting, access: Access) -> APIRouter:
    """`POST /v1/consents/links`."""
    router = APIRouter(tags=["Consent"], dependencies=[Depends(access.require("consent_desk"))])

    @router.post(
        "/v1/consents/links",
        responses={200: {"model": LinkMade}},
        response_class=Response,
        summary="A signed link to a person's preferences, or to unsubscribe",
    )
    async def post_link(body: LinkBody) -> Response:
        """Whoever has the link needs no login: send it to the person alone."""
        id_type, external_id = subject_of_body(body.subject)
        if (body.kind == "unsubscribe") != (body.channel is not None):
            raise misfit(Misfit("$.channel", "the channel of an unsubscribe link, and of no other"))
        if body.topic is not None and body.channel is None:
            raise misfit(Misfit("$.topic", "nothing without a channel"))
        pid = await consenting.pid_of(id_type, external_id)
        headers = {}
        if body.channel is not None:
            topic = body.topic or ALL_TOPICS
            made = consenting.links.unsubscribe(pid, body.channel, topic, consenting.clock())
            headers = unsubscribe_headers(made)
        else:
            made = consenting.links.preferences(pid, consenting.clock())
        answer = {"url": made.url, "expires_at": rfc3339(made.expires_at_ms), "headers": headers}
        return json_answer(answer)

    return router
