"""How does what calls say of who is who reach the lanes and the vault, before the calls are safe?

On the log first, with the events of the same calls, then in the vault, on disk: the vault knows
nothing that is not on the log, so what it knows need not be said again, and an SDK that identifies
on every page costs one look. A crash in between is healed by the same call sent again. Nobody is
claimed for, or as, somebody who was erased.
"""

from collections.abc import Mapping, Sequence
from typing import TypeGuard

from producers.rules.calls import Checked
from producers.rules.claims import claims_of
from runtime.deliveries import Record
from runtime.kin import Claimed as KnownClaim
from runtime.kin import Kin
from runtime.metrics import counter
from runtime.vault import Identifier, Person, Resolved
from schemas.codec import CLAIMED
from schemas.moves import Claimed


def identifiers_of(call: Checked, sign_ups: frozenset[str]) -> Sequence[Identifier]:
    """Those whose pids the call needs: its own; all of one that claims, or signs somebody up.

    Whoever was erased and signs up again comes back under each name that the call gives.
    """
    own = (call.id_type, call.external_id)
    others = call.others if call.event in sign_ups else ()
    return (own, *call.one_person, *others)


def is_alive(found: Resolved | None, at_ms: int) -> TypeGuard[Person]:
    """True of whoever was not erased, for what happened at `at_ms`."""
    return isinstance(found, Person) and at_ms > found.erased_before_ms


class CallClaims:
    """Finds what is news of who is who among calls, and makes it known."""

    def __init__(self, kin: Kin, topic: str) -> None:
        self._kin = kin
        self._topic = topic

    async def news_in(
        self, calls: Sequence[Checked], people: Mapping[Identifier, Resolved]
    ) -> list[KnownClaim]:
        """Claims of `calls` that the vault does not know. Raises StoreUnavailable, StoreRefused."""
        found: dict[tuple[bytes, bytes], KnownClaim] = {}
        claiming = [call for call in calls if call.one_person]
        for call in sorted(claiming, key=lambda call: (call.occurred_at_ms, call.event_id)):
            # Of somebody who was erased nothing is taken, of the call's own person not a word.
            if not is_alive(people[call.one_person[0]], call.occurred_at_ms):
                continue
            named = [(one, people[one]) for one in call.one_person]
            alive = [(one, of.pid) for one, of in named if is_alive(of, call.occurred_at_ms)]
            if len(alive) < 2:
                continue
            for pid, claim in claims_of(alive, call.occurred_at_ms, call.event_id, call.type):
                # Of two by one claimant the first says all.
                found.setdefault((pid, claim.claimant), (pid, claim))
        return await self._kin.news_among(list(found.values()))

    def records_of(self, claims: Sequence[KnownClaim], received_at_ms: int) -> list[Record]:
        """What the lanes are to hear of them."""
        return [
            (
                self._topic,
                pid,
                CLAIMED.encode(
                    Claimed(
                        pid,
                        claim.claimant,
                        claim.rank,
                        claim.occurred_at_ms,
                        claim.event_id,
                        claim.cause,
                        received_at_ms,
                    )
                ),
            )
            for pid, claim in claims
        ]

    async def put(self, claims: Sequence[KnownClaim]) -> None:
        """The vault knows them, on disk. Raises StoreUnavailable, StoreRefused."""
        await self._kin.put(claims)
        for _, claim in claims:
            counter("headwater_claims_total").labels(claim.cause).inc()
