"""Are persons whose pids turn out to be one counted, gated and forgotten as one?"""

import msgspec
import pytest

from schemas.activity import packed, unpack
from schemas.codec import ERASURE_REQUESTED, KIN, LINKED, MOVED, REJECTED, RETRACTED
from schemas.events import Collected
from schemas.identity import RANK
from schemas.moves import Claimed, Moved, Substate
from schemas.partitioning import partition_of
from schemas.persons import groups_of, whole_subject
from schemas.requests import IDLE, MERGED, ConsentChanged, ErasureRequested
from schemas.subjects import PID_BYTES, Money, Subject
from streams.rules import kinship
from tests.lane_log import TOPICS
from tests.lanes_together import Together
from tests.stream_log import GAP_MS, ORDER, START_MS, make_event

USER, OTHER, MAIL, DEVICE, PHONE = (bytes([at]) * PID_BYTES for at in range(1, 6))


def claim(
    pid: bytes, claimant: bytes, at: int = 0, cause: str = "identify", rank: str = "user"
) -> Claimed:
    return Claimed(
        pid, claimant, RANK[rank], START_MS + at, at.to_bytes(16, "big"), cause, START_MS + at
    )  # fmt: skip


def order(
    pid: bytes, order_id: str, total: int, at_ms: int = START_MS, currency: str = "EUR"
) -> Collected:
    properties = {"order_id": order_id, "total": total, "currency": currency, "campaign_id": "c"}
    return make_event(pid=pid, event=ORDER, occurred_at_ms=at_ms, clear={"properties": properties})


def decision(
    pid: bytes, status: str, *, from_ms: int = 0, at_ms: int = START_MS, on: str = "analytics"
) -> ConsentChanged:
    return ConsentChanged(
        bytes(16), pid, on, None, None, "consent", status, from_ms, None, at_ms, "form"
    )


@pytest.fixture
def lanes(monkeypatch: pytest.MonkeyPatch) -> Together:
    return Together(monkeypatch)


def test_claimed_pid_belongs_to_whom_the_claim_names(lanes: Together) -> None:
    subjects = lanes.run(make_event(pid=DEVICE), claim(DEVICE, USER)).subjects()
    assert subjects[DEVICE].moved_to == USER
    assert [each.pid for each in subjects[USER].members] == [DEVICE]
    assert (subjects[USER].events, whole_subject(subjects[USER]).events) == (0, 1)


def test_member_is_told_of_again_when_it_changes(lanes: Together) -> None:
    lanes.run(make_event(pid=DEVICE), claim(DEVICE, USER))
    lanes.run(make_event(pid=DEVICE), make_event(pid=DEVICE))
    assert whole_subject(lanes.subjects()[USER]).events == 3


def test_chain_of_claims_ends_at_its_root(lanes: Together) -> None:
    events = [make_event(pid=pid) for pid in (USER, MAIL, DEVICE)]
    lanes.run(*events, claim(DEVICE, MAIL, rank="email"), claim(MAIL, USER))
    subjects = lanes.subjects()
    assert subjects[DEVICE].moved_to == MAIL
    assert whole_subject(subjects[USER]).events == 3
    linked = {(each.pid, each.root): each.is_linked for each in lanes.said(LINKED)}
    assert [at for at, is_linked in linked.items() if is_linked] == [(MAIL, USER), (DEVICE, USER)]


def test_order_told_under_two_pids_counts_once(lanes: Together) -> None:
    lanes.run(order(USER, "7", 10), order(DEVICE, "7", 10), order(DEVICE, "8", 5))
    lanes.run(claim(DEVICE, USER))
    whole = whole_subject(lanes.subjects()[USER])
    assert (whole.orders, whole.spent[0].amount_micro) == (2, 15_000_000)
    assert len(whole.purchases) == 2
    assert whole.segments == lanes.subjects()[USER].segments == ["repeat_buyers"]


def test_order_told_in_another_currency_too_was_paid_in_the_first_alone(lanes: Together) -> None:
    later_ms = START_MS + 1
    lanes.run(order(USER, "7", 10), order(DEVICE, "7", 250, later_ms, "CZK"))
    lanes.run(claim(DEVICE, USER))
    whole = whole_subject(lanes.subjects()[USER])
    assert (whole.orders, whole.spent) == (1, [Money("EUR", 10_000_000)])
    lanes.run(order(MAIL, "8", 0, later_ms, "CZK"), order(DEVICE, "9", 0), claim(MAIL, USER))
    whole = whole_subject(lanes.subjects()[USER])
    assert (whole.orders, whole.spent) == (3, [Money("CZK", 0), Money("EUR", 10_000_000)])


def test_revoked_claim_leaves_both_as_their_own_facts_made_them(lanes: Together) -> None:
    lanes.run(order(USER, "1", 1), order(DEVICE, "2", 2), claim(DEVICE, USER))
    assert lanes.subjects()[USER].segments == ["repeat_buyers"]
    subjects = lanes.run(claim(DEVICE, USER, 5, "revoked")).subjects()
    assert subjects[DEVICE].moved_to is None
    assert (subjects[USER].members, subjects[USER].segments) == ([], [])
    linked = [each.is_linked for each in lanes.said(LINKED)]
    assert linked == [True, False]


def test_pid_that_comes_back_unchanged_is_told_of_again(lanes: Together) -> None:
    lanes.run(make_event(pid=DEVICE), claim(DEVICE, USER))
    lanes.run(claim(DEVICE, USER, 5, "revoked"))
    lanes.run(claim(DEVICE, USER, 6, "linked"))
    assert [each.pid for each in lanes.subjects()[USER].members] == [DEVICE]


def test_second_claim_by_somebody_known_is_refused_and_shown(lanes: Together) -> None:
    lanes.run(claim(DEVICE, USER, 1), claim(DEVICE, OTHER, 2), claim(DEVICE, OTHER, 2))
    assert lanes.subjects()[DEVICE].moved_to == USER
    [shown] = lanes.said(REJECTED)
    assert (shown.reason, shown.stage, shown.offset) == ("identifier_taken", "streams", 1)


def test_earlier_claim_takes_the_pid_and_the_other_is_shown(lanes: Together) -> None:
    lanes.run(make_event(pid=DEVICE), claim(DEVICE, OTHER, 2))
    subjects = lanes.run(claim(DEVICE, USER, 1)).subjects()
    assert (subjects[DEVICE].moved_to, subjects[OTHER].members) == (USER, [])
    assert [each.reason for each in lanes.said(REJECTED)] == ["identifier_taken"]


def test_address_that_gives_way_to_somebody_known_is_no_dispute(lanes: Together) -> None:
    lanes.run(claim(DEVICE, MAIL, 1, rank="email"), claim(DEVICE, USER, 2))
    assert lanes.subjects()[DEVICE].moved_to == USER
    assert lanes.said(REJECTED) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"claimant": DEVICE}, "claims_itself"),
        ({"rank": 9}, "unknown_rank"),
        ({"cause": "?"}, "unknown_cause"),
        ({"occurred_at_ms": -1}, "time_out_of_range"),
    ],
)
def test_claim_that_says_nothing_usable_is_set_aside(
    lanes: Together, change: dict[str, object], reason: str
) -> None:
    lanes.run(msgspec.structs.replace(claim(DEVICE, USER), **change))
    assert [each.reason for each in lanes.said(REJECTED)] == [reason]
    assert DEVICE not in lanes.subjects()


def test_telling_that_holds_no_record_is_set_aside(lanes: Together) -> None:
    moved = Moved(USER, DEVICE, [Substate(DEVICE, b"none of ours")], 1, 0, 1, 0)
    lanes.logs[TOPICS.moves, partition_of(USER, 3)].append((USER, MOVED.encode(moved)))
    assert [each.reason for each in lanes.run().said(REJECTED)] == ["wrong_magic_byte"]


def test_person_takes_as_many_as_there_is_room_for(
    lanes: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinship, "MOST_MEMBERS", 2)
    events = [make_event(pid=pid) for pid in (OTHER, MAIL, DEVICE)]
    lanes.run(*events, *(claim(pid, USER) for pid in (OTHER, MAIL, DEVICE)))
    assert whole_subject(lanes.subjects()[USER]).events == 2
    assert [each.reason for each in lanes.said(REJECTED)] == ["person_full"]


def test_circle_of_claims_comes_to_rest(lanes: Together) -> None:
    lanes.run(make_event(pid=DEVICE), claim(DEVICE, USER), claim(USER, DEVICE))
    assert {each.reason for each in lanes.said(REJECTED)} == {"circle"}


def test_refusal_under_one_pid_holds_under_the_others(lanes: Together) -> None:
    lanes.run(make_event(pid=DEVICE), decision(USER, "withdrawn"), claim(DEVICE, USER))
    [retracted] = lanes.said(RETRACTED)
    assert (retracted.pid, retracted.decisions[0].status) == (DEVICE, "withdrawn")
    lanes.run(make_event(pid=DEVICE, received_at_ms=START_MS + 5_000))
    assert lanes.subjects()[DEVICE].events == 1
    assert [len(group) for group in groups_of(lanes.subjects()[DEVICE])] == [0, 1]


def test_refusal_of_a_member_holds_for_who_stands_for_the_person(lanes: Together) -> None:
    lanes.run(make_event(pid=USER), decision(DEVICE, "withdrawn"), claim(DEVICE, USER))
    assert [each.pid for each in lanes.said(RETRACTED)] == [USER]


def test_refusal_leaves_with_the_pid_that_it_was_made_under(lanes: Together) -> None:
    lanes.run(decision(USER, "withdrawn"), claim(DEVICE, USER), claim(DEVICE, USER, 5, "revoked"))
    lanes.run(make_event(pid=DEVICE, received_at_ms=START_MS + 5_000))
    subjects = lanes.subjects()
    assert (subjects[DEVICE].events, subjects[DEVICE].kin) == (1, [])


def test_erased_person_takes_members_along_that_are_under_way(lanes: Together) -> None:
    lanes.run(ErasureRequested(bytes(16), USER, START_MS, "withdrawn"))
    lanes.run(make_event(pid=DEVICE), claim(DEVICE, USER))
    subjects = lanes.subjects()
    assert subjects[USER].members == []
    assert subjects[DEVICE].erased_at_ms == START_MS
    merged = [each for each in lanes.said(ERASURE_REQUESTED) if each.pid == DEVICE]
    assert {(each.reason, each.subjects == []) for each in merged} == {(MERGED, True)}
    assert len({each.erasure_id for each in merged}) == 1


def test_members_of_who_is_idle_are_erased_for_that(lanes: Together) -> None:
    """An identifier that was idle may come again; of one who asked to be erased, it may not."""
    lanes.run(make_event(pid=DEVICE), claim(DEVICE, USER))
    lanes.run(ErasureRequested(bytes(16), USER, START_MS, IDLE))
    assert [each.reason for each in lanes.said(ERASURE_REQUESTED) if each.pid == DEVICE] == [IDLE]


def test_members_of_who_is_erased_are_erased(lanes: Together) -> None:
    lanes.run(make_event(pid=DEVICE), make_event(pid=MAIL))
    lanes.run(claim(DEVICE, MAIL, rank="email"), claim(MAIL, USER))
    subjects = lanes.run(ErasureRequested(bytes(16), USER, START_MS, "withdrawn")).subjects()
    assert [subjects[pid].erased_at_ms for pid in (USER, MAIL, DEVICE)] == [START_MS] * 3
    linked = {(each.pid, each.root): each.is_linked for each in lanes.said(LINKED)}
    assert not any(linked.values())


def test_erased_member_leaves_its_person_and_nobody_else_goes(lanes: Together) -> None:
    lanes.run(make_event(pid=DEVICE), make_event(pid=USER), claim(DEVICE, USER))
    subjects = lanes.run(ErasureRequested(bytes(16), DEVICE, START_MS, "withdrawn")).subjects()
    assert subjects[DEVICE].erased_at_ms == START_MS
    assert (subjects[USER].erased_at_ms, subjects[USER].members) == (None, [])
    assert lanes.said(MOVED)[-1].substates == []
    lanes.run(claim(DEVICE, USER, 9))
    assert lanes.subjects()[USER].members == []


def test_lanes_tell_each_other_again_when_the_log_was_lost(lanes: Together) -> None:
    """The last that they told may have been lost with it."""
    lanes.run(make_event(pid=DEVICE), decision(USER, "granted"), claim(DEVICE, USER))
    before = lanes.subjects()
    lanes.begin_anew()
    lanes.run()
    assert [each.member for each in lanes.said(MOVED)] == [DEVICE]
    assert [each.pid for each in lanes.said(KIN)] == [DEVICE]
    assert {pid: normal(each) for pid, each in lanes.subjects().items()} == {
        pid: normal(each) for pid, each in before.items()
    }


def normal(subject: Subject) -> object:
    """A whole person, as two that are equal are equal."""
    whole = whole_subject(subject)
    done = sorted(set(unpack(whole.activity)))
    return msgspec.structs.replace(
        whole,
        activity=packed(done),
        traits=sorted(whole.traits, key=lambda each: each.key),
        purchases=sorted(whole.purchases, key=lambda each: (each.occurred_at_ms, each.tie)),
        spent=sorted(whole.spent, key=lambda each: each.currency),
        refunded=sorted(whole.refunded, key=lambda each: each.currency),
    )


def test_whole_is_as_if_all_had_happened_under_one_pid(
    lanes: Together, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [START_MS + at * GAP_MS // 3 for at in (0, 2, 4, 9, 11, 20)]
    events = [
        make_event(
            pid=(USER, DEVICE, MAIL)[at % 3],
            occurred_at_ms=ms,
            clear={"properties": {"campaign_id": "c"}},
        )
        for at, ms in enumerate(times)
    ]
    events += [order(DEVICE, "1", 4, times[3]), order(MAIL, "1", 4, times[2])]
    merged = lanes.run(*events, claim(DEVICE, USER), claim(MAIL, USER)).subjects()[USER]
    alone = (
        Together(monkeypatch)
        .run(*(msgspec.structs.replace(each, pid=USER) for each in events))
        .subjects()[USER]
    )
    found = msgspec.structs.replace(normal(merged), pid=alone.pid)  # type: ignore[type-var]
    assert found == msgspec.structs.replace(normal(alone))  # type: ignore[type-var]
