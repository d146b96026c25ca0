"""How does what calls say of consent become decisions, before their events are on the log?

A lane that meets the event must know the decision already. Most calls of a browser repeat what is
known, which costs one look at the overlay; only what changes something is written. A refusal is for
everybody whom the call names (a mail's reader may be known by address and by customer number), a
yes only for the call's own person. Whom an erased person's call names beside them is looked up for
that, and never made.
"""

from collections.abc import Callable, Sequence

from producers.calls_to_claims import is_alive
from producers.rules.calls import Checked
from producers.rules.stated import Stated
from runtime.consent_desk import ConsentDesk, Wanted
from runtime.vault import NOBODY, AsyncVault, Identifier, Resolved, SignUps
from schemas.decisions import Decision, Proof

Said = tuple[Identifier, Checked, Stated]
"""Of whom, by which call, what."""


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
        people = await self._resolve(said, signed_up_at_ms, lambda: heard_at_ms(calls))
        wanted = []
        for identifier, call, stated in said:
            person = people[identifier]
            if is_alive(person, call.occurred_at_ms):
                at_ms = received_at_ms if stated.is_now else call.occurred_at_ms
                proof = Proof(
                    stated.method, age_band=stated.age_band, authorised_by=stated.authorised_by
                )
                decision = Decision(stated.subject_of, stated.status, source, proof, at_ms)
                wanted.append(Wanted(person.pid, decision, stated.way, received_at_ms))
        await self._desk.decide(wanted)

    async def _resolve(
        self, said: Sequence[Said], signed_up: SignUps, heard: Callable[[], SignUps]
    ) -> dict[Identifier, Resolved | None]:
        """Everybody of whom something is said."""
        own = list(dict.fromkeys((call.id_type, call.external_id) for _, call, _ in said))
        resolved = await self._vault.resolve(own, signed_up, heard)
        people: dict[Identifier, Resolved | None] = dict(zip(own, resolved, strict=True))
        named = dict.fromkeys(
            each
            for each, call, _ in said
            if is_alive(people[call.id_type, call.external_id], call.occurred_at_ms)
        )
        others = [each for each in named if each not in people]
        if others:
            people |= zip(others, await self._vault.resolve(others, signed_up, heard), strict=True)
        for each, _, _ in said:
            if each not in people:
                people[each] = await self._vault.lookup(*each)
        return people


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
