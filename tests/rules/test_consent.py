"""The stamp rule: what a person's decisions allow, whatever order they arrive in."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.consent import Basis, allowed_now, allows, decisions_on
from schemas.subjects import Consent

ANALYTICS = "purpose/analytics"
TIMES = st.integers(0, 12)
BASES: tuple[Basis, ...] = ("consent", "legitimate_interest")


def made(
    status: str, valid_from_ms: int, recorded_at_ms: int | None = None, until_ms: int | None = None
) -> Consent:
    recorded = valid_from_ms if recorded_at_ms is None else recorded_at_ms
    return Consent(ANALYTICS, status, valid_from_ms, until_ms, recorded)


def yes(
    valid_from_ms: int, recorded_at_ms: int | None = None, until_ms: int | None = None
) -> Consent:
    return made("granted", valid_from_ms, recorded_at_ms, until_ms)


def no(
    valid_from_ms: int, recorded_at_ms: int | None = None, until_ms: int | None = None
) -> Consent:
    return made("withdrawn", valid_from_ms, recorded_at_ms, until_ms)


CONSENTS = st.builds(
    made,
    st.sampled_from(["granted", "subscribed", "withdrawn", "denied", "unsubscribed", "pending"]),
    TIMES,
    TIMES,
    st.none() | TIMES,
)
HISTORIES = st.lists(CONSENTS, max_size=6)


@pytest.mark.parametrize(
    ("decisions", "occurred", "received", "by_interest", "by_consent"),
    [
        ([], 5, 5, True, False),
        ([yes(1)], 5, 5, True, True),
        ([yes(6)], 5, 7, True, False),
        ([no(1)], 5, 5, False, False),
        # A late withdrawal reaches back to its beginning and no further.
        ([yes(1), no(4, 9)], 5, 5, False, False),
        ([yes(1), no(6, 9)], 5, 5, True, True),
        # Occurred while it was allowed, received after the withdrawal: not used.
        ([yes(1), no(6)], 5, 7, False, False),
        ([no(6)], 5, 7, False, False),
        # Whatever date the withdrawal bears, past or future, it stops what is received after it.
        ([yes(4), no(2, 6)], 5, 5, True, True),
        ([yes(4), no(2, 6)], 7, 7, False, False),
        ([yes(1), no(12, 6)], 7, 7, False, False),
        # Granted again: for what happens from then on, not for what came in between.
        ([yes(1), no(4), yes(8)], 9, 9, True, True),
        ([yes(1), no(4), yes(8)], 5, 9, False, False),
        ([yes(1), no(4), yes(8)], 3, 9, False, False),
        ([yes(1), no(4), yes(8)], 3, 3, True, True),
        ([yes(1), no(4), yes(3, 8)], 9, 9, False, False),  # a grant dated back does not follow
        ([yes(4), no(2, 6), yes(2, 8)], 9, 9, True, True),  # both re-dated to the same day
        # A grant recorded after the event was received releases nothing.
        ([yes(1, 6)], 5, 5, True, False),
        ([yes(1, 5)], 5, 5, True, True),
        # Of equal stamps the refusal counts.
        ([yes(3), no(3)], 5, 5, False, False),
        ([no(3, 4), yes(3, 5)], 6, 6, True, True),
        # What is over is as if never made; what stood before it stands again.
        ([yes(1, until_ms=5)], 4, 4, True, True),
        ([yes(1, until_ms=5)], 5, 5, True, False),
        ([no(1, until_ms=5)], 5, 5, True, False),
        ([no(1), yes(2, until_ms=5)], 4, 4, True, True),
        ([no(1), yes(2, until_ms=5)], 5, 5, False, False),
        ([made("pending", 1)], 5, 5, False, False),
        ([made("unheard-of", 1)], 5, 5, False, False),
        ([made("subscribed", 1), made("unsubscribed", 2)], 5, 5, False, False),
    ],
)
def test_stamps_decide(
    decisions: list[Consent], occurred: int, received: int, by_interest: bool, by_consent: bool
) -> None:
    assert allows("legitimate_interest", decisions, occurred, received) is by_interest
    assert allows("consent", decisions, occurred, received) is by_consent


def as_written(
    basis: Basis, decisions: Sequence[Consent], occurred: int, received: int, late: int = 0
) -> bool:
    """The conditions of the module's docstring, word for word."""
    refused_since = any(
        each.status not in ("granted", "subscribed")
        and each.recorded_at_ms > received
        and each.valid_from_ms <= occurred
        and (each.valid_to_ms is None or occurred < each.valid_to_ms)
        for each in decisions
    )
    grants = [
        each for each in decisions if each.status in ("granted", "subscribed")
        and each.recorded_at_ms <= received + (0 if refused_since else late)
        and each.valid_from_ms <= occurred
        and (each.valid_to_ms is None or occurred < each.valid_to_ms)
    ]  # fmt: skip
    refusals = [
        each for each in decisions if each.status not in ("granted", "subscribed")
        and (each.valid_to_ms is None or occurred < each.valid_to_ms)
    ]  # fmt: skip
    then = sorted(
        [(each.valid_from_ms, each.recorded_at_ms, 0) for each in grants]
        + [
            (each.valid_from_ms, each.recorded_at_ms, 1)
            for each in refusals
            if each.valid_from_ms <= occurred
        ]
    )
    allowed_then = then[-1][2] == 0 if then else basis == "legitimate_interest"
    standing = [
        refusal
        for refusal in refusals
        if refusal.recorded_at_ms <= received
        and not any(
            grant.valid_from_ms >= refusal.valid_from_ms
            and grant.recorded_at_ms >= refusal.recorded_at_ms
            and (grant.valid_from_ms, grant.recorded_at_ms)
            != (refusal.valid_from_ms, refusal.recorded_at_ms)
            for grant in grants
        )
    ]
    return allowed_then and not standing


@given(st.sampled_from(BASES), HISTORIES, TIMES, TIMES, st.sampled_from([0, 0, 1, 3, 20]))
def test_rule_is_what_its_docstring_says(
    basis: Basis, decisions: list[Consent], occurred: int, received: int, late: int
) -> None:
    expected = as_written(basis, decisions, occurred, received, late)
    assert allows(basis, decisions, occurred, received, late) is expected


@given(st.sampled_from(BASES), HISTORIES, TIMES, TIMES, st.randoms(use_true_random=False))
def test_set_of_decisions_decides_not_their_order_or_repetition(
    basis: Basis, decisions: list[Consent], occurred: int, received: int, rng: random.Random
) -> None:
    shuffled = decisions + decisions[:2]
    rng.shuffle(shuffled)
    assert allows(basis, shuffled, occurred, received) is allows(
        basis, decisions, occurred, received
    )


@given(st.sampled_from(BASES), HISTORIES, TIMES, TIMES, TIMES, TIMES)
def test_withdrawal_lets_nothing_through_that_was_received_after_it(
    basis: Basis, before: list[Consent], began: int, recorded: int, occurred: int, waited: int
) -> None:
    earlier = [each for each in before if each.recorded_at_ms < recorded]
    assert not allows(basis, [*earlier, no(began, recorded)], occurred, recorded + waited)


@given(st.sampled_from(BASES), HISTORIES, CONSENTS, TIMES, TIMES, TIMES)
def test_refusal_never_allows_more_and_grant_never_less(
    basis: Basis, decisions: list[Consent], new: Consent, occurred: int, received: int, late: int
) -> None:
    before = allows(basis, decisions, occurred, received, late)
    after = allows(basis, [*decisions, new], occurred, received, late)
    if new.status in ("granted", "subscribed"):
        assert after >= before
    else:
        assert after <= before


@given(st.sampled_from(BASES), HISTORIES, TIMES, TIMES, TIMES, TIMES, TIMES)
def test_grant_recorded_later_than_the_limit_releases_nothing(
    basis: Basis,
    decisions: list[Consent],
    began: int,
    after: int,
    occurred: int,
    received: int,
    late: int,
) -> None:
    later = [*decisions, yes(began, received + late + 1 + after)]
    assert allows(basis, later, occurred, received, late) is allows(
        basis, decisions, occurred, received, late
    )


@given(st.sampled_from(BASES), HISTORIES, TIMES, TIMES, TIMES)
def test_what_was_taken_back_is_never_allowed_again_as_decisions_come_in(
    basis: Basis, decisions: list[Consent], occurred: int, received: int, late: int
) -> None:
    """In the order of their recording: so what a sink took back stays taken back."""
    recorded = sorted(decisions, key=lambda each: each.recorded_at_ms)
    known = sum(each.recorded_at_ms <= received for each in recorded)
    course = [
        allows(basis, recorded[:count], occurred, received, late)
        for count in range(known, len(recorded) + 1)
    ]
    was_counted = course.index(True) if True in course else len(course)
    assert course == sorted(course[:was_counted]) + sorted(course[was_counted:], reverse=True)


@pytest.mark.parametrize(
    ("decisions", "is_released"),
    [
        ([yes(5, 8)], True),
        ([yes(5, 9)], False),  # too late
        ([yes(6, 8)], False),  # from after the event
        ([no(1), yes(5, 8)], True),  # granted again
        ([no(1), yes(5, 8), no(6, 9)], True),  # withdrawn from then on
        ([no(1), yes(5, 8), no(4, 9)], False),  # taken back
        ([no(2, 6), yes(5, 8)], False),  # refused since it was received
        ([no(2, 6, until_ms=4), yes(5, 8)], True),  # of that nothing was left
    ],
)
def test_late_grant_releases_unless_refused_since(
    decisions: list[Consent], is_released: bool
) -> None:
    assert allows("consent", decisions, 5, 5, late_grant_ms=3) is is_released
    assert not allows("consent", decisions, 5, 5)


def test_thousand_changes_of_mind_of_one_person() -> None:
    decisions = [(yes if at % 2 else no)(at) for at in range(1_000)]
    assert allows("consent", decisions, 999, 999)
    assert not allows("consent", decisions, 998, 998)
    assert allows("consent", [*decisions, yes(1_000)], 2_000, 2_000)
    assert not allows("legitimate_interest", [*decisions, no(1_000)], 2_000, 2_000)


def test_use_now_knows_all_that_is_known() -> None:
    assert allowed_now("consent", [yes(1)], 5)
    assert allowed_now("consent", [yes(1, 6)], 5), "recorded by a clock ahead of ours"
    assert not allowed_now("consent", [yes(6)], 5), "not begun"
    assert not allowed_now("legitimate_interest", [no(6)], 5), "a refusal to come"
    assert not allowed_now("legitimate_interest", [no(1, 6)], 5)
    assert allowed_now("legitimate_interest", [], 5)
    assert not allowed_now("consent", [], 5)


def test_decisions_on_one_purpose_only() -> None:
    other = Consent("email/newsletter", "unsubscribed", 1, None, 1)
    assert decisions_on(ANALYTICS, [yes(1), other, no(2)]) == [yes(1), no(2)]
