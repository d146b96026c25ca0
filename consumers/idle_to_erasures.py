"""Whom does nobody need any more, and how do they end?

Data are kept no longer than they are needed (GDPR Art. 5(1)(e)). A person of whom no event was
received and no decision recorded for `[profiles] idle_days` is forgotten in the way of every
erasure, with the ground `idle`: one way to forget, one proof. Whatever they do next lets them in
again, as somebody new. Whoever refused something stays: forgetting a refusal would use their data
again.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import cast

from consumers.clickhouse_reader import ClickHouseReader
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
"""A person, and type and value of their identifier."""

_IDLE = """
SELECT pid FROM facts
WHERE campaign_id != '' AND pid > unhex({after:String})
GROUP BY pid HAVING max(received_at) < fromUnixTimestamp64Milli({before:Int64})
ORDER BY pid LIMIT {page:UInt32}
"""


async def ask_to_forget(settings: Settings, at_ms: int) -> int:
    """Every idle person's erasure is on the log; how many. Repeating it asks for the same ones.

    Raises StoreUnavailable.
    """
    vault, deliveries = Vault.from_settings(settings), Deliveries(settings.kafka.bootstrap_servers)
    deliveries.start()
    topic, asked = settings.topic_names.erasures, 0
    try:
        async for people in idle_people(settings, vault, at_ms):
            requests = [
                ErasureRequested(
                    vault.erasure_id_of(person.pid),
                    person.pid,
                    at_ms,
                    IDLE,
                    [vault.hash_of(cast("IdType", id_type), external_id)],
                )
                for person, id_type, external_id in people
            ]
            await deliveries.send(
                [(topic, each.pid, ERASURE_REQUESTED.encode(each)) for each in requests]
            )
            asked += len(people)
    finally:
        await asyncio.to_thread(deliveries.close)
        vault.close()
    return asked


async def idle_people(
    settings: Settings, vault: Vault, at_ms: int
) -> AsyncIterator[Sequence[Known]]:
    """People who are idle and not erased yet, some at a time. Raises StoreUnavailable."""
    before_ms = at_ms - settings.profiles.idle_days * DAY_MS
    reader, overlay = ClickHouseReader(settings.clickhouse), ConsentOverlay(settings)
    after = b""
    try:
        while True:
            parameters = {"after": after.hex(), "before": before_ms, "page": _PAGE}
            found = [row[0] for row in await reader.rows(_IDLE, parameters)]
            known = await asyncio.to_thread(vault.identifiers_of, found)
            there = [row for row in known if row is not None]
            decided = await overlay.read([person.pid for person, _, _ in there])
            yield [
                row
                for row, matters in zip(there, decided, strict=True)
                if not _keeps(matters, before_ms)
            ]
            if len(found) < _PAGE:
                return
            after = found[-1]
    finally:
        await reader.close()
        await overlay.close()


def _keeps(matters: Matters, before_ms: int) -> bool:
    """True if the person refused something, or decided anything since."""
    consents = [known.consent for on_one in matters.values() for known in on_one]
    return any(not is_grant(each) or each.recorded_at_ms >= before_ms for each in consents)
