"""May this event be used, and for what?

The person's decisions say it, by their stamps (schemas/consent.py); where there is none, the legal
basis of the purpose (GDPR Art. 6): `legitimate_interest` is allowed until objected, `consent` is
not allowed while unknown. Counters need `analytics`; traits and segments need `personalisation`.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from schemas.consent import Basis, allows_in_all, decisions_on, is_grant
from schemas.subjects import Consent
from streams.rules.outcomes import Withheld
from streams.rules.person import Decided, Person

ANALYTICS: Final = "purpose/analytics"
PERSONALISATION: Final = "purpose/personalisation"
_NOTHING: Final = Decided([], [])
"""Of people with several pids, of whom hardly anybody ever decided anything."""
ANALYTICS_UNKNOWN = Withheld("analytics", "unknown")
ANALYTICS_REFUSED = Withheld("analytics", "refused")


@dataclass(frozen=True, slots=True)
class Gate:
    """What the configured bases allow for a person of whom no decision is known."""

    counts: bool
    profiles: bool
    late_grant_ms: int = 0
    """How much later than an event was received a grant may be recorded that releases it."""

    @property
    def analytics_basis(self) -> Basis:
        """The legal basis of `analytics`."""
        return "legitimate_interest" if self.counts else "consent"

    @property
    def personalisation_basis(self) -> Basis:
        """The legal basis of `personalisation`."""
        return "legitimate_interest" if self.profiles else "consent"


class Stamped(Protocol):
    """What is known of an event's times: UTC ms."""

    @property
    def occurred_at_ms(self) -> int: ...
    @property
    def received_at_ms(self) -> int: ...


class Moment(NamedTuple):
    """What may be done now is asked as of an event of now."""

    occurred_at_ms: int
    received_at_ms: int


def gate_from_bases(bases: dict[str, str], late_grant_ms: int) -> Gate:
    """The gate of `[purposes.*]`; a purpose that is not configured is not allowed."""
    return Gate(
        counts=bases.get("analytics") == "legitimate_interest",
        profiles=bases.get("personalisation") == "legitimate_interest",
        late_grant_ms=late_grant_ms,
    )


def gate_by_consent(gate: Gate, person: Person, event: Stamped) -> Gate:
    """What is allowed of `event`, of a person of whom decisions are known."""
    decided = _decided(person)
    if decided is _NOTHING:
        return gate
    times = (event.occurred_at_ms, event.received_at_ms, gate.late_grant_ms)
    return Gate(
        allows_in_all(gate.analytics_basis, decided.analytics, *times),
        allows_in_all(gate.personalisation_basis, decided.personalisation, *times),
    )


def groups_of(person: Person) -> list[list[Consent]]:
    """The decisions that hold for the pid: its own, then those of each other pid of the person."""
    kinship = person.kinship
    return [person.consents] if kinship is None else [person.consents, *kinship.decisions]


def why_withheld(person: Person) -> Withheld:
    """Why an event of `person` does not count."""
    refused = any(not is_grant(each) for group in _decided(person).analytics for each in group)
    return ANALYTICS_REFUSED if refused else ANALYTICS_UNKNOWN


def may_take_back(person: Person, decision: Consent, newest_received_at_ms: int) -> bool:
    """False if `decision`, just recorded, leaves all accepted events of `person` as they are.

    True is a guess: whoever knows the events decides. `newest_received_at_ms` is that of any event
    of the lane.
    """
    if decision.subject_of != ANALYTICS or is_grant(decision) or not person.events:
        return False
    if decision.valid_to_ms is not None and decision.valid_to_ms <= person.first_seen_ms:
        return False
    begins_before = decision.valid_from_ms <= person.last_seen_ms
    return begins_before or decision.recorded_at_ms <= newest_received_at_ms


def _decided(person: Person) -> Decided:
    decided = person.decided
    if decided is None:
        groups = groups_of(person)
        decided = person.decided = (
            Decided(
                [decisions_on(ANALYTICS, group) for group in groups],
                [decisions_on(PERSONALISATION, group) for group in groups],
            )
            if any(groups)
            else _NOTHING
        )
    return decided
