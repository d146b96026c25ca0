"""How does a tool that sends messages learn whether this one may go now?

It asks right before each message. That somebody was erased is itself something personal, so they
get the answer of somebody who never was.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from consumers.consents.api import misfit, subject_of_body
from consumers.consents.send_gate import SendGate
from consumers.rules.consent_bodies import Misfit, Name
from runtime.access import Access
from runtime.answers import json_answer
from runtime.consent_overlay import SEND_WITHIN_MS
from schemas.decisions import ALL_TOPICS


class SendBody(BaseModel):
    """A message that is about to go: to whom, over which channel, on which topic."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"subject": "user:42", "channel": "email", "topic": "newsletter"}]
        },
    )

    subject: str = Field(
        max_length=600, description="user:ID, anonymous:ID, email:ADDRESS or phone:NUMBER"
    )
    channel: Name
    topic: Name


class Permission(BaseModel):
    """Whether it may go. `refused_by` names the rule that forbids it; `send_within_ms` is how long
    after asking, by the sender's clock, it must have begun, else ask again."""

    allowed: bool
    refused_by: Literal["unknown_person", "purpose", "subscription"] | None
    send_within_ms: Annotated[int, Field(ge=0)]


def build_router(gate: SendGate, access: Access) -> APIRouter:
    """`POST /v1/sends/permissions`."""
    router = APIRouter(tags=["Consent"], dependencies=[Depends(access.require("activation"))])

    @router.post(
        "/v1/sends/permissions",
        responses={200: {"model": Permission}},
        response_class=Response,
        summary="May this message go to this person now?",
    )
    async def post_permission(body: SendBody) -> Response:
        """Ask right before each message, and begin to send within `send_within_ms` or ask again.

        503 when it cannot be told: then do not send.
        """
        id_type, external_id = subject_of_body(body.subject)
        if body.topic == ALL_TOPICS:
            raise misfit(Misfit("$.topic", "the one topic of this message, not all of them"))
        if body.channel == "purpose":
            raise misfit(Misfit("$.channel", "the name of a channel, such as email"))
        refusal = await gate.ask(id_type, external_id, body.channel, body.topic)
        answer = {
            "allowed": refusal is None,
            "refused_by": "unknown_person" if refusal == "erased" else refusal,
            "send_within_ms": SEND_WITHIN_MS if refusal is None else 0,
        }
        return json_answer(answer)

    return router
