"""Whom does somebody who is about to be erased still claim, although it is not theirs?

The second user of a device claims it in vain: the lane of the device keeps that word, because it
counts once the first user's is revoked. The vault forgets it with the person. Were it left in the
lane, a later revocation would give the device to the erased person, and it would be erased after
them (ADR 0018), although nobody said so. So such claims are taken back as if by hand, in the same
breath as the erasure is asked for.
"""

from collections.abc import Callable, Sequence

from runtime.deliveries import Record
from runtime.kin import Kin
from schemas.codec import CLAIMED
from schemas.identity import decided_at_ms
from schemas.moves import Claimed


async def revocations_of(
    kin: Kin,
    topic: str,
    erased: Sequence[bytes],
    now_ms: int,
    erasure_id_of: Callable[[bytes], bytes],
) -> list[Record]:
    """A revocation of each claim of one of the `erased` pids on somebody who is not among them.

    They are for `topic`, subjects.moves. Raises StoreUnavailable, StoreRefused.
    """
    among = set(erased)
    bonds = await kin.bonds_of(among)
    claimed = {pid for each in bonds.values() for pid in each.claimed} - among
    records: list[Record] = []
    for pid, known in (await kin.bonds_of(claimed)).items() if claimed else ():
        at_ms = decided_at_ms(known.claims, now_ms)
        for by, rank in {(c.claimant, c.rank) for c in known.claims if c.claimant in among}:
            said = Claimed(pid, by, rank, at_ms, erasure_id_of(by), "revoked", now_ms)
            records.append((topic, pid, CLAIMED.encode(said)))
    return records
