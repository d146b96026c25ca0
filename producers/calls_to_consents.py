"""How does what calls say of consent become decisions, before their events are on the log?

A lane that meets the event must know the decision already. Most calls of a browser repeat what is
known, which costs one look at the overlay; only what changes something is written. A refusal is for
everybody whom the call names (a mail's reader may be known by address and by customer number), a
yes only for the call's own person.
"""

from collections.abc import Sequence

from producers.rules.calls import Checked
from producers.rules.stated import Stated
from runtime.consent_desk import ConsentDesk, Wanted
from runtime.vault import NOBODY, AsyncVault, Identifier, Person, SignUps
from schemas.decisions import Decision, Proof


class StatedConsents:
    """Puts what calls state on record, for people who were not erased."""

    def __init__(self, vault: AsyncVault, desk: ConsentDesk) -> None:
        self._vault = vault
        self._desk = desk

    async def take(
        self,
        calls: Sequence[Checked],
        source: str,
        received_at_ms: int,
        signed_up_at_ms: SignUps = NOBODY,
    ) -> None:
        """Every statement of `calls` that changes something is on the log and in force.

        `signed_up_at_ms` as in AsyncVault.resolve: what was stated before an erasure is erased too.
        Raises StoreUnavailable or StoreRefused.
        """
        said = [
            (identifier, call, stated)
            for call in sorted(calls, key=lambda call: call.occurred_at_ms)
            for stated in call.stated
            for identifier in _whose(call, stated)
        ]
        if not said:
            return
        identifiers = list(dict.fromkeys(identifier for identifier, _, _ in said))
        resolved = await self._vault.resolve(
            identifiers, signed_up_at_ms, lambda: heard_at_ms(calls)
        )
        people = dict(zip(identifiers, resolved, strict=True))
        wanted = []
        for identifier, call, stated in said:
            person = people[identifier]
            if isinstance(person, Person) and call.occurred_at_ms > person.erased_before_ms:
                at_ms = received_at_ms if stated.is_now else call.occurred_at_ms
                proof = Proof(
                    stated.method, age_band=stated.age_band, authorised_by=stated.authorised_by
                )
                decision = Decision(stated.subject_of, stated.status, source, proof, at_ms)
                wanted.append(Wanted(person.pid, decision, stated.way, received_at_ms))
        await self._desk.decide(wanted)


def heard_at_ms(calls: Sequence[Checked]) -> dict[Identifier, int]:
    """When the last of the calls happened, for everybody whom they name."""
    found: dict[Identifier, int] = {}
    for call in calls:
        for identifier in ((call.id_type, call.external_id), *call.others):
            found[identifier] = max(found.get(identifier, 0), call.occurred_at_ms)
    return found


def _whose(call: Checked, stated: Stated) -> Sequence[Identifier]:
    own = (call.id_type, call.external_id)
    return (own, *call.others) if stated.is_refusal else (own,)
