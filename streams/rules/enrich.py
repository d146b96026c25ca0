"""Which campaign does an event belong to, and does a visit start with it?

Campaign: the one that the event names; of one that names none see streams/rules/attribute.py.
Visit: all events of a person (but the e-mail ones) with less than the gap between neighbours, in
event time, whatever order they arrive in. A late event can start a visit, move its start, or join
two; the counters are told by +1 and -1.
"""

from bisect import bisect_right

from schemas.events import NO_CAMPAIGN, VisitChange
from streams.rules.activity import LONGEST_TEXT
from streams.rules.person import VISIT_BYTES, Person, Visit
from streams.rules.texts import SHARED
from streams.rules.validate import Clear, Scalar


def campaign_of(clear: Clear) -> str:
    """The campaign that the event names: `properties.campaign_id`, else `context.campaign.id`,

    else `context.campaign.name`, else `properties.campaign_name`, else '(none)'.
    """
    properties = clear.properties
    if properties is not None and properties.campaign_id not in _NAMELESS:
        return _campaign(properties.campaign_id)
    context = clear.context
    if context is not None and context.campaign is not None:
        if context.campaign.id not in _NAMELESS:
            return _campaign(context.campaign.id)
        if context.campaign.name not in _NAMELESS:
            return _campaign(context.campaign.name)
    if properties is not None and properties.campaign_name not in _NAMELESS:
        return _campaign(properties.campaign_name)
    return NO_CAMPAIGN


def _campaign(value: Scalar) -> str:
    return SHARED[_text(value)]


MOST_BYTES_A_CHARACTER = 4  # in UTF-8


def name_of_a_thing(value: Scalar) -> str:
    """A category or product as text; "" for what is too long to be one's name."""
    text = _text(value)
    return text if len(text) <= LONGEST_TEXT else ""


_NAMELESS = (None, "")
_NO_CHANGE: list[VisitChange] = []


def _text(value: Scalar) -> str:
    return value if isinstance(value, str) else str(value)


def _start_of(visit: Visit) -> int:
    return visit.started_at_ms


def visit_with(
    person: Person, occurred_at_ms: int, event_id: bytes, campaign_id: str, gap_ms: int
) -> list[VisitChange]:
    """Put the event into the person's visits; how the count of visits changes by it.

    The result depends on the set of events alone, not on their order of arrival.
    """
    visits = person.visits
    if visits:
        last = visits[-1]
        if last.started_at_ms < occurred_at_ms and occurred_at_ms - last.ended_at_ms < gap_ms:
            # By far the most common: it goes on with the last visit.
            if occurred_at_ms > last.ended_at_ms:
                last.ended_at_ms = occurred_at_ms
            return _NO_CHANGE
    at = bisect_right(visits, occurred_at_ms, key=_start_of) if visits else 0
    before = visits[at - 1] if at else None
    after = visits[at] if at < len(visits) else None
    joins_before = before is not None and occurred_at_ms - before.ended_at_ms < gap_ms
    joins_after = after is not None and after.started_at_ms - occurred_at_ms < gap_ms
    if joins_before:
        assert before is not None
        if occurred_at_ms > before.ended_at_ms:
            before.ended_at_ms = occurred_at_ms
        elif occurred_at_ms == before.started_at_ms and event_id < before.first_id:
            return _begin_earlier(before, occurred_at_ms, event_id, campaign_id)
        if not joins_after:
            return _NO_CHANGE
        assert after is not None
        del visits[at]
        before.ended_at_ms = after.ended_at_ms
        return [VisitChange(after.campaign_id, after.started_at_ms, -1)]
    if joins_after:
        assert after is not None
        return _begin_earlier(after, occurred_at_ms, event_id, campaign_id)
    visits.insert(at, Visit(occurred_at_ms, occurred_at_ms, event_id, campaign_id))
    person.size += VISIT_BYTES + MOST_BYTES_A_CHARACTER * len(campaign_id)
    return [VisitChange(campaign_id, occurred_at_ms, 1)]


def _begin_earlier(
    visit: Visit, started_at_ms: int, first_id: bytes, campaign_id: str
) -> list[VisitChange]:
    changes = [
        VisitChange(visit.campaign_id, visit.started_at_ms, -1),
        VisitChange(campaign_id, started_at_ms, 1),
    ]
    visit.started_at_ms = started_at_ms
    visit.first_id = first_id
    visit.campaign_id = campaign_id
    return changes
