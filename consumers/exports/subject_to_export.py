"""What do we hold on one person, all of it, and where does each of it come from?

Read from every place that holds something under one of her pseudonyms: the vault, Redis,
ClickHouse, and her partitions of the log up to where they end when the export begins. Opened with
her own data keys, which the vault gives only while she has not been erased; should she be erased
meanwhile, the export breaks off. GDPR Art. 15 and 20.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast

import orjson
import redis
import redis.asyncio

from consumers.accesses import Accesses
from consumers.clickhouse_reader import ClickHouseReader
from consumers.exports.person_claims import claims_about, stored_under
from consumers.exports.person_facts import counters_of, facts_of, senders_of
from consumers.exports.person_log import LogRecord, records_of
from consumers.exports.person_messages import PersonMessages
from consumers.rules.consent_views import union
from consumers.rules.export_formats import Section
from consumers.rules.export_sections import SECTIONS
from consumers.rules.export_view import (
    Changes,
    Item,
    plain,
    purposes_of,
    rfc3339_or_number,
    view_event,
    view_subject,
)
from consumers.rules.times import rfc3339
from runtime import kin, vault_rows
from runtime.consent_overlay import ConsentOverlay
from runtime.purposes import explain, purposes_in_force
from runtime.sealing import IdType, Person
from runtime.settings import Settings
from runtime.topics_admin import retention_ms_of, segment_ms_of
from runtime.vault import Vault
from schemas.codec import (
    ACCEPTED,
    COLLECTED,
    CONSENT_CHANGED,
    HEADER_BYTES,
    LINKED,
    RETRACTED,
    SUBJECT,
    Codec,
    Malformed,
)
from schemas.errors import StoreRefused
from schemas.events import Accepted, Collected
from schemas.held import column, fields_of
from schemas.subjects import Subject
from schemas.topics import Topic

ANSWER_WITHIN_S = 5.0
MOST_ACCESSES = 10_000
_UNTIL_ERASED = "until the person is erased"

Piece = Section | Item | None
"""A section begins, has an item, ends."""


@dataclass(slots=True)
class Held:
    """What was found of a person under one pid before the export begins; `others` are the same of
    each other pid that is hers."""

    subject: str
    person: Person
    identifier: tuple[IdType, str]
    known: Subject | None
    uses: dict[str, list[dict[str, object]]] = field(default_factory=dict)
    others: list["Held"] = field(default_factory=list)

    @property
    def each(self) -> list["Held"]:
        """All of them."""
        return [self, *self.others]


class Exporter:
    """Reads everything of one person. Raises StoreUnavailable while a store does not answer."""

    def __init__(
        self, settings: Settings, vault: Vault, reader: ClickHouseReader, accesses: Accesses
    ) -> None:
        self._settings = settings
        self._vault = vault
        self._reader = reader
        self._accesses = accesses
        self._topics = {topic.name: topic for topic in settings.topic_names.all()}
        self._purposes = purposes_in_force(settings)
        self._overlay = ConsentOverlay(settings)
        self._sent = PersonMessages(settings)
        idle_days = settings.profiles.idle_days
        or_idle = f", or idle for {idle_days} days" if idle_days else ""
        self._until_erased = f"{_UNTIL_ERASED}{or_idle}"
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
        held = Held(subject, person, (id_type, external_id), known)
        for table in ("facts", "accesses"):
            fields = [column(name, text) for of, name, text in comments if of == table]
            held.uses[table] = self._use(purposes_of(fields))
        for codec in (COLLECTED, ACCEPTED, RETRACTED, SUBJECT, CONSENT_CHANGED):
            held.uses[codec.schema["name"]] = self._use(purposes_of(fields_of(codec.schema)))
        vault = chain(*(layout.fields for layout in (*vault_rows.LAYOUT, *kin.LAYOUT)))
        held.uses["vault"] = self._use(purposes_of(vault))
        pids = [pid for pid in await self._overlay.kin.pids_of(person.pid) if pid != person.pid]
        for row in await asyncio.to_thread(self._vault.identifiers_of, pids) if pids else ():
            if row is not None:
                known, _ = await stored_under(self._client, self._key(row[0].pid))
                name = (cast("IdType", row[1]), row[2])
                held.others.append(Held(":".join(name), row[0], name, known, held.uses))
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
            self._identifiers, self._claims, self._profile, self._traits, self._decisions,
            self._consents, self._reads, self._messages, self._counters, self._facts, self._events,
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

    async def _consents(self, held: Held) -> AsyncIterator[Item]:
        topic = self._settings.topic_names.consents
        async for record in self._log(topic, held):
            change = _decoded(CONSENT_CHANGED, record)
            told = {} if change is None else plain(change, without=frozenset({"pid"}))
            yield told | self._is_held(record, held, "ConsentChanged")

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

    # -- the log

    async def _events(self, held: Held) -> AsyncIterator[Item]:
        names = self._settings.topic_names
        changes, told = Changes(), set[int]()
        async for record in self._log(names.accepted, held):
            if record.value[:HEADER_BYTES] in LINKED.headers:
                continue
            accepted = _decoded(ACCEPTED, record)
            if accepted is None:
                yield self._retraction(record, held)
                continue
            # Its source lies in the same partition of the input: the offset alone tells it.
            told.add(accepted.source_offset)
            yield self._event(accepted, record, held, changes)
        async for record in self._log(names.collected, held):
            if record.offset not in told:
                collected = _decoded(COLLECTED, record)
                if collected is not None:
                    yield self._event(collected, record, held, Changes())

    def _retraction(self, record: LogRecord, held: Held) -> Item:
        retracted = _decoded(RETRACTED, record)
        told = plain(retracted, without=frozenset({"pid"})) if retracted is not None else {}
        return {"state": "events taken back", **told} | self._is_held(record, held, "Retracted")

    def _event(self, event: Collected, record: LogRecord, held: Held, changes: Changes) -> Item:
        traits: list[tuple[str, Any]] = []
        opened: dict[str, Any] | None = None
        try:
            opened = orjson.loads(held.person.unseal(event.sealed, event.event_id))
            for trait in event.traits:
                name, value = orjson.loads(held.person.unseal(trait.sealed, event.event_id))
                traits.append((str(name), value))
        except (StoreRefused, ValueError):
            opened = None
        item = view_event(event, opened, traits)
        if changed := changes.of(traits):
            item["changed_traits"] = changed
        kind = "Accepted" if isinstance(event, Accepted) else "Collected"
        item |= self._is_held(record, held, kind)
        if isinstance(event, Accepted):
            source = f"{event.source_topic}[{event.source_partition}]@{event.source_offset}"
            source_topic = self._topics.get(event.source_topic)
            until = self._until(source_topic, event.received_at_ms) if source_topic else None
            item["source_event"] = {"where": source, "kept": until}
        return item

    def _is_held(self, record: LogRecord, held: Held, kind: str) -> Item:
        until = self._until(self._topics[record.topic], record.written_at_ms)
        return {"where": record.place, "kept": until, "used_for": held.uses[kind]}

    def _until(self, topic: Topic, from_ms: int) -> str:
        retention_ms = retention_ms_of(topic, self._settings)
        if retention_ms is None:
            return self._until_erased
        end_ms = from_ms + retention_ms + segment_ms_of(retention_ms)
        return f"until {rfc3339_or_number(end_ms)} at the latest"

    async def _log(self, topic: str, held: Held) -> AsyncIterator[LogRecord]:
        found: Iterator[list[LogRecord]] = records_of(self._settings, topic, held.person.pid)
        try:
            while (chunk := await asyncio.to_thread(next, found, None)) is not None:
                for record in chunk:
                    yield record
        finally:
            await asyncio.to_thread(found.close)  # type: ignore[attr-defined]


def _decoded(codec: Codec[Any], record: LogRecord) -> Any:
    try:
        return codec.decode(record.value)
    except Malformed:
        return None
