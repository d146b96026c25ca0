"""How do calls of Segment's protocol become durable events that nobody can read without a key?

Check each call alone, resolve all their people at once, seal, produce, and wait until Kafka has
everything: the events in events.collected, who is who by them in subjects.moves, and the pointers
to what was set aside in events.rejected. Only then may the sender be told that its calls are safe.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Self
from uuid import uuid4

from producers.calls_to_claims import CallClaims, identifiers_of, is_alive
from producers.calls_to_consents import StatedConsents, heard_at_ms
from producers.rules.addresses import is_trusted_by, networks_of
from producers.rules.bodies import Body
from producers.rules.call_keys import CallKeys
from producers.rules.calls import Arrival, CallRules, Checked, Refused, check_call
from producers.rules.enrichment import MADE, Enricher, Requester
from producers.rules.quota import Quota
from producers.rules.split import ClearNames
from producers.rules.stated import Categories
from producers.rules.times import TimeLimits
from runtime.clock import ClockMs, now_ms, real_ms
from runtime.consent_desk import ConsentDesk
from runtime.consent_overlay import ConsentOverlay
from runtime.deliveries import Deliveries, Record
from runtime.known_vault import KnownVault
from runtime.logs import get_logger
from runtime.metrics import counter
from runtime.sealing import secrets_of
from runtime.settings import Settings, Source
from runtime.vault import AsyncVault, Identifier, Person, Resolved
from schemas.codec import COLLECTED, REJECTED
from schemas.errors import SettingInvalid, StreamError
from schemas.events import FLAG_TIMESTAMP_MISSING, Collected, Rejected, SealedTrait

DEFAULT_SOURCE = "default"
"""Source of the write key in `[http.keys]`."""


class Sender:
    """A source that has shown its write key."""

    def __init__(self, source: Source, received_at_ms: int) -> None:
        self.name = source.name
        self.quota = Quota(source.quota_per_s, received_at_ms)
        self.key_digest = _digest(source.write_key)


class Collector:
    """Takes calls in; `start` before, `close` after. Belongs to one event loop.

    `collect` raises StoreUnavailable or StoreRefused when it cannot vouch for every call; then the
    sender sends all of them again, and the streams drop what they already have.
    """

    def __init__(
        self,
        settings: Settings,
        vault: AsyncVault,
        deliveries: Deliveries,
        pepper: bytes,
        *,
        clock: ClockMs = now_ms,
        new_message_id: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        self.clock = clock
        self.enricher = Enricher(clock())
        self.asks_peers = settings.http.country_from_peer
        self.is_trusted_proxy = is_trusted_by(networks_of(settings.http.trusted_proxies))
        self._vault = vault
        self._known_vault = KnownVault(settings, vault)
        self._deliveries = deliveries
        self._topics = settings.topic_names
        self._rules = CallRules(
            CallKeys.of(pepper),
            ClearNames(
                frozenset(settings.fields.properties.clear),
                frozenset(settings.fields.context.clear) - MADE,
                frozenset(settings.fields.traits.clear),
                frozenset(settings.fields.products.clear),
            ),
            TimeLimits(
                skew_ms=settings.time.skew_limit_s * 1000,
                future_ms=settings.time.future_limit_s * 1000,
            ),
            new_message_id,
            categories_of(settings),
            self.enricher,
        )
        self._overlay = ConsentOverlay(settings)
        self._consents = StatedConsents(vault, ConsentDesk(settings, self._overlay, deliveries))
        self._claims = CallClaims(self._overlay.kin, self._topics.moves)
        self._sign_ups = frozenset(settings.erasure.sign_up_events)
        self._senders = [Sender(source, real_ms()) for source in sources_of(settings)]

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The collector of these settings. Raises SettingInvalid when a key file is missing."""
        _, pepper = secrets_of(settings)
        return cls(
            settings,
            AsyncVault.from_settings(settings),
            Deliveries(settings.kafka.bootstrap_servers),
            pepper,
        )

    async def start(self) -> None:
        """Ready to take calls. Raises StoreRefused if the vault cannot keep its promise.

        One that was lost answers 503 to every call, until it is restored.
        """
        await self._vault.check()
        self._deliveries.start()
        try:
            await self._known_vault.require()
        except StreamError as error:
            get_logger().error("vault_not_known", fault=str(error))

    async def close(self) -> None:
        """Everything that was acknowledged is safe, the rest is let go."""
        # It waits for Kafka, and the requests that wait for the same must go on meanwhile.
        await asyncio.to_thread(self._deliveries.close)
        await self._overlay.close()
        await self._vault.close()

    async def check(self) -> None:
        """Raise StoreUnavailable or StoreRefused, naming the part that cannot take calls now."""
        await self._vault.check()
        await self._known_vault.require()
        await self._deliveries.check(self._topics.collected)

    def sender_of(self, write_key: str) -> Sender | None:
        """Whose key this is; takes the same time for any key."""
        digest = _digest(write_key)
        found = None
        for sender in self._senders:
            if hmac.compare_digest(sender.key_digest, digest):
                found = sender
        return found

    async def collect(
        self,
        body: Body,
        sender: Sender,
        kind: str | None,
        received_at_ms: int,
        *,
        has_gpc: bool = False,
        requester: Requester | None = None,
    ) -> None:
        """Every valid call of `body` is in events.collected, every other one's place and reason in
        events.rejected; what changed of consent is in force, and who is who is known. `kind` is the
        type that the route gives, None for a batch; `has_gpc` tells that the request bore Sec-GPC,
        `requester` what is known of it if a person's own device sent it."""
        checked: list[Checked] = []
        records: list[Record] = []
        for index, call in enumerate(body.calls):
            arrival = Arrival(
                sender.name,
                received_at_ms,
                body.sent_at,
                f"$.batch[{index}]" if body.is_batch else "$",
                kind,
                body.context,
                has_gpc,
                requester,
            )
            found = check_call(call, arrival, self._rules)
            if isinstance(found, Checked):
                checked.append(found)
            else:
                records.append(self._rejection(found, sender.name, received_at_ms))
        rejected = len(records)
        signed_up = self._signed_up_at_ms(checked)
        stating = [call for call in checked if call.stated]
        if stating:
            await self._known_vault.require()
            # Before the events: the lane that meets one must know the decision already.
            await self._consents.take(stating, sender.name, received_at_ms, signed_up)
        people = await self._resolve(checked, signed_up)
        records += self._seal(checked, people, sender.name, received_at_ms)
        accepted = len(records) - rejected
        claims = await self._claims.news_in(checked, people)
        records += self._claims.records_of(claims, received_at_ms)
        await self._deliveries.send(records)
        await self._claims.put(claims)
        count = counter("headwater_collected_calls_total")
        for outcome, calls in (
            ("accepted", accepted),
            ("rejected", rejected),
            ("suppressed", len(checked) - accepted),
        ):
            if calls:
                count.labels(sender.name, outcome).inc(calls)

    async def _resolve(
        self, checked: list[Checked], signed_up: dict[Identifier, int]
    ) -> dict[Identifier, Resolved]:
        """Everybody whose pid the calls need."""
        if not checked:
            return {}
        await self._known_vault.require()
        own = dict.fromkeys((call.id_type, call.external_id) for call in checked)
        resolved = await self._vault.resolve(list(own), signed_up, lambda: heard_at_ms(checked))
        people = dict(zip(own, resolved, strict=True))
        # Only then: whom an erased person's call names beside them must not get a row by it.
        alive = (
            identifiers_of(call, self._sign_ups)
            for call in checked
            if is_alive(people[call.id_type, call.external_id], call.occurred_at_ms)
        )
        others = [each for each in dict.fromkeys(chain.from_iterable(alive)) if each not in people]
        if others:
            resolved = await self._vault.resolve(others, signed_up, lambda: heard_at_ms(checked))
            people |= zip(others, resolved, strict=True)
        return people

    def _seal(
        self,
        checked: list[Checked],
        people: Mapping[Identifier, Resolved],
        source: str,
        received_at_ms: int,
    ) -> list[Record]:
        """The events of all whose person was not erased, sealed, in the order of their calls."""
        topic = self._topics.collected
        records: list[Record] = []
        for call in checked:
            person = people[call.id_type, call.external_id]
            if not is_alive(person, call.occurred_at_ms):
                continue
            event = _event(call, person, source, received_at_ms)
            records.append((topic, person.pid, COLLECTED.encode(event)))
        return records

    def _signed_up_at_ms(self, checked: list[Checked]) -> dict[Identifier, int]:
        """When somebody signed up as an identifier: the last time, and only if the call says when.

        A call without a time of its own may be an old one that is sent again.
        """
        found: dict[Identifier, int] = {}
        for call in checked:
            if call.event in self._sign_ups and not call.flags & FLAG_TIMESTAMP_MISSING:
                for identifier in identifiers_of(call, self._sign_ups):
                    found[identifier] = max(found.get(identifier, 0), call.occurred_at_ms)
        return found

    def _rejection(self, refused: Refused, source: str, at_ms: int) -> Record:
        fault = refused.fault
        value = REJECTED.encode(
            Rejected(
                stage="collector",
                topic=None,
                partition=None,
                offset=None,
                source=source,
                message_id=refused.message_id,
                path=fault.path,
                reason=fault.reason,
                expected=fault.expected,
                rejected_at_ms=at_ms,
            )
        )
        return self._topics.rejected, None, value


def sources_of(settings: Settings) -> list[Source]:
    """Who may send: `[[sources]]`, and the holder of the write key in `[http.keys]`."""
    key = settings.http.keys.get("write")
    own = [Source(name=DEFAULT_SOURCE, write_key=key)] if key else []
    return [*settings.sources, *own]


def categories_of(settings: Settings) -> Categories:
    """What `[consent.categories]` says. Raises SettingInvalid for a purpose nobody declared."""
    for name, purposes in settings.consent.categories.items():
        for purpose in purposes:
            if purpose not in settings.purposes:
                raise SettingInvalid(
                    f"[consent.categories] {name} names {purpose}, expected one of [purposes.*]: "
                    f"{', '.join(settings.purposes)}"
                )
    return Categories.of(settings.consent.categories, settings.purposes)


def _event(call: Checked, person: Person, source: str, received_at_ms: int) -> Collected:
    event_id = call.event_id
    return Collected(
        event_id=event_id,
        pid=person.pid,
        source=source,
        type=call.type,
        event=call.event,
        occurred_at_ms=call.occurred_at_ms,
        sent_at_ms=call.sent_at_ms,
        received_at_ms=received_at_ms,
        flags=call.flags,
        body_digest=call.body_digest,
        clear=call.clear,
        traits=[SealedTrait(key, person.seal(plain, event_id)) for key, plain in call.traits],
        key_version=person.key_version,
        sealed=person.seal(call.plain, event_id),
    )


def _digest(key: str) -> bytes:
    # Half a surrogate pair is nobody's key, and no reason to fail.
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
