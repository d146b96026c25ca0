"""How does the vault know again what the log knows?

After the vault was restored from a backup, what was decided since, and who is who since, stands on
the log alone. Every record is put back in log order, who is who first; what is there already is
not touched, and nobody who was erased gets anything (runtime/consent_overlay.py, runtime/kin.py).
Of who is who the log has what was said within the retention of subjects.moves.
"""

import asyncio
from collections.abc import Iterable, Iterator

from runtime.consent_overlay import ConsentOverlay
from runtime.kin import Claimed, Kin
from runtime.log_reading import LogReading
from runtime.settings import Settings
from schemas.codec import CLAIMED, CONSENT_CHANGED, HEADER_BYTES, Malformed
from schemas.decisions import Known, known_of_change
from schemas.identity import Claim
from schemas.minors import is_void

_PART = 1000


def rebuild_overlay(settings: Settings) -> int:
    """Every decision on the log that can still matter is in the overlay, on disk, and every claim
    in the vault; how many records of decisions were read. May be repeated, and run while everything
    runs.

    Raises StoreUnavailable or StoreRefused.
    """
    return asyncio.run(_rebuild(settings))


async def _rebuild(settings: Settings) -> int:
    overlay = ConsentOverlay(settings)
    try:
        await _rebuild_kin(settings, overlay.kin)
        return await _rebuild_decisions(settings, overlay)
    finally:
        await overlay.close()


async def _rebuild_kin(settings: Settings, kin: Kin) -> None:
    log = LogReading(settings, settings.topic_names.moves)
    try:
        for partition in range(settings.kafka.partitions):
            first, end = log.bounds(partition)
            for records in log.read(partition, first, end):
                claims = list(_claims(value for _, _, value in records))
                for at in range(0, len(claims), _PART):
                    await kin.put(claims[at : at + _PART])
    finally:
        log.close()


async def _rebuild_decisions(settings: Settings, overlay: ConsentOverlay) -> int:
    log = LogReading(settings, settings.topic_names.consents)
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
    return count


def _claims(values: Iterable[bytes | None]) -> Iterator[Claimed]:
    for value in values:
        # Beside claims there is what lanes tell each other.
        if value is None or value[:HEADER_BYTES] not in CLAIMED.headers:
            continue
        try:
            said = CLAIMED.decode(value)
        except Malformed:
            continue  # the lane has rejected it, with its place
        claim = Claim(said.claimant, said.rank, said.occurred_at_ms, said.event_id, said.cause)
        yield said.pid, claim


def _known(values: Iterator[bytes | None]) -> Iterator[tuple[bytes, Known]]:
    for value in values:
        try:
            change = CONSENT_CHANGED.decode(value)
        except Malformed:
            continue  # the lane has rejected it, with its place
        if not is_void(change):
            yield change.pid, known_of_change(change)
