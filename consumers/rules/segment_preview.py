"""How many would be in a segment, by what is stored of everybody?

The records that a preview reads say what a lane knows, in the form in which it is written; asked by
the same rules, they give the same answer.
"""

from collections import Counter
from collections.abc import Iterable

from schemas.activity import Entry, unpack
from schemas.persons import VISIT, groups_of, whole_subject
from schemas.segment_rules import Compiled
from schemas.subjects import ClearTrait, Consent, Purchase, Subject


class SubjectFacts:
    """A record as segments read it (schemas/segment_facts.py)."""

    def __init__(self, subject: Subject) -> None:
        self.first_seen_ms = subject.first_seen_ms
        self.last_seen_ms = subject.last_seen_ms
        self.events = subject.events
        self.orders = subject.orders
        self.refunds = subject.refunds
        self.spent = {money.currency: money.amount_micro for money in subject.spent}
        self.refunded = {money.currency: money.amount_micro for money in subject.refunded}
        self.purchases: list[Purchase] = subject.purchases
        self.consents: list[Consent] = subject.consents
        self.clear_traits: dict[str, ClearTrait] = {
            each.name: each for each in subject.clear_traits
        }
        self.circumstances = {
            each.name: (each.occurred_at_ms, each.tie, each.value) for each in subject.circumstances
        }
        self._visits = subject.visits
        self.packed_activity = subject.activity

    @property
    def visits_ms(self) -> list[int]:
        """When each visit began, in order."""
        return [visit[0] for visit in VISIT.iter_unpack(self._visits)]

    @property
    def activity(self) -> Iterable[Entry]:
        """The recent events, unpacked when a condition asks for some."""
        return unpack(self.packed_activity)


def segments_of_subject(
    compiled: Compiled, subject: Subject, now_ms: int, visit_gap_ms: int
) -> frozenset[str]:
    """The segments that the person is in at `now_ms`; of one who belongs to another, none."""
    if subject.erased_at_ms is not None or subject.moved_to is not None:
        return frozenset()
    groups = groups_of(subject)
    whole = whole_subject(subject, visit_gap_ms)
    members, _ = compiled.evaluate(SubjectFacts(whole), now_ms, groups)
    return members


def count_members(
    compiled: Compiled, subjects: Iterable[Subject], now_ms: int, visit_gap_ms: int
) -> tuple[Counter[str], int]:
    """How many are in each segment, and how many people were looked at."""
    counts: Counter[str] = Counter()
    people = 0
    for subject in subjects:
        if subject.erased_at_ms is None and subject.moved_to is None:
            people += 1
            counts.update(segments_of_subject(compiled, subject, now_ms, visit_gap_ms))
    return counts, people
