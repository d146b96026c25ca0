"""How is it told who a person is known as, and by whose word?"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from consumers.rules.export_view import rfc3339_or_number
from schemas.identity import Claim, refused, standing

Json = dict[str, Any]

Name = tuple[str, str]
"""Type and value of an identifier."""

GONE = "erased"
"""Stands where the other identifier is nobody's any more."""


def view_identity(
    subject: str,
    pids: Sequence[bytes],
    claims: Mapping[bytes, Sequence[Claim]],
    names: Mapping[bytes, Name],
) -> Json:
    """`pids` are the person's, the root first; `claims` those on each of them and on each other pid
    that one of them claimed; `names` of all that are named there."""
    person = set(pids)
    known = [(pid, names[pid]) for pid in pids if pid in names]
    return {
        "subject": subject,
        "stands_for": _name(pids[0], names),
        "identifiers": [
            {"type": id_type, "value": value, "claimed_by": _claimed_by(claims.get(pid, ()), names)}
            for pid, (id_type, value) in known
        ],
        "standing": [
            seen(pid, claim, names)
            for pid in pids
            if (claim := standing(claims.get(pid, ()))) is not None
        ],
        "refused": [
            seen(pid, claim, names) for pid, claim in _refused(claims) if _is_of(pid, claim, person)
        ],
        "revoked": [
            seen(pid, claim, names)
            for pid, found in claims.items()
            for claim in found
            if claim.cause == "revoked" and _is_of(pid, claim, person)
        ],
    }


def seen(pid: bytes, claim: Claim, names: Mapping[bytes, Name], unnamed: str = GONE) -> Json:
    """One claim on `pid`; `unnamed` stands for whoever is not in `names`."""
    return {
        "identifier": _name(pid, names, unnamed),
        "of": _name(claim.claimant, names, unnamed),
        "cause": claim.cause,
        "at": rfc3339_or_number(claim.occurred_at_ms),
        "event_id": claim.event_id.hex(),
    }


def _refused(claims: Mapping[bytes, Sequence[Claim]]) -> Iterator[tuple[bytes, Claim]]:
    for pid, found in claims.items():
        yield from ((pid, claim) for claim in refused(found))


def _is_of(pid: bytes, claim: Claim, person: Iterable[bytes]) -> bool:
    """True if it is on or by one of the person's pids."""
    return pid in person or claim.claimant in person


def _claimed_by(claims: Sequence[Claim], names: Mapping[bytes, Name]) -> str | None:
    found = standing(claims)
    return None if found is None else _name(found.claimant, names)


def _name(pid: bytes, names: Mapping[bytes, Name], unnamed: str = GONE) -> str:
    return ":".join(names[pid]) if pid in names else unnamed
