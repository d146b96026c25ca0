"""Whom does nobody need any more, and how do they end?

Data are kept no longer than they are needed (GDPR Art. 5(1)(e)). A person of whom, under whichever
identifier, no event was received and no decision recorded for `[profiles] idle_days` is forgotten
in the way of every erasure, with the ground `idle`: one way to forget, one proof. Whatever they do
next lets them in again, as somebody new. Whoever refused something stays: forgetting a refusal
would use their data again.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import cast

from consumers.clickhouse_reader import ClickHouseReader
from consumers.erasures.claims_in_vain import revocations_of
from consumers.rules.erasure import IDLE
from runtime.consent_overlay import ConsentOverlay, Matters
from runtime.deliveries import Deliveries
from runtime.sealing import IdType, Person
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.codec import ERASURE_REQUESTED
from schemas.consent import is_grant
from schemas.requests import ErasureRequested
from schemas.topics import DAY_MS

_PAGE = 1000

Known = tuple[Person, str, str]
"""The person of a pid, and type and value of the identifier."""

_IDLE = """
SELECT pid FROM facts
WHERE campaign_id != '' AND pid > unhex({after:String})
GROUP BY pid HAVING max(received_at) < fromUnixTimestamp64Milli({before:Int64})
ORDER BY pid LIMIT {page:UInt32}
"""
_HEARD = """
SELECT DISTINCT hex(pid) FROM facts
WHERE pid IN (SELECT CAST(unhex(arrayJoin({pids:Array(String)})) AS FixedString(16)))
AND campaign_id != '' AND received_at >= fromUnixTimestamp64Milli({before:Int64})
"""


async def ask_to_forget(settings: Settings, at_ms: int) -> int:
    """Every idle person's erasure is on the log; how many. Repeating it asks for the same ones.

    Raises StoreUnavailable.
    """
    vault, deliveries = Vault.from_settings(settings), Deliveries(settings.kafka.bootstrap_servers)
    deliveries.start()
    topic, moves, asked = settings.topic_names.erasures, settings.topic_names.moves, 0
    overlay = ConsentOverlay(settings)
    try:
        async for people in idle_people(settings, vault, at_ms):
            requests = [
                ErasureRequested(
                    vault.erasure_id_of(known.pid),
                    known.pid,
                    at_ms,
                    IDLE,
                    [vault.hash_of(cast("IdType", id_type), external_id)],
                )
                for person in people
                for known, id_type, external_id in person
            ]
            pids = [each.pid for each in requests]
            revoked = await revocations_of(overlay.kin, moves, pids, at_ms, vault.erasure_id_of)
            asks = [(topic, each.pid, ERASURE_REQUESTED.encode(each)) for each in requests]
            await deliveries.send([*asks, *revoked])
            asked += len(people)
    finally:
        await asyncio.to_thread(deliveries.close)
        await overlay.close()
        vault.close()
    return asked


async def idle_people(
    settings: Settings, vault: Vault, at_ms: int
) -> AsyncIterator[Sequence[Sequence[Known]]]:
    """People who are idle and not erased yet, some at a time, each with all their pids, once.

    Raises StoreUnavailable.
    """
    before_ms = at_ms - settings.profiles.idle_days * DAY_MS
    reader, overlay = ClickHouseReader(settings.clickhouse), ConsentOverlay(settings)
    after, seen = b"", set[bytes]()
    try:
        while True:
            parameters = {"after": after.hex(), "before": before_ms, "page": _PAGE}
            found = [row[0] for row in await reader.rows(_IDLE, parameters)]
            walked = await overlay.kin.people_found(found)
            people = {person[0]: person for person in walked.values() if person[0] not in seen}
            # One who is known by several is met as often.
            seen.update(root for root, person in people.items() if len(person) > 1)
            awake = await _awake(reader, people.values(), before_ms)
            pids = [pid for person in people.values() for pid in person]
            known = dict(
                zip(pids, await asyncio.to_thread(vault.identifiers_of, pids), strict=True)
            )
            decided = dict(zip(pids, await overlay.read(pids), strict=True))
            yield [
                there
                for person in people.values()
                if (there := [row for pid in person if (row := known[pid]) is not None])
                and not any(pid in awake or _keeps(decided[pid], before_ms) for pid in person)
            ]
            if len(found) < _PAGE:
                return
            after = found[-1]
    finally:
        await reader.close()
        await overlay.close()


async def _awake(
    reader: ClickHouseReader, people: Iterable[Sequence[bytes]], before_ms: int
) -> set[bytes]:
    """Pids of people with several of which something was received since."""
    pids = [pid.hex() for person in people if len(person) > 1 for pid in person]
    if not pids:
        return set()
    rows = await reader.rows(_HEARD, {"pids": pids, "before": before_ms})
    return {bytes.fromhex(row[0]) for row in rows}


def _keeps(matters: Matters, before_ms: int) -> bool:
    """True if the person refused something, or decided anything since."""
    consents = [known.consent for on_one in matters.values() for known in on_one]
    return any(not is_grant(each) or each.recorded_at_ms >= before_ms for each in consents)
