"""Which facts belong to another campaign when a touch or an order comes late?

A record says it for stretches of event time and for single refunds (schemas/reattributed.avsc). The
event's row is marked as of the record's place in the log, as a retraction does it, and the same
event gets a row in its new campaign, at that place too: so what is counted stays a function of the
log's prefix, and saying it again finds nothing left to move (ADR 0021).

People of whom a batch holds such a record are looked up once before it: what they have that counts,
`Live`, grows with their events in the batch.
"""

from collections.abc import Iterable

from schemas.activity import TIE_BYTES
from schemas.events import Reattributed
from sinks.rules.retract import KnownFact
from sinks.rules.rows import Fact, is_event, moved_fact

Live = dict[bytes, list[Fact]]
"""By pid, the events that count, in the campaigns to which they belong now."""


def live_facts(people: Iterable[bytes], known: Iterable[KnownFact]) -> Live:
    """Of these people what counts of `known`, which are all of their facts."""
    live: Live = {pid: [] for pid in people}
    for each in known:
        if is_event(each.fact) and each.retracted_at is None:
            live[each.fact[6]].append(each.fact)
    return live


def move_facts(said: Reattributed, facts: list[Fact], offset: int) -> list[tuple[Fact, Fact]]:
    """Every fact that must move by what is said at `offset`, with what takes its place.

    `facts` are what counts of the person; they stand in their new campaigns after it.
    """
    of_events = {each.tie: each.campaign_id for each in said.events}
    moved = []
    for at, fact in enumerate(facts):
        campaign_id, by_touch = fact[0], fact[22]
        given = of_events.get(fact[7][:TIE_BYTES]) if of_events else None
        if given is not None:
            campaign_id, by_touch = given, 0
        elif by_touch:
            for span in said.spans:
                if span.from_ms <= fact[8] < span.until_ms:
                    campaign_id = span.campaign_id
        if (campaign_id, by_touch) != (fact[0], fact[22]):
            facts[at] = moved_fact(fact, campaign_id, by_touch, said.generation, offset)
            moved.append((fact, facts[at]))
    return moved
