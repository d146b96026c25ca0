"""What did automation send, hold or drop, and which rule and values decided?

Of one person or the newest of all: states, times, rules. No personal value: a message goes by its
id and its person by the pseudonym; what it said is nowhere but in the outbox.
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel

from consumers.messages.store import MessageStore
from consumers.profiles.profiles_api import EXPECTED_SUBJECT, parse_subject
from consumers.rules.messages import STATES, Decided, History, State
from consumers.rules.times import rfc3339
from runtime.access import Access
from runtime.answers import json_answer
from runtime.consent_overlay import ConsentOverlay
from runtime.settings import Settings
from runtime.vault import Vault

MOST = 1000


class DecisionShown(BaseModel):
    """One decision: the state it led to, by which rule and values. `until` belongs to held."""

    at: str
    state: str
    rule: str | None
    until: str | None
    values: dict[str, Any]


class MessageShown(BaseModel):
    """One message and every decision over it, oldest first."""

    message_id: str
    pid: str
    kind: str
    journey_id: str
    step: int
    channel: str
    campaign_id: str
    due_at: str
    state: State
    decisions: list[DecisionShown]


class MessagesShown(BaseModel):
    """Newest first."""

    messages: list[MessageShown]


class Messages:
    """Looks messages up; belongs to one event loop."""

    def __init__(self, settings: Settings, vault: Vault) -> None:
        self.store = MessageStore.from_settings(settings)
        self._vault = vault
        self._overlay = ConsentOverlay(settings)

    async def of_subject(self, subject: str) -> list[History]:
        """Every message of that person, under any of their pids; none of one who is not known.

        Raises Problem for what is no subject, StoreUnavailable.
        """
        person = await asyncio.to_thread(self._vault.lookup, *parse_subject(subject))
        if person is None:
            return []
        pids = await self._overlay.kin.pids_of(person.pid)
        return await asyncio.to_thread(self.store.of_person, pids)

    async def close(self) -> None:
        """Give the connections back."""
        await self._overlay.close()
        self._vault.close()
        self.store.close()


def view_message(history: History) -> dict[str, Any]:
    """One message as it is answered."""
    message = history.message
    return {
        "message_id": message.id,
        "pid": message.pid.hex(),
        "kind": message.kind,
        "journey_id": message.source,
        "step": message.step,
        "channel": message.channel,
        "campaign_id": message.campaign_id,
        "due_at": rfc3339(message.due_at_ms),
        "state": message.state,
        "decisions": [_view_decision(each) for each in history.decisions],
    }


def _view_decision(decided: Decided) -> dict[str, Any]:
    until_ms = decided.until_ms
    values = dict(decided.values or {})
    return {
        "at": rfc3339(decided.at_ms),
        "state": decided.state,
        "rule": decided.rule or None,
        "until": None if until_ms is None else rfc3339(until_ms),
        "values": {
            name.removesuffix("_ms"): rfc3339(value)
            if name.endswith("_ms") and isinstance(value, int)
            else value
            for name, value in values.items()
        },
    }


def build_router(messages: Messages, access: Access) -> APIRouter:
    """`GET /v1/messages`."""
    router = APIRouter(tags=["Automation"], dependencies=[Depends(access.require("operator"))])

    @router.get(
        "/v1/messages",
        responses={200: {"model": MessagesShown}},
        response_class=Response,
        summary="What was sent, held or dropped, and why",
    )
    async def get_messages(
        subject: Annotated[str | None, Query(description=EXPECTED_SUBJECT)] = None,
        state: Annotated[State | None, Query(description="Only those in this state")] = None,
        limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
    ) -> Response:
        """The newest first, of one person or of all, with every decision over each."""
        if subject is not None:
            found = await messages.of_subject(subject)
            found = [each for each in found if state in (None, each.message.state)][:limit]
        else:
            states = STATES if state is None else (state,)
            found = await asyncio.to_thread(messages.store.newest, states, limit)
        answer = {"messages": [view_message(each) for each in found]}
        return json_answer(answer)

    return router
