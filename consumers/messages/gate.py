"""May this message go to this person now, and where to?

Asked right before it goes, of whoever knows: the vault whose it is, the profile what they did
since, the overlay what they decided (consumers/consents/send_gate.py). The order is that of the
rules, so that the same facts always give the same reason. A store that does not answer is no
permission.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.headerregistry import Address
from typing import Any, cast

from consumers.consents.send_gate import SendGate
from consumers.messages.store import MessageStore
from consumers.profiles.profiles_api import Profiles, Stored, open_traits
from consumers.rules.consent_views import union as every_decision
from consumers.rules.local_time import Quiet, Zone, zone_of
from consumers.rules.messages import EMAIL, Message
from consumers.rules.sending import (
    SEEN_BY,
    Dropped,
    Go,
    Held,
    Limits,
    decide_by_cart,
    decide_by_change,
    decide_by_purchase,
    decide_by_sight,
    decide_by_time,
)
from runtime.consent_overlay import ConsentOverlay
from runtime.purposes import basis_of
from runtime.sealing import IdType, Person
from runtime.settings import Settings
from runtime.settings_sending import minute_of
from runtime.smtp import address_of
from runtime.time_zones import zones_by_country
from runtime.vault import Suppressed, Vault
from schemas.activity import unpack
from schemas.carts import ADD, ORDER, SET, CartChange, contents_of, union
from schemas.errors import StoreUnavailable
from schemas.identifiers import spelled_email
from schemas.journeys import JourneyDue
from schemas.subjects import Consent, Subject

HOUR_MS = 3_600_000
CART_EVENTS = frozenset({"Product Added", "Product Removed", "Wishlist Product Added to Cart"})


@dataclass(frozen=True, slots=True)
class Allowed:
    """A message may go, at the time of asking: to whom, and how they live. `id_type` and
    `external_id` are those of the message's own pid, `pids` all of the person."""

    person: Person
    id_type: IdType
    external_id: str
    pids: Sequence[bytes]
    address: Address | None
    zone: Zone
    traits: Mapping[str, Any]


class MessageGate:
    """Answers for one event loop; closes nothing that it was given. A person is all of their pids.

    Methods raise StoreUnavailable or StoreRefused: then the message does not go.
    """

    def __init__(
        self,
        settings: Settings,
        vault: Vault,
        profiles: Profiles,
        gate: SendGate,
        store: MessageStore,
    ) -> None:
        chosen = settings.sending
        self.limits = Limits(
            chosen.most_a_day,
            chosen.most_a_week,
            Quiet(minute_of(chosen.quiet_from), minute_of(chosen.quiet_to)),
            chosen.latest_hours * HOUR_MS,
        )
        self._timezone = chosen.timezone
        self._bases = {name: basis_of(settings, name) for name in SEEN_BY}
        self._overlay = ConsentOverlay(settings)
        self._vault = vault
        self._profiles = profiles
        self._gate = gate
        self._store = store

    async def ask(self, message: Message, due: JourneyDue, now_ms: int) -> Allowed | Held | Dropped:
        """Whether it may go, by every rule but the limits by day and week, which count when it is
        begun."""
        pids = await self._overlay.kin.pids_of(message.pid)
        rows = await asyncio.to_thread(self._vault.identifiers_of, pids)
        people = {row[0].pid: row for row in rows if row is not None}
        if message.pid not in people:
            return Dropped("erased", {})
        person, id_type, external_id = people[message.pid]
        if due.held_out:
            return Dropped("held_out", {})
        stored = await self._profiles.stored_of(pids)
        if stored[message.pid][1]:
            return Dropped("erased", {})
        known = [
            (people[pid][0], each)
            for pid, (each, _) in stored.items()
            if each is not None and pid in people
        ]
        if not known:
            raise StoreUnavailable("the person's profile is not there yet")
        traits = _traits(known)
        address = None
        if message.channel == EMAIL:
            named = [value for _, kind, value in people.values() if kind == "email"]
            told = _address(named, traits)
            address = address_of(told)
            if told is None or address is None:
                return Dropped("no_address", {})
            if await self._is_suppressed(pids, told, address):
                return Dropped("suppressed", {"channel": message.channel})
        refusal = await self._ask(id_type, external_id, due)
        if refusal is not None:
            return refusal
        seen = _last_seen(each for _, each in known)
        zone = zone_of(
            traits.get("timezone"),
            seen.get("timezone"),
            _country(traits) or seen.get("country"),
            zones_by_country(),
            self._timezone,
        )
        decided = await self._decided(pids, stored)
        cart = union(*(each.cart for _, each in known))
        anchor_ms, due_ms = due.anchor_at_ms, due.due_at_ms
        for decision in (
            decide_by_sight(anchor_ms, due_ms, self._bases, decided, now_ms),
            decide_by_purchase(anchor_ms, _ordered_at_ms(each for _, each in known)),
            decide_by_cart(anchor_ms, contents_of(due.lines), *_put_there_since(cart)),
            decide_by_change(anchor_ms, _changed_at_ms([each for _, each in known], cart, due)),
            decide_by_time(due_ms, now_ms, zone, self.limits, due.expires_at_ms),
        ):
            if not isinstance(decision, Go):
                return decision
        return Allowed(person, cast("IdType", id_type), external_id, pids, address, zone, traits)

    async def confirm(self, allowed: Allowed, due: JourneyDue) -> Dropped | None:
        """None: it may begin within SEND_WITHIN_MS of calling this."""
        return await self._ask(allowed.id_type, allowed.external_id, due)

    async def _decided(
        self, pids: Sequence[bytes], stored: Mapping[bytes, Stored]
    ) -> list[list[Consent]]:
        """What was decided under each pid: as the profile has it, which may be older than the desk,
        and as the overlay does, which forgets what a later decision covers."""
        told = await self._overlay.consents_of_each(pids)
        known = [stored[pid][0] for pid in pids]
        applied = [each.consents if each is not None else () for each in known]
        return [every_decision(*both) for both in zip(applied, told, strict=True)]

    async def _ask(self, id_type: str, external_id: str, due: JourneyDue) -> Dropped | None:
        asked = cast("IdType", id_type)
        refusal = await self._gate.ask(asked, external_id, due.channel, due.topic)
        if refusal is None:
            return None
        return Dropped(refusal, {"channel": due.channel, "topic": due.topic})

    async def identified(self, pid: bytes) -> tuple[Person, IdType, str] | None:
        """The person, and the identifier that the pid was made for; None once erased."""
        (row,) = await asyncio.to_thread(self._vault.identifiers_of, [pid])
        return None if row is None else (row[0], cast("IdType", row[1]), row[2])

    async def close(self) -> None:
        """Give the connections back."""
        await self._overlay.close()

    def mark_of(self, address: Address) -> str:
        """By what it is known that a server refuses the address: a keyed hash."""
        return self._vault.hash_of("email", address.addr_spec)

    async def _is_suppressed(self, pids: Sequence[bytes], told: str, address: Address) -> bool:
        refuses = self._store.is_undeliverable
        if await asyncio.to_thread(refuses, pids, EMAIL, self.mark_of(address)):
            return True
        # Whoever was erased may have written the domain as people do, or as DNS does.
        for spelling in {spelled_email(told), spelled_email(address.addr_spec)}:
            if isinstance(await asyncio.to_thread(self._vault.find, "email", spelling), Suppressed):
                return True
        return False


def _traits(known: Iterable[tuple[Person, Subject]]) -> dict[str, Any]:
    """Name -> newest value of every trait, under whichever pid; without those taken back."""
    newest: dict[str, tuple[int, bytes, Any]] = {}
    for person, each in known:
        for trait, (name, value) in zip(each.traits, open_traits(person, each), strict=True):
            found = (trait.occurred_at_ms, trait.event_id, value)
            if name not in newest or found[:2] > newest[name][:2]:
                newest[name] = found
    return {name: value for name, (_, _, value) in newest.items() if value is not None}


def _address(named: Sequence[str], traits: Mapping[str, Any]) -> str | None:
    """An address that the person is known by, before one that is only told of them; of several the
    one that is also told."""
    told = traits.get("email")
    if isinstance(told, str) and (not named or spelled_email(told) in named):
        return told
    return named[0] if named else None


def _country(traits: Mapping[str, Any]) -> str | None:
    """By Segment's traits: address.country, or country; two letters (ISO 3166)."""
    address = traits.get("address")
    found = address.get("country") if isinstance(address, dict) else None
    country = found or traits.get("country")
    return country.upper() if isinstance(country, str) and len(country) == 2 else None


def _last_seen(known: Iterable[Subject]) -> dict[str, str]:
    """The newest words of where they were (schemas/circumstances.py)."""
    seen = [each for one in known for each in one.circumstances]
    newest = sorted(seen, key=lambda each: (each.occurred_at_ms, each.tie, each.value))
    return {each.name: each.value for each in newest}


def _ordered_at_ms(known: Iterable[Subject]) -> list[int]:
    return [each.occurred_at_ms for one in known for each in one.purchases if not each.is_refund]


def _put_there_since(cart: Sequence[CartChange]) -> tuple[int | None, Mapping[str, int]]:
    """When an order emptied the cart last, if nobody looked at it since; how many of each product
    were put there after that."""
    if not cart or cart[0].kind != ORDER:
        return None, {}
    added = contents_of(line for each in cart if each.kind == ADD for line in each.lines)
    return cart[0].occurred_at_ms, added


def _changed_at_ms(
    known: Sequence[Subject], cart: Sequence[CartChange], due: JourneyDue
) -> list[int]:
    changed = [
        entry.occurred_at_ms
        for one in known
        for entry in unpack(one.activity)
        if entry.name in CART_EVENTS
    ]
    # Whoever looked at the cart, or began to pay, said what was in it: the same, or something else.
    looks = [each for each in cart if each.kind == SET]
    if looks and contents_of(looks[-1].lines) != contents_of(due.lines):
        changed.append(looks[-1].occurred_at_ms)
    return changed
