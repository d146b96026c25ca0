"""Do identifiers make the same persons, whatever order their claims are met in?"""

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.rules.call_fields import IdType
from producers.rules.claims import Identifier, claims_of, one_person_of
from runtime import kin
from runtime.kin import Bonds, Walk
from schemas.consent import allowed_now, allowed_now_in_all
from schemas.errors import StoreRefused
from schemas.identifiers import email_of, phone_of, spelled_email
from schemas.identity import RANK, Claim, standing, with_claim
from schemas.subjects import Consent

TYPES: Sequence[IdType] = (
    *("user", "user", "user", "email", "phone"),
    *("anonymous", "anonymous", "anonymous", "anonymous"),
)
PIDS = [bytes([number]) * 16 for number in range(len(TYPES))]
EVENT = b"e" * 16


def bonds_of(claims: Sequence[tuple[bytes, Claim]]) -> Mapping[bytes, Bonds]:
    """What the vault knows once these came, in this order."""
    on: dict[bytes, list[Claim]] = {}
    claimed: dict[bytes, set[bytes]] = {}
    for pid, claim in claims:
        on[pid] = with_claim(on.get(pid, ()), claim)
        claimed.setdefault(claim.claimant, set()).add(pid)
    return {
        pid: Bonds(on.get(pid, ()), frozenset(claimed.get(pid, ())))
        for pid in on.keys() | claimed.keys()
    }


def people(known: Mapping[bytes, Bonds], *pids: bytes) -> dict[bytes, tuple[bytes, ...]]:
    """As runtime.kin.Kin reads them, step by step."""
    walk = Walk(pids)
    while wanted := walk.wanted:
        walk.note({pid: known.get(pid, Bonds()) for pid in wanted})
    return walk.people()


numbers = st.integers(0, len(PIDS) - 1)
calls = st.lists(
    st.tuples(
        st.lists(numbers, min_size=2, max_size=3, unique=True),
        st.integers(0, 3),
        st.sampled_from(("identify", "identify", "alias", "linked", "revoked")),
    ),
    max_size=12,
)


@given(calls, st.randoms(use_true_random=False))
def test_any_order_of_the_same_claims_gives_the_same_persons(
    said: list[tuple[list[int], int, str]], chance: st.DataObject
) -> None:
    claims = [
        found
        for number, (named, at_ms, cause) in enumerate(said)
        for found in claims_of(
            [(TYPES[n], PIDS[n]) for n in named], at_ms, number.to_bytes(16, "big"), cause
        )
    ]
    again = [*claims, *claims[:3]]
    chance.shuffle(again)  # type: ignore[attr-defined]
    known = bonds_of(claims)
    found = people(bonds_of(again), *PIDS)
    for pid in PIDS:
        # From one pid alone the walk finds what it finds from all, and what the claims say.
        assert people(known, pid)[pid] == found[pid]
        root = found[pid][0]
        up = pid
        while stands := standing(known.get(up, Bonds()).claims):
            up = stands.claimant
        assert up == root and pid in found[pid]
        assert all(found[each] == found[pid] for each in found[pid])


def test_a_second_user_of_a_device_is_another_person() -> None:
    device, first, second = PIDS[5], PIDS[1], PIDS[0]
    known = bonds_of(
        [(device, Claim(user, 3, at, EVENT, "identify")) for user, at in ((first, 1), (second, 2))]
    )
    assert people(known, device) == {device: (first, device)}
    assert people(known, second) == {second: (second,)}


def test_a_person_without_end_is_refused_and_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kin, "MOST_PIDS", 3)
    claims = [(pid, Claim(PIDS[0], 3, 1, EVENT, "identify")) for pid in PIDS[1:4]]
    assert people(bonds_of(claims[:2]), PIDS[2])[PIDS[2]] == (PIDS[0], PIDS[1], PIDS[2])
    with pytest.raises(StoreRefused, match="cannot be treated as one"):
        people(bonds_of(claims), PIDS[2])


# -- what calls say


@pytest.mark.parametrize(
    ("kind", "ids", "previous", "expected"),
    [
        ("identify", {"user": "u", "anonymous": "a"}, None, (("user", "u"), ("anonymous", "a"))),
        ("identify", {"user": "u"}, None, ()),
        ("track", {"user": "u", "anonymous": "a"}, None, ()),
        ("group", {"user": "u", "anonymous": "a"}, None, ()),
        ("alias", {"user": "u"}, "p", (("user", "u"), ("anonymous", "p"), ("user", "p"))),
        # The call itself says that the previous one is anonymous.
        ("alias", {"user": "u", "anonymous": "p"}, "p", (("user", "u"), ("anonymous", "p"))),
        ("alias", {"user": "u", "anonymous": "a"}, None, ()),
        ("alias", {"anonymous": "a"}, "p", ()),
    ],
)
def test_only_identify_and_alias_claim(
    kind: str, ids: dict[IdType, str], previous: str | None, expected: tuple[Identifier, ...]
) -> None:
    assert one_person_of(kind, ids, previous) == expected


@given(st.lists(numbers, min_size=1, max_size=5, unique=True), st.data())
def test_the_highest_claims_all_others_however_the_call_lists_them(
    named: list[int], data: st.DataObject
) -> None:
    listed = data.draw(st.permutations(named))
    found = claims_of([(TYPES[n], PIDS[n]) for n in listed], 7, EVENT, "identify")
    top = min(named, key=lambda n: (-RANK[TYPES[n]], PIDS[n]))
    assert {pid for pid, _ in found} == {PIDS[n] for n in named if n != top}
    assert all(
        claim == Claim(PIDS[top], RANK[TYPES[top]], 7, EVENT, "identify") for _, claim in found
    )


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("+420 123-456 789", "+420123456789"),
        ("00420 123 456 789", "+420123456789"),
        ("+44 (0)20 7946 0958", "+442079460958"),
        ("(020) 7946.0958", "02079460958"),
        ("call me", None),
        ("1234", None),
        ("+1234567890123456", None),
        ("١٢٣٤٥٦٧٨٩", None),
    ],
)
def test_a_number_has_one_spelling(written: str, number: str | None) -> None:
    assert phone_of(written) == number


@pytest.mark.parametrize(
    ("written", "address"),
    [
        (" Ada@Example.org\n", "ada@example.org"),
        ("zoe\u0308@example.org", "zo\u00eb@example.org"),
        ("ZO\u00cb@EXAMPLE.ORG", "zo\u00eb@example.org"),
        ('"a b@c"@example.org', '"a b@c"@example.org'),
        ("root@localhost", "root@localhost"),
        ("none", None),
        ("n/a", None),
        ("@example.org", None),
        ("ada@", None),
        ("@", None),
        ("", None),
    ],
)
def test_a_mailbox_has_one_spelling(written: str, address: str | None) -> None:
    assert email_of(written) == address


@given(st.text())
def test_a_spelling_stays_what_it_is(written: str) -> None:
    assert spelled_email(spelled_email(written)) == spelled_email(written)


# -- what all of a person's pids decided


def decision(status: str, from_ms: int = 1, to_ms: int | None = None) -> Consent:
    return Consent("purpose/sale", status, from_ms, to_ms, from_ms)


decided = st.lists(
    st.builds(
        decision,
        st.sampled_from(("granted", "withdrawn")),
        st.integers(1, 20),
        st.none() | st.integers(21, 40),
    ),
    max_size=3,
)


@given(
    st.lists(decided, min_size=1, max_size=4), st.sampled_from(("consent", "legitimate_interest"))
)
def test_one_pid_that_refuses_is_enough(of_pids: list[list[Consent]], basis: str) -> None:
    allowed = allowed_now_in_all(basis, of_pids, 10)  # type: ignore[arg-type]
    speaking = [each for each in of_pids if each]
    if allowed:
        assert not any(not allowed_now("legitimate_interest", each, 10) for each in speaking), (
            "somebody refused"
        )
    if len(of_pids) == 1:
        assert allowed == allowed_now(basis, of_pids[0], 10)  # type: ignore[arg-type]
    refusal = [decision("withdrawn", 30)]
    assert not allowed_now_in_all(basis, [*of_pids, refusal], 10)  # type: ignore[arg-type]


def test_a_pid_of_which_nothing_holds_any_more_says_nothing() -> None:
    yes, over, later = decision("granted"), decision("granted", 1, 5), decision("granted", 50)
    assert allowed_now_in_all("consent", [[yes], [], [over], [later]], 10)
    assert not allowed_now_in_all("consent", [[], [over]], 10)
    assert allowed_now_in_all("legitimate_interest", [[], [over]], 10)
