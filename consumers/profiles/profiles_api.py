"""What do we know of one person, for the tools that serve them?

The profile as the sink keeps it in Redis; traits are sealed there, and opened here with the data
key of the pid that they were told under. Whichever identifier is asked for, the whole person is
shown. An erased person and one who never was get the same answer: that somebody was erased is
itself something personal.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, cast, get_args

import orjson
import redis
import redis.asyncio
from fastapi import APIRouter, Depends, Path, Response
from msgspec.structs import replace
from pydantic import BaseModel

from consumers.accesses import Accesses
from consumers.rules.consent_views import union
from consumers.rules.profile import Json, may_be_shown, view_profile
from runtime.access import Access, Roles
from runtime.answers import json_answer
from runtime.clock import ClockMs, now_ms
from runtime.consent_overlay import ConsentOverlay
from runtime.problems import Fault, Problem
from runtime.purposes import basis_of
from runtime.sealing import IdType, Person
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.codec import SUBJECT
from schemas.errors import StoreUnavailable
from schemas.persons import groups_of, parts_of, whole_subject
from schemas.subjects import Consent, Subject, Trait
from schemas.traits import compute, facts_of

ANSWER_WITHIN_S = 5.0
_MOST_STEPS = 8
EXPECTED_SUBJECT = "user:ID, anonymous:ID, email:ADDRESS or phone:NUMBER"
UNKNOWN = "Nobody is known by this identifier"


class Amount(BaseModel):
    """Money of one currency; the amount is a decimal."""

    currency: str
    amount: str


class Score(BaseModel):
    """Of what somebody paid in one currency, 5 (best) to 1."""

    currency: str
    score: int


class RecencyFrequencyMonetary(BaseModel):
    """Scores of somebody's orders by the thresholds of `[traits]`, 5 (best) to 1."""

    recency: int
    frequency: int
    monetary: list[Score]


class Window(BaseModel):
    """What happened in so many days until now."""

    events: int
    visits: int
    product_views: int
    cart_adds: int
    orders: int


class Computed(BaseModel):
    """What the events of the person add up to; null is not known. See docs/traits.md."""

    events: int
    visits: int
    orders: int
    refunds: int
    spent: list[Amount]
    refunded: list[Amount]
    average_order_value: list[Amount] | None
    days_since_last_order: int | None
    rfm: RecencyFrequencyMonetary | None
    favourite_category: str | None
    windows: dict[str, Window | None]
    channel: str | None
    country: str | None
    device: str | None
    timezone: str | None


class Profile(BaseModel):
    """One person. Times are RFC 3339 in UTC, of the events."""

    subject: str
    first_seen: str
    last_seen: str
    traits: dict[str, Any]
    computed: Computed
    segments: list[str]
    consents: list[dict[str, str | None]]


Stored = tuple[Subject | None, bool]
"""The person as the sink wrote them, if it did, and whether it knows of their erasure."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A person, what is known of them under all their pids, what they decided under each, and
    whose key opens which trait."""

    person: Person
    known: Subject
    decided: list[list[Consent]]
    traits: list[tuple[Person, Trait]]

    def open_traits(self) -> list[tuple[str, Json]]:
        """(name, value) of every trait. Raises StoreRefused if one does not open."""
        return [opened(person, trait) for person, trait in self.traits]


class Profiles:
    """Reads profiles from Redis and opens them. Raises StoreUnavailable while it cannot."""

    def __init__(self, settings: Settings, vault: Vault) -> None:
        self._vault = vault
        self._overlay = ConsentOverlay(settings)
        self._prefix = settings.redis.key_prefix
        self._visit_gap_ms = settings.time.visit_gap_minutes * 60_000
        self._client = redis.asyncio.Redis.from_url(
            settings.redis.url,
            socket_timeout=ANSWER_WITHIN_S,
            socket_connect_timeout=ANSWER_WITHIN_S,
        )

    async def read(self, id_type: IdType, external_id: str) -> Shown | None:
        """The person and what is known of them, with every decision that is in force by now; None
        when unknown or erased."""
        person = await asyncio.to_thread(self._vault.lookup, id_type, external_id)
        if person is None:
            return None
        pids = await self._overlay.kin.pids_of(person.pid)
        stored = await self.stored_of(pids)
        root = await self._root_of(person.pid, stored)
        if root is None:
            return None
        decided = []
        for pid, consents in zip(pids, await self._overlay.consents_of_each(pids), strict=True):
            applied, _ = stored[pid]
            # The profile knows what its lane has applied; the overlay, what was decided just now.
            decided.append(union(applied.consents if applied is not None else (), consents))
        decided += groups_of(root)
        parts = parts_of(root)
        people = {person.pid: person}
        if len(parts) > 1:
            others = [part.pid for part in parts if part.pid != person.pid]
            rows = await asyncio.to_thread(self._vault.identifiers_of, others)
            people |= {row[0].pid: row[0] for row in rows if row is not None}
        whole = whole_subject(root, self._visit_gap_ms)
        of_trait = {trait.sealed: part.pid for part in parts for trait in part.traits}
        traits = [
            (people[pid], trait)
            for trait in whole.traits
            if (pid := of_trait[trait.sealed]) in people
        ]
        known = replace(whole, consents=union(*decided))
        return Shown(person, known, decided, traits)

    async def _root_of(self, pid: bytes, stored: Mapping[bytes, Stored]) -> Subject | None:
        """The record of whoever stands for the person, as far as the lanes are by now."""
        known, is_erased = stored[pid]
        if known is None and not is_erased:
            # Named by a call that a lane is about to hear of: then who claims it is known at least.
            known = next((each for each, _ in stored.values() if each is not None), None)
        for _ in range(_MOST_STEPS):
            if known is None or known.moved_to is None:
                break
            up = known.moved_to
            above, _ = stored[up] if up in stored else (await self.stored_of([up]))[up]
            if above is None:
                break
            known = above
        return known

    async def decided_by_each(self, pids: Sequence[bytes]) -> dict[bytes, list[list[Consent]]]:
        """Of each pid that is known what was decided under each pid of its person, by now; nothing
        of one who is too large."""
        families = await self._overlay.kin.people_found(pids)
        pids = [pid for pid in pids if pid in families]
        everyone = list(dict.fromkeys(each for pid in pids for each in families[pid]))
        stored = await self.stored_of(everyone)
        told = await self._overlay.consents_of_each(everyone)
        decided = {}
        for pid, consents in zip(everyone, told, strict=True):
            known, _ = stored[pid]
            decided[pid] = union(known.consents if known is not None else (), consents)
        return {
            pid: [decided[each] for each in families[pid]]
            for pid in pids
            if stored[pid][0] is not None
        }

    async def known_as(self, pids: Sequence[bytes]) -> dict[bytes, list[str]]:
        """Of each pid every identifier of its person (`user:42`), its own first; nothing of one
        who was erased, from the moment on that the erasure was asked for, or is too large."""
        families = await self._overlay.kin.people_found(pids)
        pids = [pid for pid in pids if pid in families]
        everyone = list(dict.fromkeys(each for pid in pids for each in (pid, *families[pid])))
        rows = await asyncio.to_thread(self._vault.identifiers_of, everyone)
        named = zip(everyone, rows, strict=True)
        names = {pid: f"{row[1]}:{row[2]}" for pid, row in named if row is not None}
        return {
            pid: [
                names[pid],
                *sorted({names[each] for each in families[pid] if each in names and each != pid}),
            ]
            for pid in pids
            if pid in names
        }

    async def stored_of(self, pids: Sequence[bytes]) -> dict[bytes, Stored]:
        """Of each pid what the sink wrote, if it did, and whether it knows of an erasure."""
        pipe: Any = self._client.pipeline(transaction=False)
        for pid in pids:
            pipe.hmget(f"{self._prefix}{pid.hex()}", ["p", "d"])
        try:
            rows = await pipe.execute()
        except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
            raise StoreUnavailable("Redis does not answer") from error
        return {pid: _stored(*row) for pid, row in zip(pids, rows, strict=True)}

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()
        await self._overlay.close()
        self._vault.close()


def _stored(profile: bytes | None, stub: bytes | None) -> Stored:
    known = None if profile is None else SUBJECT.decode(profile)
    is_erased = stub is not None or (known is not None and known.erased_at_ms is not None)
    return (None if is_erased else known), is_erased


def open_traits(person: Person, known: Subject) -> list[tuple[str, Json]]:
    """(name, value) of every trait of one pid's own record. Raises StoreRefused if one does not
    open."""
    return [opened(person, trait) for trait in known.traits]


def opened(person: Person, trait: Trait) -> tuple[str, Json]:
    """Name and value of a trait. Raises StoreRefused if it does not open."""
    name, value = orjson.loads(person.unseal(trait.sealed, trait.event_id))
    return str(name), value


def parse_subject(subject: str) -> tuple[IdType, str]:
    """`user:42` as ("user", "42"). Raises Problem for anything else."""
    found = split_subject(subject)
    if found is None:
        raise Problem(
            400,
            f"A subject is {EXPECTED_SUBJECT}",
            errors=[Fault("path.subject", EXPECTED_SUBJECT)],
        )
    return found


def split_subject(subject: str) -> tuple[IdType, str] | None:
    """`user:42` as ("user", "42"); None for anything that is no subject."""
    kind, _, external_id = subject.partition(":")
    if kind not in get_args(IdType) or not external_id:
        return None
    return cast("IdType", kind), external_id


def fields_shown(known: Subject) -> list[str]:
    """What an answer with this profile holds, for the record of who read it: never a value."""
    shown = ["computed", "consents", "first_seen", "last_seen", "segments", "traits"]
    return shown + [f"traits/{trait.key.hex()}" for trait in known.traits]


def build_router(
    profiles: Profiles,
    accesses: Accesses,
    settings: Settings,
    access: Access,
    clock_ms: ClockMs = now_ms,
) -> APIRouter:
    """`GET /v1/profiles/{subject}`."""
    router = APIRouter(tags=["Profiles"])
    basis = basis_of(settings, "personalisation")
    thresholds = settings.traits.thresholds
    history_days = settings.time.history_days

    @router.get(
        "/v1/profiles/{subject:path}",
        responses={200: {"model": Profile}},
        response_class=Response,
        summary="What is known of one person",
    )
    async def get_profile(
        subject: Annotated[str, Path(description=EXPECTED_SUBJECT, examples=["user:42"])],
        roles: Annotated[Roles, Depends(access.require("activation"))],
    ) -> Response:
        """Traits, computed traits, segments and consents; 404 when unknown or erased.

        403 when the person's data may not be used for personalisation; 503 when that cannot be
        told, or while it cannot be written down who reads them.
        """
        found = await profiles.read(*parse_subject(subject))
        if found is None:
            raise Problem(404, UNKNOWN)
        at_ms = clock_ms()
        if not may_be_shown(basis, found.decided, at_ms):
            raise Problem(403, "This person's data may not be used for personalisation")
        await accesses.record(found.person.pid, roles, "profile", fields_shown(found.known))
        computed = compute(facts_of(found.known), thresholds, at_ms, history_days)
        view = view_profile(subject, found.known, found.open_traits(), computed)
        return json_answer(view)

    return router
