"""Who is asked right before a message goes to a person?

Everything is looked up at that very moment, and newest first: whose identifier it is, by which
others they are known, what they decided under each as the overlay has it, what their profile knows
besides. Where one of them does not answer
there is an exception and no permission. A permission is for a second: so long does a withdrawal
that comes now wait before it is called in force (runtime/consent_overlay.py).
"""

import asyncio

from consumers.profiles.profiles_api import Profiles
from consumers.rules.consent_views import union
from consumers.rules.send_gate import PURPOSE, Refusal, refusal_of
from runtime.clock import ClockMs, now_ms
from runtime.consent_overlay import ConsentOverlay, consents_in
from runtime.metrics import counter
from runtime.purposes import basis_of
from runtime.sealing import IdType
from runtime.settings import Settings
from runtime.vault import Suppressed, Vault


class SendGate:
    """Answers for one event loop, with a vault that it closes and profiles that it does not."""

    def __init__(
        self, settings: Settings, vault: Vault, profiles: Profiles, clock: ClockMs = now_ms
    ) -> None:
        self._basis = basis_of(settings, PURPOSE)
        self._vault = vault
        self._profiles = profiles
        self._overlay = ConsentOverlay(settings)
        self._clock = clock

    async def ask(
        self, id_type: IdType, external_id: str, channel: str, topic: str
    ) -> Refusal | None:
        """None if a message may go to this person, and begins to within SEND_WITHIN_MS of calling
        this; else the rule that forbids it. Raises StoreUnavailable or StoreRefused: then not."""
        refusal = await self._refusal(id_type, external_id, channel, topic)
        counter("headwater_sends_asked_total").labels(refusal or "allowed").inc()
        return refusal

    async def _refusal(
        self, id_type: IdType, external_id: str, channel: str, topic: str
    ) -> Refusal | None:
        person = await asyncio.to_thread(self._vault.find, id_type, external_id)
        if person is None:
            return "unknown_person"
        if isinstance(person, Suppressed):
            return "erased"
        pids = await self._overlay.kin.pids_of(person.pid)
        stored = await self._profiles.stored_of(pids)
        # Last: nothing that is decided afterwards may be overlooked.
        found = dict(zip(pids, await self._overlay.read_to_send(pids), strict=True))
        if found[person.pid] is None or stored[person.pid][1]:
            return "erased"
        decided = []
        for pid, matters in found.items():
            known, _ = stored[pid]
            # A profile has what its lane applied: of more refusals never more is allowed.
            applied = known.consents if known is not None else ()
            decided.append(union(consents_in(matters or {}), applied))
        return refusal_of(self._basis, decided, channel, topic, self._clock())

    async def close(self) -> None:
        """Give the connections back."""
        await self._overlay.close()
        self._vault.close()
