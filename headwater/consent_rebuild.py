"""How does the overlay know again what the log knows?

After the vault was restored from a backup, what was decided since stands on the log alone. Every
record is put back in log order; what is there already is not touched, and nobody who was erased
gets anything (runtime/consent_overlay.py).
"""

import asyncio
from collections.abc import Iterator

from runtime.consent_overlay import ConsentOverlay
from runtime.log_reading import LogReading
from runtime.settings import Settings
from schemas.codec import CONSENT_CHANGED, Malformed
from schemas.decisions import Known, known_of_change
from schemas.minors import is_void

_PART = 1000


def rebuild_overlay(settings: Settings) -> int:
    """Every decision on the log that can still matter is in the overlay, on disk; how many records
    were read. May be repeated, and run while everything runs.

    Raises StoreUnavailable or StoreRefused.
    """
    return asyncio.run(_rebuild(settings))


async def _rebuild(settings: Settings) -> int:
    log = LogReading(settings, settings.topic_names.consents)
    overlay = ConsentOverlay(settings)
    count = 0
    try:
        for partition in range(settings.kafka.partitions):
            first, end = log.bounds(partition)
            for records in log.read(partition, first, end):
                count += len(records)
                for at in range(0, len(records), _PART):
                    decided: dict[bytes, list[Known]] = {}
                    for pid, known in _known(value for _, _, value in records[at : at + _PART]):
                        decided.setdefault(pid, []).append(known)
                    if decided:
                        await overlay.put(decided)
    finally:
        log.close()
        await overlay.close()
    return count


def _known(values: Iterator[bytes | None]) -> Iterator[tuple[bytes, Known]]:
    for value in values:
        try:
            change = CONSENT_CHANGED.decode(value)
        except Malformed:
            continue  # the lane has rejected it, with its place
        if not is_void(change):
            yield change.pid, known_of_change(change)
