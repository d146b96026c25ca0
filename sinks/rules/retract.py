"""What must be taken back of a person's facts when a decision comes late?

Each event's own fact is decided by the stamp rule with the event's own times, and marked, never
deleted: a fact keeps what it added, and says from which place in the log on that no longer counts.
So a repeat after a crash finds the same facts and decides the same.

Visits are more than a sum: when the event that began one is taken back, the visit begins with its
next event, and may belong to another campaign. The lane keeps the spans of visits and not their
events, so from the first retraction on a person is *marked*: their visits are found again here,
from the events that are left, and the difference to what is counted goes into facts of its own.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from schemas.consent import allows
from schemas.events import Accepted, Reattributed, Retracted, VisitChange
from sinks.rules.rows import DAY_MS, Fact, is_event, storable_ms

Visit = tuple[str, int]
"""(campaign, start in UTC ms)."""

NO_EVENT = bytes(16)
"""Event id of the facts that correct a person's visits by a retraction."""


@dataclass(frozen=True, slots=True)
class KnownFact:
    """A row of `facts`; `retracted_at` is (generation, offset) of what took it back, or None."""

    fact: Fact
    retracted_at: tuple[int, int] | None = None


@dataclass(slots=True)
class Marked:
    """A person with retracted events: those that are left, and the visits that are counted."""

    gap_ms: int
    events: list[tuple[int, bytes, str]] = field(default_factory=list)
    """(occurred_at, event_id, campaign) of each event that is part of a visit."""
    visits: Counter[Visit] = field(default_factory=Counter)


def person_from(facts: Iterable[KnownFact], gap_ms: int) -> Marked:
    """What `facts`, all of one person, say."""
    person = Marked(gap_ms)
    for known in facts:
        fact = known.fact
        if not is_event(fact):
            person.visits[fact[0], fact[8]] += fact[11]
        elif fact[14] and known.retracted_at is None:
            person.events.append((fact[8], fact[7], fact[0]))
    return person


def visits_of(events: Iterable[tuple[int, bytes, str]], gap_ms: int) -> Counter[Visit]:
    """How many visits begin when and where: the rule of streams/rules/enrich.py, at once."""
    found: Counter[Visit] = Counter()
    ended_at_ms: int | None = None
    for at_ms, _, campaign_id in sorted(events):
        if ended_at_ms is None or at_ms - ended_at_ms >= gap_ms:
            found[campaign_id, at_ms] += 1
        ended_at_ms = at_ms
    return found


def settle_visits(person: Marked) -> list[VisitChange]:
    """What must be added so that the counted visits are those of the events that are left."""
    wanted = visits_of(person.events, person.gap_ms)
    changes = [
        VisitChange(campaign_id, started_at_ms, delta)
        for campaign_id, started_at_ms in sorted(wanted.keys() | person.visits.keys())
        if (delta := wanted[campaign_id, started_at_ms] - person.visits[campaign_id, started_at_ms])
    ]
    person.visits = wanted
    return changes


def add_event(person: Marked, event: Accepted) -> list[VisitChange]:
    """How the person's visits change by a new event: instead of what the lane found."""
    person.events.append((storable_ms(event.occurred_at_ms), event.event_id, event.campaign_id))
    return settle_visits(person)


def facts_to_retract(retracted: Retracted, facts: Iterable[KnownFact]) -> list[Fact]:
    """The events' own facts that still count and are no longer allowed."""
    basis: Literal["consent", "legitimate_interest"] = (
        "legitimate_interest" if retracted.basis == "legitimate_interest" else "consent"
    )
    decisions, late_ms = retracted.decisions, retracted.late_grant_s * 1_000
    return [
        known.fact
        for known in facts
        if is_event(known.fact)
        and known.retracted_at is None
        and not allows(basis, decisions, known.fact[8], known.fact[9], late_ms)
    ]


def correction_facts(
    said: Retracted | Reattributed,
    kp: int,
    offset: int,
    changes: Sequence[VisitChange],
    received_at_ms: int,
) -> list[Fact]:
    """The facts that correct a person's visits by what is said at `offset`."""
    return [
        (
            change.campaign_id,
            change.started_at_ms // DAY_MS,
            said.generation,
            kp,
            offset,
            idx,
            said.pid,
            NO_EVENT,
            change.started_at_ms,
            received_at_ms,
            "visits",
            change.delta,
            0,
            "",
            0,
            said.source_topic,
            said.source_partition,
            said.source_offset,
            said.lane,
            said.seq,
            said.index,
            "",
            0,
        )
        for idx, change in enumerate(changes, start=1)
    ]
