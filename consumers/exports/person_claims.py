"""By whose word is a pid this person's, or somebody else's, and what is stored under it?"""

import asyncio
from typing import Any

import redis

from consumers.rules.export_view import Item
from consumers.rules.identity_view import seen
from runtime.kin import Kin
from runtime.vault import Vault
from schemas.codec import SUBJECT
from schemas.errors import StoreUnavailable
from schemas.identity import standing
from schemas.subjects import Subject

SOMEBODY_ELSE = "somebody else"
"""Stands for whoever is not the person: of them nothing is told."""


async def claims_about(kin: Kin, vault: Vault, pid: bytes) -> list[Item]:
    """Every claim on a pid, and each one that it makes on somebody else's, and whether it stands.

    Raises StoreUnavailable or StoreRefused.
    """
    person = await kin.pids_of(pid)
    rows = await asyncio.to_thread(vault.identifiers_of, person)
    names = {row[0].pid: row[1:] for row in rows if row is not None}
    bonds = await kin.bonds_of([pid])
    others = bonds[pid].claimed - set(person)
    bonds |= await kin.bonds_of(others) if others else {}
    found = []
    for on, of in bonds.items():
        stands = standing(of.claims)
        for claim in of.claims:
            if on == pid or claim.claimant == pid:
                told = seen(on, claim, names, SOMEBODY_ELSE)
                found.append(told | {"stands": claim == stands})
    return found


async def stored_under(client: Any, key: str) -> tuple[Subject | None, bool]:
    """What the sink wrote under a key, and whether it knows of an erasure. Raises
    StoreUnavailable."""
    try:
        profile, is_stub = await client.hmget(key, ["p", "d"])
    except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
        raise StoreUnavailable("Redis does not answer") from error
    known = SUBJECT.decode(profile) if profile is not None else None
    is_erased = is_stub is not None or (known is not None and known.erased_at_ms is not None)
    return (None if is_erased else known), is_erased
