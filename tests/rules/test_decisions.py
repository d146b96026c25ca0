"""Which decisions are news, and which only repeat what is on record?"""

from dataclasses import replace
from typing import Any

import pytest

from schemas.consent import allowed_now
from schemas.decisions import Decision, Known, Proof, Way, consents_on_topic, news_of
from schemas.subjects import Consent

PID = bytes(range(16))
YES = Decision("purpose/analytics", "granted", "form", Proof("form", "7"))
NO = Decision("purpose/analytics", "withdrawn", "form", Proof("form", "7"))
SKEW_MS = 300_000


class Ledger:
    """What is on record on one matter, as decisions come in."""

    def __init__(self) -> None:
        self.known: list[Known] = []
        self.records: list[bytes] = []

    def take(self, decision: Decision, way: Way, now_ms: int) -> bool:
        news = news_of(
            PID,
            decision,
            self.known,
            way=way,
            legal_basis="consent",
            now_ms=now_ms,
            skew_ms=SKEW_MS,
        )
        if news is None:
            return False
        assert news.change.record_id == news.known.record_id
        self.known.append(news.known)
        self.records.append(news.change.record_id)
        return True

    def allows(self, now_ms: int) -> bool:
        return allowed_now("consent", [known.consent for known in self.known], now_ms)


def at(decision: Decision, valid_from_ms: int) -> Decision:
    return replace(decision, valid_from_ms=valid_from_ms)


def test_the_same_decision_told_twice_is_one_record() -> None:
    ledger = Ledger()
    assert ledger.take(YES, "said", 1_000)
    assert not ledger.take(YES, "said", 2_000)


def test_granted_withdrawn_and_granted_again_are_three_records_with_three_ids() -> None:
    ledger = Ledger()
    for number, decision in enumerate((YES, NO, YES)):
        assert ledger.take(decision, "said", 1_000 + number)
    assert len(set(ledger.records)) == 3
    assert ledger.allows(2_000)


def test_a_repetition_after_a_lost_answer_has_the_id_of_the_first() -> None:
    first, again = Ledger(), Ledger()
    first.take(NO, "said", 1_000)
    again.take(NO, "said", 9_000)
    assert first.records == again.records


@pytest.mark.parametrize(
    "other",
    [
        replace(YES, status="denied"),
        replace(YES, source="phone"),
        replace(YES, proof=Proof("form", "8")),
        replace(YES, valid_to_ms=99_000),
        replace(YES, subject_of="purpose/sale"),
    ],
)
def test_whatever_is_decided_or_proven_otherwise_is_another_record(other: Decision) -> None:
    one, two = Ledger(), Ledger()
    one.take(YES, "said", 1_000)
    two.take(other, "said", 1_000)
    assert one.records != two.records


def test_a_withdrawal_by_a_machine_whose_clock_is_behind_is_in_force() -> None:
    ledger = Ledger()
    ledger.take(YES, "said", 60_000)
    assert ledger.take(NO, "said", 30_000)
    assert not ledger.allows(60_000)


def test_a_list_imported_again_does_not_undo_a_later_withdrawal() -> None:
    ledger = Ledger()
    row = at(YES, 1_000)
    assert ledger.take(row, "listed", 50_000)
    assert ledger.take(NO, "said", 60_000)
    assert not ledger.take(row, "listed", 70_000)
    assert not ledger.allows(70_000)


@pytest.mark.parametrize("order", [(YES, NO), (NO, YES)])
def test_of_two_rows_of_one_time_the_refusal_stands_and_importing_again_changes_nothing(
    order: tuple[Decision, Decision],
) -> None:
    ledger = Ledger()
    for decision in order:
        ledger.take(at(decision, 1_000), "listed", 50_000)
    count = len(ledger.records)
    for decision in order:
        assert not ledger.take(at(decision, 1_000), "listed", 60_000)
    assert not ledger.allows(70_000)
    assert len(ledger.records) == count


def test_stamps_that_repeat_what_is_known_write_nothing() -> None:
    ledger = Ledger()
    assert ledger.take(at(YES, 1_000), "stamped", 1_000)
    assert not any(ledger.take(at(YES, t), "stamped", t) for t in range(2_000, 9_000, 500))


def test_a_browsers_memory_does_not_lift_what_the_person_said_elsewhere() -> None:
    ledger = Ledger()
    ledger.take(at(YES, 1_000), "stamped", 1_000)
    ledger.take(NO, "said", 2_000)
    assert not ledger.take(at(YES, 3_000), "stamped", 3_000)
    assert not ledger.allows(4_000)
    assert ledger.take(at(YES, 5_000), "stated", 5_000)
    assert ledger.allows(6_000)


def test_a_stamp_lifts_what_only_a_stamp_refused() -> None:
    ledger = Ledger()
    assert ledger.take(at(NO, 1_000), "stamped", 1_000)
    assert ledger.take(at(YES, 2_000), "stamped", 2_000)
    assert ledger.allows(3_000)


def test_what_was_stated_before_a_later_decision_changes_nothing() -> None:
    ledger = Ledger()
    ledger.take(NO, "said", 1_000_000)
    assert not ledger.take(at(YES, 999_999), "stated", 1_000_001)
    ledger.take(YES, "said", 2_000_000)
    assert not ledger.take(at(NO, 2_000_000 - SKEW_MS - 1), "stated", 2_000_001)
    assert ledger.allows(2_000_002)


def test_a_refusal_by_a_clock_that_is_a_little_behind_is_in_force() -> None:
    ledger = Ledger()
    ledger.take(YES, "said", 1_000_000)
    assert ledger.take(at(NO, 1_000_000 - SKEW_MS), "stated", 1_000_001)
    assert not ledger.allows(1_000_002)


def test_what_has_expired_is_as_if_it_had_never_been_said() -> None:
    ledger = Ledger()
    ledger.take(replace(NO, valid_to_ms=5_000), "said", 1_000)
    assert ledger.take(at(YES, 6_000), "stamped", 6_000)
    assert ledger.allows(6_000)


def test_asking_to_subscribe_again_does_not_silence_a_subscriber() -> None:
    ledger = Ledger()
    letter = Decision("email/news", "subscribed", "form")
    pending = replace(letter, status="pending")
    assert ledger.take(pending, "said", 1_000)
    assert not ledger.allows(1_500)
    ledger.take(letter, "said", 2_000)
    assert not ledger.take(pending, "said", 3_000)
    assert ledger.allows(4_000)


def test_unsubscribing_from_all_topics_stops_each_until_it_is_subscribed_again() -> None:
    def consents(*decided: Any) -> list[Consent]:
        return [Consent(about, status, at_ms, None, at_ms) for about, status, at_ms in decided]

    def allowed(decided: list[Consent]) -> bool:
        return allowed_now("consent", consents_on_topic("email", "news", decided), 9_000)

    subscribed = consents(("email/news", "subscribed", 1))
    assert allowed(subscribed)
    assert not allowed(subscribed + consents(("email/all", "unsubscribed", 2)))
    again = consents(("email/all", "unsubscribed", 2), ("email/news", "subscribed", 3))
    assert allowed(subscribed + again)
    assert not allowed(consents(("sms/news", "subscribed", 1), ("email/other", "subscribed", 1)))
