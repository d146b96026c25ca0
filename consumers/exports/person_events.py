"""What does the log say of a person: what was sent about her, and what she decided?

Opened with her own key. Her records lie in one partition of each topic (person_log.py); each is
told with its place, and until when it lies there.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson

from consumers.exports.held import Held
from consumers.exports.person_log import LogRecord, records_of
from consumers.rules.export_view import Changes, Item, plain, rfc3339_or_number, view_event
from runtime.settings import Settings
from runtime.topics_admin import retention_ms_of, segment_ms_of
from schemas.codec import (
    ACCEPTED,
    COLLECTED,
    CONSENT_CHANGED,
    HEADER_BYTES,
    LINKED,
    REATTRIBUTED,
    RETRACTED,
    Codec,
    Malformed,
)
from schemas.errors import StoreRefused
from schemas.events import Accepted, Collected
from schemas.topics import Topic


class PersonEvents:
    """Reads them. Raises StoreUnavailable while it cannot.

    `until_erased` says how long what the log keeps for good is kept.
    """

    def __init__(self, settings: Settings, until_erased: str) -> None:
        self._settings = settings
        self._until_erased = until_erased
        self._topics = {topic.name: topic for topic in settings.topic_names.all()}

    async def consents(self, held: Held) -> AsyncIterator[Item]:
        """Each decision with its proof, in the order of the log."""
        topic = self._settings.topic_names.consents
        async for record in self._log(topic, held):
            change = _decoded(CONSENT_CHANGED, record)
            told = {} if change is None else plain(change, without=frozenset({"pid"}))
            yield told | self._is_held(record, held, "ConsentChanged")

    async def events(self, held: Held) -> AsyncIterator[Item]:
        """Each call about the person, accepted or not, and what was taken back."""
        names = self._settings.topic_names
        changes, told = Changes(), set[int]()
        async for record in self._log(names.accepted, held):
            if record.value[:HEADER_BYTES] in LINKED.headers:
                continue
            accepted = _decoded(ACCEPTED, record)
            if accepted is None:
                yield self._correction(record, held)
                continue
            # Its source lies in the same partition of the input: the offset alone tells it.
            told.add(accepted.source_offset)
            yield self._event(accepted, record, held, changes)
        async for record in self._log(names.collected, held):
            if record.offset not in told:
                collected = _decoded(COLLECTED, record)
                if collected is not None:
                    yield self._event(collected, record, held, Changes())

    def _correction(self, record: LogRecord, held: Held) -> Item:
        kind, state, said = "Retracted", "events taken back", _decoded(RETRACTED, record)
        if said is None and (moved := _decoded(REATTRIBUTED, record)) is not None:
            kind, state, said = "Reattributed", "events of other campaigns", moved
        told = plain(said, without=frozenset({"pid"})) if said is not None else {}
        return {"state": state, **told} | self._is_held(record, held, kind)

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
