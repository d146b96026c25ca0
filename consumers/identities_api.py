"""Who is this person known as, who said so, and how is a wrong word taken back?

Claims come from calls (producers/calls_to_claims.py), and the first of equals stands: the second
user of a shared device is refused, and shown here. What only a person can know is decided by hand:
that two are one, or that they are not. A decision by hand counts before every call, is a claim on
the log like any other, and can be taken back by another (ADR 0018, 0019).
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from consumers.accesses import Accesses
from consumers.consents.api import misfit, subject_of_body
from consumers.profiles.profiles_api import EXPECTED_SUBJECT, UNKNOWN, parse_subject
from consumers.rules.consent_bodies import Misfit
from consumers.rules.identity_view import Json, Name, view_identity
from consumers.rules.times import rfc3339
from runtime.access import Access, Roles
from runtime.answers import json_answer
from runtime.clock import ClockMs, now_ms
from runtime.consent_overlay import ConsentOverlay
from runtime.deliveries import Deliveries
from runtime.kin import Bonds
from runtime.problems import Problem
from runtime.sealing import IdType, Person
from runtime.settings import Settings
from runtime.vault import Identifier, Vault
from runtime.vault_rows import canonical
from schemas.codec import CLAIMED
from schemas.identity import RANK, Claim, decided_at_ms, height
from schemas.moves import Claimed

Action = Literal["link", "revoke"]
_CAUSES: Mapping[Action, str] = {"link": "linked", "revoke": "revoked"}


class LinkBody(BaseModel):
    """Two identifiers that are, or are not, one person's; which is named first does not matter."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "subject": "anonymous:a1",
                    "of": "user:42",
                    "action": "revoke",
                    "reason": "shared_device",
                }
            ]
        },
    )

    subject: str = Field(max_length=600, description=EXPECTED_SUBJECT)
    of: str = Field(max_length=600, description=EXPECTED_SUBJECT)
    action: Action
    reason: Literal["shared_device", "wrong_claim", "same_person", "asked_for", "other"] = "other"


class Linked(BaseModel):
    """The decision is in force. `one_person` tells whether both are one now: they still may be
    after a `revoke`, through a third identifier."""

    subject: str
    of: str
    action: Action
    recorded_at: str
    one_person: bool


class ClaimSeen(BaseModel):
    """Somebody's word that `identifier` is `of` somebody."""

    identifier: str
    of: str
    cause: str
    at: str
    event_id: str


class KnownAs(BaseModel):
    """One identifier of a person; `claimed_by` is whose it is by the claim that stands."""

    type: str
    value: str
    claimed_by: str | None


class Identity(BaseModel):
    """A person: `stands_for` is the identifier that stands for all; claims that stand, those that
    were refused because another came first, and those that were revoked by hand."""

    subject: str
    stands_for: str
    identifiers: list[KnownAs]
    standing: list[ClaimSeen]
    refused: list[ClaimSeen]
    revoked: list[ClaimSeen]


class Identities:
    """Shows who is who, and records decisions by hand; `start` before, `close` after."""

    def __init__(
        self,
        settings: Settings,
        vault: Vault,
        accesses: Accesses,
        *,
        clock: ClockMs = now_ms,
        new_id: Callable[[], bytes] = lambda: os.urandom(16),
    ) -> None:
        self._topic = settings.topic_names.moves
        self._vault = vault
        self._accesses = accesses
        self._overlay = ConsentOverlay(settings)
        self._deliveries = Deliveries(settings.kafka.bootstrap_servers)
        self._clock = clock
        self._new_id = new_id

    async def start(self) -> None:
        """Ready to take decisions."""
        self._deliveries.start()

    async def close(self) -> None:
        """Give the connections back."""
        await asyncio.to_thread(self._deliveries.close)
        await self._overlay.close()
        self._vault.close()

    async def show(
        self, subject: str, id_type: IdType, external_id: str, roles: Roles
    ) -> Json | None:
        """Who the person is known as, once it is written down that `roles` read it; None when
        unknown or erased. Raises StoreUnavailable, StoreRefused."""
        person = await asyncio.to_thread(self._vault.lookup, id_type, external_id)
        if person is None:
            return None
        kin = self._overlay.kin
        pids = await kin.pids_of(person.pid)
        bonds = await kin.bonds_of(pids)
        # What they claim of others was refused: that is seen from there.
        others = {pid for each in bonds.values() for pid in each.claimed} - set(pids)
        bonds |= await kin.bonds_of(others) if others else {}
        claims = {pid: each.claims for pid, each in bonds.items()}
        names = await self._names(
            {*claims, *(c.claimant for each in claims.values() for c in each)}
        )
        view = view_identity(subject, pids, claims, names)
        shown = [f"identifiers/{each['type']}" for each in view["identifiers"]]
        await self._accesses.record(person.pid, roles, "identity", sorted({*shown, "claims"}))
        return view

    async def decide(
        self, one: Identifier, other: Identifier, body: LinkBody, roles: Roles
    ) -> Linked | None:
        """The decision is on the log and in the vault, on disk; None when one of them is unknown or
        erased. Raises StoreUnavailable, StoreRefused."""
        found = [await asyncio.to_thread(self._vault.lookup, *each) for each in (one, other)]
        people = [person for person in found if isinstance(person, Person)]
        if len(people) < 2:
            return None
        kin = self._overlay.kin
        ids = {
            person.pid: canonical(*each) for person, each in zip(people, (one, other), strict=True)
        }
        bonds = await kin.bonds_of(ids)
        low, high = low_and_high(ids, bonds)
        now = self._clock()
        at_ms = decided_at_ms(bonds[low].claims, now)
        claim = Claim(high, RANK[ids[high][0]], at_ms, self._new_id(), _CAUSES[body.action])
        said = Claimed(
            low,
            claim.claimant,
            claim.rank,
            claim.occurred_at_ms,
            claim.event_id,
            claim.cause,
            now,
        )
        for person in people:
            fields = [claim.cause, f"reason/{body.reason}"]
            await self._accesses.record(person.pid, roles, "identity", fields)
        await self._deliveries.send([(self._topic, low, CLAIMED.encode(said))])
        await kin.put([(low, claim)])
        return Linked(
            subject=body.subject,
            of=body.of,
            action=body.action,
            recorded_at=rfc3339(at_ms),
            # Of one who is too large nobody can tell; they were one, as far as anybody knows.
            one_person=high in (await kin.people_found([low])).get(low, (high,)),
        )

    async def _names(self, pids: Iterable[bytes]) -> dict[bytes, Name]:
        """Type and value of each pid's identifier; of who was erased meanwhile nothing."""
        wanted = list(pids)
        rows = await asyncio.to_thread(self._vault.identifiers_of, wanted)
        named = zip(wanted, rows, strict=True)
        return {pid: (row[1], row[2]) for pid, row in named if row is not None}


def low_and_high(
    ids: Mapping[bytes, Identifier], bonds: Mapping[bytes, Bonds]
) -> tuple[bytes, bytes]:
    """Of two pids who is claimed, then who claims; as it was said of them before ADR 0035, if it
    was: two who claimed each other would belong to nobody."""
    low, high = sorted(ids, key=lambda pid: height(*ids[pid]))
    is_the_other_way = any(claim.claimant == low for claim in bonds[high].claims)
    return (high, low) if is_the_other_way else (low, high)


def build_router(identities: Identities, access: Access) -> APIRouter:
    """`GET /v1/identities/{subject}`, `POST /v1/identities/links`."""
    router = APIRouter(tags=["Privacy desk"])
    officer = access.require("privacy_officer")

    @router.get(
        "/v1/identities/{subject:path}",
        responses={200: {"model": Identity}},
        response_class=Response,
        summary="By what a person is known, and who said so",
    )
    async def get_identity(
        subject: Annotated[str, Path(description=EXPECTED_SUBJECT, examples=["user:42"])],
        roles: Annotated[Roles, Depends(officer)],
    ) -> Response:
        """Every identifier, the claims that stand, were refused or revoked; 404 when unknown or
        erased, 503 while it cannot be written down who reads it."""
        view = await identities.show(subject, *parse_subject(subject), roles)
        if view is None:
            raise Problem(404, UNKNOWN)
        return json_answer(view)

    @router.post(
        "/v1/identities/links",
        responses={200: {"model": Linked}},
        response_class=Response,
        summary="Say by hand that two identifiers are, or are not, one person's",
    )
    async def post_link(body: LinkBody, roles: Annotated[Roles, Depends(officer)]) -> Response:
        """200 once it is on the log and known to all that shows, sends and erases.

        It counts before every call, past or to come, until it is decided otherwise by hand.
        """
        one, other = subject_of_body(body.subject), _of_body(body.of)
        if one == other:
            raise misfit(Misfit("$.of", "another identifier than the subject"))
        linked = await identities.decide(one, other, body, roles)
        if linked is None:
            raise Problem(404, "One of the two identifiers is nobody's")
        return json_answer(linked.model_dump())

    return router


def _of_body(of: str) -> Identifier:
    try:
        return subject_of_body(of)
    except Problem:
        raise misfit(Misfit("$.of", EXPECTED_SUBJECT)) from None
