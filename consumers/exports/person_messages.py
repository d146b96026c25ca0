"""Which messages are held of a person, told to that person?"""

import asyncio
from itertools import chain

from consumers.messages.api import view_message
from consumers.messages.scripts import LAYOUT
from consumers.messages.store import MessageStore
from consumers.rules.export_view import Item, purposes_of
from runtime.purposes import explain, purposes_in_force
from runtime.settings import Settings

PURPOSES = purposes_of(chain(*(layout.fields for layout in LAYOUT)))
"""What they are kept for."""


class PersonMessages:
    """Reads them. Raises StoreUnavailable while it cannot."""

    def __init__(self, settings: Settings) -> None:
        self._store = MessageStore.from_settings(settings)
        self._used_for = explain(PURPOSES, purposes_in_force(settings))
        self._kept = f"{settings.sending.keep_days} days, or until the person is erased"

    async def of(self, pid: bytes) -> list[Item]:
        """Every message of the pid with every decision over it, newest first."""
        found = await asyncio.to_thread(self._store.of_person, [pid])
        held = {"where": "messages", "kept": self._kept, "used_for": self._used_for}
        told = [view_message(each) | held for each in found]
        return [{name: value for name, value in each.items() if name != "pid"} for each in told]

    def close(self) -> None:
        """Give the connections back."""
        self._store.close()
