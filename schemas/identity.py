"""Which identifiers belong to one person, and whose word counts when two persons claim one?

Each identifier has a pid of its own (runtime/vault.py). A *claim* says, by a call that named both,
that the identifier of one pid, the lower in rank, is the claimant's. Claims arrive in any order and
more than once, so they are decided by their stamps and never by their order: the same set of claims
gives the same persons (ADR 0018). Of the claims on a pid one *stands*, or none:

1. A claim by somebody known counts before one by an e-mail address or a telephone number.
2. Of equals the first by (occurred_at, event_id): whoever used a shared device first keeps what it
   did unnamed, and nobody else is merged with them by it. Other claims are refused, and shown.
3. What a person revoked by hand stays revoked, whatever calls say later, until it is linked by
   hand again.

A claimant may be claimed in turn (a telephone number by a user, a user by another through `alias`):
following the standing claims upwards ends at the *root*, which stands for the whole person. A claim
goes only to a strictly higher identifier (`height`), so there are no circles.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

RANK: Mapping[str, int] = MappingProxyType({"anonymous": 1, "phone": 2, "email": 2, "user": 3})
"""Of an identifier's type: whose claim counts first, by rule 1."""

_HEIGHTS: Mapping[str, int] = MappingProxyType({"anonymous": 0, "phone": 1, "email": 2, "user": 3})

Cause = Literal["identify", "alias", "linked", "revoked"]
"""By a call of a source, or by hand at the privacy desk."""

CAUSES = frozenset({"identify", "alias", "linked", "revoked"})
_BY_HAND = frozenset({"linked", "revoked"})


class Claim(msgspec.Struct, frozen=True, gc=False):
    """One word on who owns the identifier of a pid.

    `rank` is RANK of the claimant's identifier; `occurred_at_ms` and `event_id` are of the call, or
    of the decision made by hand.
    """

    claimant: bytes
    rank: int
    occurred_at_ms: int
    event_id: bytes
    cause: str


def height(id_type: str, value: str) -> tuple[int, bool, int, str]:
    """The higher of two identifiers stands for both, were they one person; a total order.

    By the identifiers alone: pids are random, the same calls would make other persons elsewhere.
    Known over address over telephone over device; of two of a kind a number over a name, the
    greater number, the shorter name: customers' numbers grow, devices have long names (ADR 0035).
    """
    is_number = value.isascii() and value.isdigit()
    return _HEIGHTS[id_type], is_number, len(value) if is_number else -len(value), value


def with_claim(claims: Iterable[Claim], claim: Claim) -> list[Claim]:
    """`claims` and `claim`, as few as say the same, sorted: for any order of the same claims equal.

    Of each claimant the first call and the newest decision by hand are kept: no other matters.
    """
    kept: dict[tuple[bytes, bool], Claim] = {}
    for each in (*claims, claim):
        by_hand = each.cause in _BY_HAND
        key = (each.claimant, by_hand)
        known = kept.get(key)
        if known is None or (_stamp(each) > _stamp(known)) == by_hand:
            kept[key] = each
    return sorted(kept.values(), key=_sort_key)


def standing(claims: Iterable[Claim]) -> Claim | None:
    """The claim that counts; None if there is none. `claims` are those of one pid."""
    calls: dict[bytes, Claim] = {}
    decided: dict[bytes, Claim] = {}
    for claim in claims:
        if claim.cause in _BY_HAND:
            known = decided.get(claim.claimant)
            if known is None or _stamp(claim) > _stamp(known):
                decided[claim.claimant] = claim
        else:
            first = calls.get(claim.claimant)
            if first is None or _stamp(claim) < _stamp(first):
                calls[claim.claimant] = claim
    by_hand = [each for each in decided.values() if each.cause == "linked"]
    if by_hand:
        # Somebody looked: the newest decision counts before every call.
        return max(by_hand, key=_stamp)
    allowed = [each for each in calls.values() if each.claimant not in decided]
    return min(allowed, key=lambda each: (-each.rank, *_stamp(each)), default=None)


def refused(claims: Iterable[Claim]) -> list[Claim]:
    """The calls whose claim does not stand although nobody revoked it: what a person shall see."""
    claims = list(claims)
    stands = standing(claims)
    if stands is None:
        return []
    revoked = {each.claimant for each in claims if each.cause == "revoked"}
    return [
        each
        for each in claims
        if each.cause not in _BY_HAND
        and each.claimant != stands.claimant
        and each.claimant not in revoked
    ]


def weightiest(claims: list[Claim], most: int) -> list[Claim]:
    """All of `claims`, or the `most` that would stand first: the same for any order of claiming."""
    if len(claims) <= most:
        return claims
    ranked = sorted(
        claims, key=lambda each: (each.cause not in _BY_HAND, -each.rank, *_stamp(each))
    )
    return sorted(ranked[:most], key=_sort_key)


def decided_at_ms(claims: Iterable[Claim], now_ms: int) -> int:
    """The time that a decision by hand bears: after every earlier one on its pid, whose `claims`
    these are. Of two machines one clock is behind, and that of a demo stands still."""
    by_hand = (each.occurred_at_ms + 1 for each in claims if each.cause in _BY_HAND)
    return max(now_ms, *by_hand, 0)


def _stamp(claim: Claim) -> tuple[int, bytes, bytes, str]:
    # Of two decisions under one id the revocation is the later.
    return claim.occurred_at_ms, claim.event_id, claim.claimant, claim.cause


def _sort_key(claim: Claim) -> tuple[bytes, str, int, bytes]:
    return claim.claimant, claim.cause, claim.occurred_at_ms, claim.event_id
