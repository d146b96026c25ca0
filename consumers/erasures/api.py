"""How does the privacy desk ask that a person be forgotten, and learn how far it is?

The answer 202 means two things: the request is durable in erasures.requested, and the identifier
is suppressed, its data key destroyed. The request comes first: if this process dies in between,
the role `erasure` finds it there and suppresses. The id of an erasure is a keyed hash of the pid,
so asking twice is asking once. A person who is known by several identifiers has as many pids: each
has its own erasure, request and certificate, and all of them are asked for together (ADR 0019).
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field

from consumers.erasures.claims_in_vain import revocations_of
from consumers.erasures.store import ErasureStore, Kept
from consumers.profiles.profiles_api import parse_subject
from consumers.rules.erasure import together
from consumers.rules.times import rfc3339
from runtime.access import Access
from runtime.answers import json_answer
from runtime.clock import ClockMs, now_ms
from runtime.consent_overlay import ConsentOverlay
from runtime.deliveries import Deliveries
from runtime.gathering import Gathering
from runtime.problems import Fault, Problem
from runtime.sealing import IdType
from runtime.settings import Settings
from runtime.vault import Erased, Suppressed, Vault
from schemas.codec import ERASURE_REQUESTED
from schemas.requests import ErasureRequested

_EXPECTED = "user:ID, anonymous:ID, email:ADDRESS or phone:NUMBER"
AT_ONCE = 500
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_NOBODY = (
    "Nobody is known by this identifier and nothing is held under it. A person may be known by "
    "others that no call ever named together: ask for each (user:, anonymous:, email:, phone:)"
)


class ErasureAsked(BaseModel):
    """Who is to be forgotten, and on which ground of GDPR Art. 17(1)."""

    model_config = ConfigDict(extra="forbid")

    subject: str = Field(examples=["user:42"])
    reason: Literal["withdrawn", "objected", "unlawful", "no_longer_needed", "other"]


class ErasureBegun(BaseModel):
    """What to ask for later."""

    erasure_id: str


class StoreLook(BaseModel):
    """What one store still had when it was last looked into."""

    store: str
    looked_for: str
    remaining: int
    checked_at: str
    how: str


class Waiting(BaseModel):
    """What goes with time only, and when at the earliest."""

    what: str
    until: str


class ErasureState(BaseModel):
    """How far an erasure is. `certificate` is the newest, with its signature; null before.

    A person of several identifiers has an erasure, and a certificate, for each: `together` names
    them all, and status, stores and pending are of all of them.
    """

    erasure_id: str
    status: Literal["running", "provisional", "final"]
    requested_at: str | None
    reason: str | None
    together: list[str]
    stores: list[StoreLook]
    pending: list[Waiting]
    certificate: dict[str, Any] | None


class Erasures:
    """Takes requests and tells how far they are. Raises StoreUnavailable while it cannot."""

    def __init__(
        self,
        settings: Settings,
        vault: Vault,
        store: ErasureStore,
        deliveries: Deliveries,
        clock: ClockMs = now_ms,
    ) -> None:
        self._topic = settings.topic_names.erasures
        self._moves = settings.topic_names.moves
        self._vault = vault
        self._store = store
        self._deliveries = deliveries
        self._clock = clock
        self._overlay = ConsentOverlay(settings)
        self._kin = self._overlay.kin
        # Each costs a write to the vault's disk.
        self._suppressing: Gathering[Erased] = Gathering(self._suppress, AT_ONCE)

    async def start(self) -> None:
        """Ready to take requests."""
        self._deliveries.start()

    async def close(self) -> None:
        """Give the connections back."""
        await asyncio.to_thread(self._deliveries.close)
        await self._overlay.close()
        self._vault.close()
        self._store.close()

    async def request(self, id_type: IdType, external_id: str, reason: str) -> str | None:
        """The id of the erasure that is under way, or was done, of whoever has this identifier.

        It is of all their identifiers, and the id that of the one which stands for the person.

        None when nobody has it, or ever had it erased.
        """
        found = await asyncio.to_thread(self._vault.find, id_type, external_id)
        if found is None:
            return None
        if isinstance(found, Suppressed):
            return await self._asked_before(found)
        now = self._clock()
        pids = await self._kin.pids_of(found.pid)
        rows = {found.pid: (id_type, external_id)}
        if len(pids) > 1:
            rows = await asyncio.to_thread(identifiers_of, self._vault, pids)
            if found.pid not in rows:
                # Somebody else asked for the same meanwhile: theirs names all of the person.
                return await self.request(id_type, external_id, reason)
        person = [
            Erased(self._vault.hash_of(*row), pid, now, self._vault.erasure_id_of(pid))
            for pid, row in rows.items()
        ]
        # Before anything is erased: afterwards nothing tells any more who was one.
        ids = [each.erasure_id.hex() for each in person]
        await asyncio.to_thread(self._store.join, ids)
        id_of = self._vault.erasure_id_of
        revoked = await revocations_of(self._kin, self._moves, list(rows), now, id_of)
        await self._deliveries.send(
            [
                (self._topic, each.pid, ERASURE_REQUESTED.encode(_request(each, reason)))
                for each in person
            ]
            + revoked
        )
        await asyncio.gather(*(self._suppressing.add(each) for each in person))
        return ids[0]

    async def _asked_before(self, found: Suppressed) -> str | None:
        """The id that was given to whoever asked first."""
        if found.erasure_id is None:
            return None
        erasure_id = found.erasure_id.hex()
        (kept,) = await asyncio.to_thread(self._store.read, [erasure_id])
        return kept.together[0] if kept is not None and kept.together else erasure_id

    async def _suppress(self, erased: list[Erased]) -> None:
        """The identifiers are suppressed, durably."""
        await asyncio.to_thread(self._vault.suppress_erased, erased)

    async def read(self, erasure_id: str) -> ErasureState | None:
        """How far it is, with those of the person's other pids; None when nobody asked for it."""
        kept = await asyncio.to_thread(read_together, self._store, erasure_id)
        if kept is None:
            return None
        certificate = None
        if kept.erasure is not None and kept.erasure.certificate:
            number = kept.erasure.certificate
            found = await asyncio.to_thread(self._store.chain, number, number)
            certificate = next(iter(found), None)
        return state_of(erasure_id, kept, certificate)


def identifiers_of(vault: Vault, pids: Sequence[bytes]) -> dict[bytes, tuple[IdType, str]]:
    """Type and value of the identifier of each pid that was not erased meanwhile."""
    rows = zip(pids, vault.identifiers_of(pids), strict=True)
    return {pid: (cast("IdType", row[1]), row[2]) for pid, row in rows if row is not None}


def read_together(store: ErasureStore, erasure_id: str) -> Kept | None:
    """What is stored of an erasure, as far as those of all pids of the person are; None when nobody
    asked for it."""
    (own,) = store.read([erasure_id])
    if own is None or not own.together:
        return own
    others = [each for each in own.together if each != erasure_id]
    found = [own, *(kept for kept in store.read(others) if kept is not None)]
    erasures = [kept.erasure for kept in found if kept.erasure is not None]
    if len(erasures) < len(found):
        return replace(own, erasure=None)
    return replace(own, erasure=together(erasures))


def _request(erased: Erased, reason: str) -> ErasureRequested:
    return ErasureRequested(
        erased.erasure_id, erased.pid, erased.erased_at_ms, reason, [erased.subject]
    )


def state_of(erasure_id: str, kept: Kept, certificate: dict[str, Any] | None) -> ErasureState:
    """What is told of an erasure: no pid, and of the subject only what the certificate has."""
    erasure = kept.erasure
    if erasure is None:
        return ErasureState(
            erasure_id=erasure_id,
            status="running",
            requested_at=None,
            reason=None,
            together=list(kept.together),
            stores=[],
            pending=[],
            certificate=None,
        )
    return ErasureState(
        erasure_id=erasure_id,
        status=erasure.status,
        requested_at=rfc3339(erasure.requested_at_ms),
        reason=erasure.reason,
        together=list(kept.together),
        stores=[
            StoreLook(
                store=look.store,
                looked_for=look.looked_for,
                remaining=look.remaining,
                checked_at=rfc3339(look.checked_at_ms),
                how=look.how,
            )
            for look in erasure.looks
        ],
        pending=[Waiting(what=wait.what, until=rfc3339(wait.until_ms)) for wait in erasure.pending],
        certificate=certificate,
    )


def build_router(erasures: Erasures, access: Access) -> APIRouter:
    """`POST /v1/erasures` and `GET /v1/erasures/{id}`."""
    router = APIRouter(tags=["Privacy"], dependencies=[Depends(access.require("privacy_officer"))])

    @router.post("/v1/erasures", status_code=202, responses={202: {"model": ErasureBegun}})
    async def post_erasure(asked: ErasureAsked) -> ErasureBegun:
        """Forget a person, under all their identifiers, in every store.

        202 once that is durable and nothing new is taken in.

        Asking again gives the same erasure. 404 when nobody is known by the identifier.
        """
        try:
            id_type, external_id = parse_subject(asked.subject)
        except Problem as problem:
            raise Problem(400, problem.detail, errors=[Fault("$.subject", _EXPECTED)]) from None
        erasure_id = await erasures.request(id_type, external_id, asked.reason)
        if erasure_id is None:
            raise Problem(404, _NOBODY)
        return ErasureBegun(erasure_id=erasure_id)

    @router.get("/v1/erasures/{erasure_id}", responses={200: {"model": ErasureState}})
    async def get_erasure(
        erasure_id: Annotated[str, Path(description="As POST /v1/erasures gave it")],
    ) -> Response:
        """How far it is, what each store still had when it was looked into, what goes with time."""
        state = await erasures.read(erasure_id) if _ID.fullmatch(erasure_id) else None
        if state is None:
            raise Problem(404, "No erasure has this id")
        return json_answer(state.model_dump())

    return router
