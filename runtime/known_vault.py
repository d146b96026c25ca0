"""Is this the vault whose keys sealed what is on the log?

A vault that lost its rows answers like a new one: everybody would get a second pid, be counted
twice and never be found again under the first. An empty vault is right only beside an empty log. So
the collector takes nothing until it knows the vault by its mark, and the vault refuses callers that
know another (runtime/vault_rows.py). A lost vault is restored from its backup, never repaired.
"""

import asyncio
import time

from runtime.log_ends import log_ends
from runtime.logs import get_logger
from runtime.settings import Settings
from runtime.vault import AsyncVault
from schemas.errors import StoreRefused, StoreUnavailable, StreamError

LOOKS_AGAIN_AFTER_S = 2.0
KAFKA_SETTLES_S = 10.0
"""A topic that was just made has no leader for a moment."""

LOST = (
    "the vault is empty, but the log holds events that were sealed with its keys: it was lost. "
    "Restore its latest backup (docs/reliability.md); until then nobody is taken in"
)


class KnownVault:
    """Stands between the collector and a vault that may be another; for one event loop."""

    def __init__(self, settings: Settings, vault: AsyncVault) -> None:
        self._kafka = settings.kafka
        self._topic = settings.topic_names.collected
        self._vault = vault
        self._asking = asyncio.Lock()
        self._refused: StreamError | None = None
        self._asked_at_s = 0.0

    async def require(self) -> None:
        """The vault is known. Raises StoreRefused when it was lost, StoreUnavailable when neither
        it nor the log can tell yet; asked in vain, it asks again after LOOKS_AGAIN_AFTER_S.
        """
        if self._vault.is_known:
            return
        async with self._asking:
            if self._refused is not None and time.monotonic() < self._asked_at_s:
                raise self._refused
            try:
                await self._recognise()
            except StreamError as error:
                self._refused = error
                self._asked_at_s = time.monotonic() + LOOKS_AGAIN_AFTER_S
                raise

    async def _recognise(self) -> None:
        await self._vault.check()
        if self._vault.is_known:
            return
        # One of before marks has people.
        if not await self._vault.has_people() and await asyncio.to_thread(self._has_events):
            raise StoreRefused(LOST)
        await self._vault.begin()
        get_logger().info("vault_begun")

    def _has_events(self) -> bool:
        kafka = self._kafka
        until_s = time.monotonic() + KAFKA_SETTLES_S
        while True:
            try:
                ends = log_ends(
                    kafka.bootstrap_servers,
                    self._topic,
                    kafka.partitions,
                    within_s=KAFKA_SETTLES_S,
                )
                return any(end > 0 for _, end in ends.values())
            except StoreUnavailable:
                if time.monotonic() > until_s:
                    raise
                time.sleep(0.1)
