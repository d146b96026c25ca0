"""How does our desk record what a person decided, and show what they ever did?

200 means in force: on the log, and where everything that shows or sends looks it up. A person may
decide before we know anything of them. Somebody who was erased is not told apart from anybody else:
their decision is answered like every other and kept nowhere.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel

from consumers.accesses import Accesses
from consumers.consents.history import ConsentHistory
from consumers.profiles.profiles_api import EXPECTED_SUBJECT, UNKNOWN, split_subject
from consumers.rules.consent_bodies import (
    ConsentBody,
    Misfit,
    missing_in_grant,
    needs_guardian,
    read_decision,
)
from consumers.rules.consent_views import Json, consent_of, union, view_consents
from consumers.rules.times import rfc3339
from runtime.access import Access, Roles
from runtime.answers import json_answer
from runtime.clock import ClockMs, now_ms
from runtime.consent_desk import ConsentDesk, NeedsGuardian, Outcome, Wanted
from runtime.consent_links import Links
from runtime.consent_overlay import ConsentOverlay
from runtime.deliveries import Deliveries
from runtime.known_vault import KnownVault
from runtime.problems import Fault, Problem
from runtime.sealing import IdType, Person
from runtime.settings import Settings
from runtime.vault import AsyncVault, Identifier
from schemas.decisions import PENDING, Decision, Known, content_of
from schemas.minors import is_void
from schemas.subjects import Consent

_MOST_READERS = 4
NOBODY = bytes(16)
"""Stands for somebody who was erased, where anybody else has a pid."""


class Confirmation(BaseModel):
    """The link by which a person confirms; it works once."""

    url: str
    expires_at: str


class InForce(BaseModel):
    """What is on record now. `changed` is false when it was already; `confirm` comes with a
    subscription that is pending."""

    record_id: str
    status: str
    valid_from: str
    valid_to: str | None
    recorded_at: str
    changed: bool
    confirm: Confirmation | None = None


class State(BaseModel):
    """What holds now: `allowed` is what is acted on; `status` unknown if nothing was decided."""

    allowed: bool
    status: str
    since: str | None
    until: str | None
    recorded_at: str | None


class PurposeState(State):
    """Of a purpose; `basis` is its legal basis."""

    purpose: str
    basis: str


class SubscriptionState(State):
    """Of a channel and topic."""

    channel: str
    topic: str


class Consents(BaseModel):
    """What a person decided; `history` are the records with their proof, oldest first."""

    subject: str
    purposes: list[PurposeState]
    subscriptions: list[SubscriptionState]
    history: list[dict[str, object]]


@dataclass(frozen=True, slots=True)
class Recording:
    """A decision on its way in: whose, and what."""

    id_type: IdType
    external_id: str
    decision: Decision


class Consenting:
    """Records and shows decisions; `start` before, `close` after. Belongs to one event loop."""

    def __init__(self, settings: Settings, accesses: Accesses, *, clock: ClockMs = now_ms) -> None:
        self.settings = settings
        self.accesses = accesses
        self.clock = clock
        self.vault = AsyncVault.from_settings(settings)
        self.overlay = ConsentOverlay(settings)
        self.links = Links.from_settings(settings)
        self.bases = {name: purpose.basis for name, purpose in settings.purposes.items()}
        self._known_vault = KnownVault(settings, self.vault)
        self._deliveries = Deliveries(settings.kafka.bootstrap_servers)
        self.desk = ConsentDesk(settings, self.overlay, self._deliveries)
        self._history = ConsentHistory(settings)
        # A reader holds a connection and a batch in memory.
        self._turns = asyncio.Semaphore(_MOST_READERS)

    async def start(self) -> None:
        """Ready to take decisions."""
        self._deliveries.start()

    async def close(self) -> None:
        """What was acknowledged is safe, the rest is let go."""
        await asyncio.to_thread(self._deliveries.close)
        await self.overlay.close()
        await self.vault.close()

    async def record(self, recording: Recording) -> Json:
        """The decision is in force; what is told of it.

        Raises Problem of a yes that needs a guardian's, StoreUnavailable, StoreRefused.
        """
        at_ms = self.clock()
        decision = recording.decision
        if decision.valid_from_ms is None and (decision.valid_to_ms or at_ms + 1) <= at_ms:
            # It would be told to be in force, and never be it.
            raise misfit(Misfit("$.valid_to", "a time after valid_from, or after now without one"))
        # Before anybody is looked up: whoever was erased is answered like everybody.
        refused = self.desk.refusal_of(Wanted(NOBODY, decision, "said", at_ms))
        if refused is not None:
            raise misfit(needs_guardian(refused.age_of_consent))
        pid = await self.pid_of(recording.id_type, recording.external_id)
        if pid == NOBODY:
            begins = decision.valid_from_ms if decision.valid_from_ms is not None else at_ms
            until = decision.valid_to_ms
            known = Known(
                Consent(decision.subject_of, decision.status, begins, until, at_ms),
                content_of(NOBODY, decision),
                b"",
            )
            outcome = Outcome(known, is_new=True)
        else:
            (taken,) = await self.desk.decide([Wanted(pid, decision, "said", at_ms)])
            if isinstance(taken, NeedsGuardian):
                raise misfit(needs_guardian(taken.age_of_consent))
            outcome = taken
        told = _told(outcome)
        if outcome.known.consent.status == PENDING:
            made = self.links.confirm(pid, decision.subject_of, outcome.known.record_id, at_ms)
            told["confirm"] = {"url": made.url, "expires_at": rfc3339(made.expires_at_ms)}
        return told

    async def pid_of(self, id_type: IdType, external_id: str) -> bytes:
        """The person's pid, made where it is new; NOBODY of who was erased. Raises
        StoreUnavailable, StoreRefused."""
        (pid,) = await self.pids_of([(id_type, external_id)])
        return pid

    async def pids_of(self, identifiers: Sequence[Identifier]) -> list[bytes]:
        """The same for many, in their order."""
        await self._known_vault.require()
        at_ms = self.clock()
        found = await self.vault.resolve(
            identifiers, heard_at_ms=lambda: dict.fromkeys(identifiers, at_ms)
        )
        return [each.pid if isinstance(each, Person) else NOBODY for each in found]

    async def show(
        self, subject: str, id_type: IdType, external_id: str, roles: Roles
    ) -> Json | None:
        """State and history of a person, once it is written down that `roles` read them; None when
        unknown or erased. Raises StoreUnavailable."""
        person = await self.vault.lookup(id_type, external_id)
        if person is None:
            return None
        pids = await self.overlay.kin.pids_of(person.pid)
        async with self._turns:
            records = [await asyncio.to_thread(self._history.of, pid) for pid in pids]
        in_force = await self.overlay.consents_of_each(pids)
        decided = [
            union((consent_of(each.change) for each in of if not is_void(each.change)), consents)
            for of, consents in zip(records, in_force, strict=True)
        ]
        history = [each for of in records for each in of]
        await self.accesses.record(person.pid, roles, "consents", ("consents", "decisions"))
        return view_consents(subject, history, decided, self.bases, self.clock())


def _told(outcome: Outcome) -> Json:
    now = outcome.known.consent
    return {
        "record_id": outcome.known.record_id.hex(),
        "status": now.status,
        "valid_from": rfc3339(now.valid_from_ms),
        "valid_to": None if now.valid_to_ms is None else rfc3339(now.valid_to_ms),
        "recorded_at": rfc3339(now.recorded_at_ms),
        "changed": outcome.is_new,
    }


def read_recording(body: ConsentBody, purposes: frozenset[str]) -> Recording:
    """What `body` asks to be recorded. Raises Problem with the path that does not fit."""
    id_type, external_id = subject_of_body(body.subject)
    decision = read_decision(body, purposes)
    if isinstance(decision, Misfit):
        raise misfit(decision)
    return Recording(id_type, external_id, decision)


def subject_of_body(subject: str) -> tuple[IdType, str]:
    """Type and value of the identifier in `$.subject`. Raises Problem."""
    split = split_subject(subject)
    if split is None:
        raise misfit(Misfit("$.subject", EXPECTED_SUBJECT))
    return split


def misfit(found: Misfit) -> Problem:
    """The answer to a request in which something does not go together."""
    return misfits([found])


def misfits(found: Sequence[Misfit]) -> Problem:
    """The same, where several things are missing or do not go together."""
    return Problem(
        400,
        "; ".join(f"Expected {each.expected} at {each.path}" for each in found),
        errors=[Fault(each.path, each.expected) for each in found],
    )


def build_router(consenting: Consenting, access: Access) -> APIRouter:
    """`POST /v1/consents`, `GET /v1/consents/{subject}`."""
    router = APIRouter(tags=["Consent"], dependencies=[Depends(access.require("consent_desk"))])
    purposes = frozenset(consenting.bases)

    @router.post(
        "/v1/consents",
        responses={200: {"model": InForce}},
        response_class=Response,
        summary="Record what a person decided",
    )
    async def post_consent(body: ConsentBody) -> Response:
        """200 once it is in force: on the log, and in what everything that shows or sends asks.

        The same decision sent again changes nothing. A yes needs `source`, `proof.method` and
        `proof.text_version`, and one of a child `proof.authorised_by` guardian; a no needs nothing.
        """
        recording = read_recording(body, purposes)
        missing = missing_in_grant(body)
        if missing:
            raise misfits(missing)
        answer = await consenting.record(recording)
        return json_answer(answer)

    @router.get(
        "/v1/consents/{subject:path}",
        responses={200: {"model": Consents}},
        response_class=Response,
        summary="What a person decided, now and ever",
    )
    async def get_consents(
        subject: Annotated[str, Path(description=EXPECTED_SUBJECT, examples=["user:42"])],
        roles: Annotated[Roles, Depends(access.require("consent_desk"))],
    ) -> Response:
        """Every purpose and subscription as of now, and every record with its proof."""
        split = split_subject(subject)
        if split is None:
            raise misfit(Misfit("path.subject", EXPECTED_SUBJECT))
        found = await consenting.show(subject, *split, roles)
        if found is None:
            raise Problem(404, UNKNOWN)
        return json_answer(found)

    return router
