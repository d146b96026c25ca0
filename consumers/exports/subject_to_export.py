"""What do we hold on one person, all of it, and where does each of it come from?

Read from every place that holds something under one of her pseudonyms: the vault, Redis,
ClickHouse, and her partitions of the log up to where they end when the export begins. Opened with
her own data keys, which the vault gives only while she has not been erased; should she be erased
meanwhile, the export breaks off. GDPR Art. 15 and 20.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import chain
from typing import cast

import orjson
import redis
import redis.asyncio

from consumers.accesses import Accesses
from consumers.clickhouse_reader import ClickHouseReader
from consumers.exports.held import Held
from consumers.exports.person_claims import claims_about, stored_under
from consumers.exports.person_events import PersonEvents
from consumers.exports.person_facts import counters_of, facts_of, senders_of
from consumers.exports.person_links import links_of
from consumers.exports.person_messages import PersonMessages
from consumers.rules.consent_views import union
from consumers.rules.export_formats import Section
from consumers.rules.export_sections import SECTIONS
from consumers.rules.export_view import (
    Item,
    plain,
    purposes_of,
    rfc3339_or_number,
    view_subject,
)
from consumers.rules.times import rfc3339
from runtime import kin, vault_rows
from runtime.consent_overlay import ConsentOverlay
from runtime.purposes import explain, purposes_in_force
from runtime.sealing import IdType
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.codec import (
    ACCEPTED,
    COLLECTED,
    CONSENT_CHANGED,
    REATTRIBUTED,
    RETRACTED,
    SUBJECT,
)
from schemas.errors import StoreRefused
from schemas.held import column, fields_of

ANSWER_WITHIN_S = 5.0
MOST_ACCESSES = 10_000
_UNTIL_ERASED = "until the person is erased"

Piece = Section | Item | None
"""A section begins, has an item, ends."""


class Exporter:
    """Reads everything of one person. Raises StoreUnavailable while a store does not answer."""

    def __init__(
        self, settings: Settings, vault: Vault, reader: ClickHouseReader, accesses: Accesses
    ) -> None:
        self._settings = settings
        self._vault = vault
        self._reader = reader
        self._accesses = accesses
        self._purposes = purposes_in_force(settings)
        self._overlay = ConsentOverlay(settings)
        self._sent = PersonMessages(settings)
        idle_days = settings.profiles.idle_days
        or_idle = f", or idle for {idle_days} days" if idle_days else ""
        self._until_erased = f"{_UNTIL_ERASED}{or_idle}"
        self._log = PersonEvents(settings, self._until_erased)
        self._client = redis.asyncio.Redis.from_url(
            settings.redis.url,
            socket_timeout=ANSWER_WITHIN_S,
            socket_connect_timeout=ANSWER_WITHIN_S,
        )

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()
        await self._overlay.close()
        self._sent.close()

    async def find(self, subject: str, id_type: IdType, external_id: str) -> Held | None:
        """The person; None when unknown or erased."""
        person = await asyncio.to_thread(self._vault.lookup, id_type, external_id)
        if person is None:
            return None
        known, is_erased = await stored_under(self._client, self._key(person.pid))
        if is_erased:
            return None
        comments = await self._reader.rows(
            "SELECT table, name, comment FROM system.columns WHERE database = currentDatabase()"
        )
        held = Held(subject, person, (id_type, external_id), known, names={person.pid: subject})
        for table in ("facts", "accesses", "links"):
            fields = [column(name, text) for of, name, text in comments if of == table]
            held.uses[table] = self._use(purposes_of(fields))
        for codec in (COLLECTED, ACCEPTED, RETRACTED, REATTRIBUTED, SUBJECT, CONSENT_CHANGED):
            held.uses[codec.schema["name"]] = self._use(purposes_of(fields_of(codec.schema)))
        vault = chain(*(layout.fields for layout in (*vault_rows.LAYOUT, *kin.LAYOUT)))
        held.uses["vault"] = self._use(purposes_of(vault))
        pids = [pid for pid in await self._overlay.kin.pids_of(person.pid) if pid != person.pid]
        for row in await asyncio.to_thread(self._vault.identifiers_of, pids) if pids else ():
            if row is not None:
                known, _ = await stored_under(self._client, self._key(row[0].pid))
                name = (cast("IdType", row[1]), row[2])
                other = Held(":".join(name), row[0], name, known, held.uses, held.names)
                held.names[row[0].pid] = other.subject
                held.others.append(other)
        return held

    def _key(self, pid: bytes) -> str:
        return f"{self._settings.redis.key_prefix}{pid.hex()}"

    def _use(self, names: Iterable[str]) -> list[dict[str, object]]:
        return explain(names, self._purposes)

    def fields_given(self, held: Held) -> list[str]:
        """What the export will hold, for the record of who read it: never a value."""
        known = [each.known for each in held.each if each.known is not None]
        keys = dict.fromkeys(trait.key.hex() for each in known for trait in each.traits)
        return [section.name for section in SECTIONS] + [f"traits/{key}" for key in keys]

    def about(self, held: Held, now_ms: int) -> Item:
        """The head of the export."""
        return {
            "subject": held.subject,
            "pid": held.person.pid.hex(),
            "known_as": [
                {"subject": each.subject, "pid": each.person.pid.hex()} for each in held.each
            ],
            "exported_at": rfc3339(now_ms),
            "purposes": self._use(self._purposes),
        }

    async def pieces(self, held: Held) -> AsyncIterator[Piece]:
        """Every section with its items, read while they are asked for.

        Raises StoreRefused when the person is erased meanwhile: what was given is then not whole.
        """
        items = (
            self._identifiers, self._claims, self._links, self._profile, self._traits,
            self._decisions, self._log.consents, self._reads, self._messages, self._counters,
            self._facts, self._log.events,
        )  # fmt: skip
        for section, read in zip(SECTIONS, items, strict=True):
            await self._require_not_erased(held)
            yield section
            for each in held.each:
                async for item in read(each):
                    # Where there are several pids, under which of them it is held.
                    yield item | {"held_under": each.person.pid.hex()} if held.others else item
            yield None
        await self._require_not_erased(held)

    async def _require_not_erased(self, held: Held) -> None:
        person = await asyncio.to_thread(self._vault.lookup, *held.identifier)
        if person is None or person.pid != held.person.pid:
            raise StoreRefused("the person was erased while the export was being written")

    # -- vault and profile

    async def _identifiers(self, held: Held) -> AsyncIterator[Item]:
        rows = await asyncio.to_thread(self._vault.identifiers_of, [held.person.pid])
        for row in rows:
            if row is not None:
                yield {
                    "type": row[1],
                    "value": row[2],
                    "where": "vault",
                    "kept": self._until_erased,
                    "used_for": held.uses["vault"],
                }

    async def _claims(self, held: Held) -> AsyncIterator[Item]:
        where = f"vault, and {self._settings.topic_names.subjects}"
        for item in await claims_about(self._overlay.kin, self._vault, held.person.pid):
            kept = {"where": where, "kept": self._until_erased, "used_for": held.uses["vault"]}
            yield item | kept

    async def _links(self, held: Held) -> AsyncIterator[Item]:
        topic = self._settings.topic_names.accepted
        for item in await links_of(self._reader, held.person.pid, held.names, topic):
            kept = "until all whom it joins are erased"
            yield item | {"kept": kept, "used_for": held.uses["links"]}

    async def _profile(self, held: Held) -> AsyncIterator[Item]:
        if held.known is not None:
            yield view_subject(held.known) | self._profile_is_held(held)

    async def _traits(self, held: Held) -> AsyncIterator[Item]:
        traits = held.known.traits if held.known is not None else []
        event_ids = [trait.event_id for trait in traits]
        senders = await senders_of(self._reader, held.person.pid, event_ids)
        for trait in traits:
            name, value = orjson.loads(held.person.unseal(trait.sealed, trait.event_id))
            yield {
                "name": name,
                "value": value,
                "key": trait.key.hex(),
                "set_at": rfc3339_or_number(trait.occurred_at_ms),
                "event_id": trait.event_id.hex(),
                "set_by": senders.get(trait.event_id.hex()),
                **self._profile_is_held(held),
            }

    def _profile_is_held(self, held: Held) -> Item:
        where = f"profile in Redis, and {self._settings.topic_names.subjects}"
        return {"where": where, "kept": self._until_erased, "used_for": held.uses["Subject"]}

    async def _decisions(self, held: Held) -> AsyncIterator[Item]:
        applied = held.known.consents if held.known is not None else []
        # The profile knows what its lane has applied; the overlay, what was decided a moment ago.
        for decision in union(applied, await self._overlay.consents_of(held.person.pid)):
            yield plain(decision) | self._profile_is_held(held)

    # -- ClickHouse

    async def _reads(self, held: Held) -> AsyncIterator[Item]:
        for read in await self._accesses.of(held.person.pid, MOST_ACCESSES):
            yield {
                "read_at": rfc3339(read.read_at_ms),
                "role": read.role,
                "what": read.kind,
                "fields": list(read.fields),
                "where": "table accesses",
                "kept": f"{self._settings.tables.accesses.retention_days} days",
                "used_for": held.uses["accesses"],
            }

    async def _messages(self, held: Held) -> AsyncIterator[Item]:
        for item in await self._sent.of(held.person.pid):
            yield item

    async def _counters(self, held: Held) -> AsyncIterator[Item]:
        async for item in counters_of(self._reader, held.person.pid):
            yield item

    async def _facts(self, held: Held) -> AsyncIterator[Item]:
        days = self._settings.tables.facts.retention_days
        kept = f"{days} days, and a tenth of that at most" if days else self._until_erased
        async for item in facts_of(self._reader, held.person.pid):
            yield item | {"kept": kept, "used_for": held.uses["facts"]}
