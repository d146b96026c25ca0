"""Do identifiers make the same persons, whatever order their claims are met in?"""

import random
from collections.abc import Mapping, Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.identities_api import low_and_high
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
NAMES: Sequence[Identifier] = [
    (kind, value) for kind, value in zip(TYPES, ("9", "10", "a", *"efghij"), strict=True)
]
"""In no order of the pids."""
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
            [(NAMES[n], PIDS[n]) for n in named], at_ms, number.to_bytes(16, "big"), cause
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
    found = claims_of([(NAMES[n], PIDS[n]) for n in listed], 7, EVENT, "identify")
    # Of users the greatest number, then the shortest name: 10, 9, a; of devices the last: j to g.
    top = next(n for n in (1, 0, 2, 3, 4, 8, 7, 6, 5) if n in named)
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


Call = tuple[str, dict[IdType, str], str | None]


def made_of(calls: Sequence[Call], chance: random.Random) -> set[frozenset[str]]:
    """The persons of these calls, in the order in which they happened, in a house of its own, whose
    pids are as random as any."""
    pids: dict[Identifier, bytes] = {}
    claims = []
    for at_ms, (kind, ids, previous) in enumerate(calls):
        named = [
            (one, pids.setdefault(one, chance.randbytes(16)))
            for one in one_person_of(kind, ids, previous)
        ]
        claims += claims_of(named, at_ms, at_ms.to_bytes(16, "big"), kind) if named else []
    chance.shuffle(claims)
    found: dict[bytes, set[str]] = {}
    roots = people(bonds_of(claims), *pids.values())
    for (id_type, value), pid in pids.items():
        found.setdefault(roots[pid][0], set()).add(f"{id_type}:{value}")
    return {frozenset(person) for person in found.values()}


def a_call(kind: str, previous: str | None = None, **ids: str) -> Call:
    return kind, cast("dict[IdType, str]", ids), previous


UUID = "5f0c3a9e-7c1d-4b0e-9d52-0a8e6f1b2c3d"


@pytest.mark.parametrize(
    ("calls", "persons"),
    [
        # Two customers who share a telephone.
        (
            [
                a_call("identify", anonymous="a1", email="e1@x.y", phone="+1"),
                a_call("identify", anonymous="a2", email="e2@x.y", phone="+1"),
            ],
            ["anonymous:a1 email:e1@x.y phone:+1", "anonymous:a2 email:e2@x.y"],
        ),
        # Two who share a device, as a server tells it, which names the device alone.
        (
            [a_call("alias", UUID, user="42"), a_call("alias", UUID, user="7")],
            [f"anonymous:{UUID} user:{UUID} user:42", "user:7"],
        ),
        # A visitor, then a customer, then another number of theirs.
        (
            [a_call("alias", UUID, user="42"), a_call("alias", "42", user="43")],
            [f"anonymous:{UUID} anonymous:42 user:{UUID} user:42 user:43"],
        ),
        # One who changes their number again and again, and is told of it in any order.
        (
            [a_call("alias", "10", user="11"), a_call("alias", "9", user="10")],
            ["anonymous:10 anonymous:9 user:10 user:11 user:9"],
        ),
        # Each other's, and one's own.
        (
            [
                a_call("alias", "2", user="1"),
                a_call("alias", "1", user="2"),
                a_call("alias", "1", user="1"),
            ],
            ["anonymous:1 anonymous:2 user:1 user:2"],
        ),
    ],
)
def test_the_same_calls_make_the_same_persons_in_every_house(
    calls: Sequence[Call], persons: Sequence[str]
) -> None:
    expected = {frozenset(person.split()) for person in persons}
    for seed in range(30):
        assert made_of(calls, random.Random(seed)) == expected


one_of = st.sampled_from(("1", "2", "10", "ab"))
any_calls = st.lists(
    st.builds(
        lambda kind, ids, previous: (kind, ids, previous),
        st.sampled_from(("identify", "alias")),
        st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("user", "anonymous", "email", "phone"), one_of)
        ),
        st.none() | one_of,
    ),
    max_size=10,
)


@given(any_calls, st.integers(0, 2**32))
def test_persons_are_a_function_of_the_calls_alone(calls: list[Call], seed: int) -> None:
    chance = random.Random(seed)
    assert made_of(calls, chance) == made_of(calls, chance)


def test_a_decision_by_hand_goes_the_way_in_which_two_were_claimed() -> None:
    number, name = b"n" * 16, b"a" * 16
    ids: dict[bytes, Identifier] = {name: ("user", "ada"), number: ("user", "42")}
    nothing = {number: Bonds(), name: Bonds()}
    assert low_and_high(ids, nothing) == (name, number)
    assert low_and_high(ids, nothing | {name: _claimed_by(number)}) == (name, number)
    # As pids decided it before ADR 0035.
    assert low_and_high(ids, nothing | {number: _claimed_by(name)}) == (number, name)


def _claimed_by(pid: bytes) -> Bonds:
    return Bonds([Claim(pid, 3, 1, EVENT, "alias")])


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
