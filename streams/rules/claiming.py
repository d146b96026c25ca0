"""Which claims can be used, and which must a person see?

Refused claims are shown where they were refused among equals: two who are known both name one
device, or an e-mail address that somebody has already. That somebody known counts before an address
is no dispute, and is not shown.
"""

from schemas.identity import CAUSES, RANK, Claim, refused, standing
from schemas.moves import Claimed
from streams.rules.outcomes import Refused
from streams.rules.validate import LATEST_MS

_RANKS = frozenset(RANK.values())

TAKEN = Refused(
    "$.claimant",
    "identifier_taken",
    "expected an identifier that is nobody else's; whose it is was said before, and stays. Link it "
    "by hand if that was wrong",
)


def check_claim(claimed: Claimed) -> Claim | Refused:
    """The claim that a record makes, or why it makes none."""
    if claimed.claimant == claimed.pid:
        return Refused("$.claimant", "claims_itself", "expected another pid than that claimed")
    if claimed.rank not in _RANKS:
        return Refused("$.rank", "unknown_rank", f"expected one of {sorted(_RANKS)}")
    if claimed.cause not in CAUSES:
        return Refused("$.cause", "unknown_cause", f"expected one of {sorted(CAUSES)}")
    if not 0 <= claimed.occurred_at_ms < LATEST_MS:
        return Refused("$.occurred_at_ms", "time_out_of_range", "expected a time from 1970 to 2099")
    return Claim(
        claimed.claimant, claimed.rank, claimed.occurred_at_ms, claimed.event_id, claimed.cause
    )


def newly_taken(before: list[Claim], after: list[Claim]) -> list[Claim]:
    """The claims that are in dispute with an equal since: each is to be shown once."""
    stands = standing(after)
    if stands is None:
        return []
    known = {each.claimant for each in refused(before)}
    disputed = [each for each in refused(after) if each.rank >= stands.rank]
    return [each for each in disputed if each.claimant not in known]
