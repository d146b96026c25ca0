"""Did this person allow that, then and now?

One rule for the lane that admits, the sink that takes back and everything that shows or sends. Its
source are two sentences of the design: an event is used if its person allowed it *as of its time*
(occurred_at), and if no withdrawal was *recorded before it was received*. Decisions reach us in any
order, so it reads their stamps and never their order of arrival: the set of decisions decides.

A decision is a yes (granted, subscribed) or a refusal (anything else: denied, withdrawn,
unsubscribed, pending, and words we do not know). It holds from valid_from until before valid_to; a
decision that is over at a time is, for that time, as if it had never been made. A grant counts for
an event only if it was recorded by the time that the event was received, or *late*: see below.

An event is allowed if both hold:

1. *Then.* Of the decisions that hold at occurred_at, the newest by (valid_from, recorded_at, a
   refusal after a grant) is a grant; or there is none, and the legal basis is a legitimate interest
   (GDPR Art. 6(1)(f): yes until objected; for consent, Art. 6(1)(a), unknown means no).
2. *Not refused since.* Every refusal that was recorded by received_at and is not over at
   occurred_at is followed by a grant that holds at occurred_at: one that neither begins nor was
   recorded earlier than the refusal, and does one of the two later.

So a withdrawal stops what is received after it was recorded, whatever date it or the event bears,
until the person grants again; and that grant is for events from its valid_from on, never for those
that were received while the withdrawal stood. A withdrawal that arrives late with an early
valid_from makes events disallowed that were allowed: they are retracted. More refusals never allow
more, more grants never allow less.

A decision races its own event, and may lose. So a grant counts too if it was recorded up to
`late_grant_ms` after the event was received (ADR 0013), but only while no refusal that holds at
occurred_at was recorded since: what a refusal took back once, no later grant counts again.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from schemas.subjects import Consent

Basis = Literal["consent", "legitimate_interest"]

_YES = frozenset({"granted", "subscribed"})


def is_grant(decision: Consent) -> bool:
    """True for a yes; a word that we do not know is a refusal."""
    return decision.status in _YES


def decisions_on(subject_of: str, consents: Iterable[Consent]) -> list[Consent]:
    """Those on one purpose ('purpose/analytics') or one subscription ('email/newsletter')."""
    return [decision for decision in consents if decision.subject_of == subject_of]


def allows(
    basis: Basis,
    decisions: Sequence[Consent],
    occurred_at_ms: int,
    received_at_ms: int,
    late_grant_ms: int = 0,
) -> bool:
    """True if an event of these times may be used for the one purpose that `decisions` are on."""
    if _allows(basis, decisions, occurred_at_ms, received_at_ms, received_at_ms):
        return True
    if not late_grant_ms or any(
        decision.recorded_at_ms > received_at_ms
        and decision.status not in _YES
        and _holds(decision, occurred_at_ms)
        for decision in decisions
    ):
        return False
    grants_until_ms = received_at_ms + late_grant_ms
    return _allows(basis, decisions, occurred_at_ms, received_at_ms, grants_until_ms)


def allowed_now(basis: Basis, decisions: Sequence[Consent], now_ms: int) -> bool:
    """True if the purpose or subscription that `decisions` are on is allowed at `now_ms`.

    For showing, exporting and sending. What we know of is recorded, also where the clock that
    recorded it is ahead of ours; and a refusal that begins in the future counts already.
    """
    return _allows(basis, decisions, now_ms, None, None)


def allows_in_all(
    basis: Basis,
    groups: Iterable[Sequence[Consent]],
    occurred_at_ms: int,
    received_at_ms: int,
    late_grant_ms: int = 0,
) -> bool:
    """As `allows`, of a person whose decisions on the purpose were made under several pids.

    `groups` are each pid's decisions on it. The stricter wins: no group refuses, and where unknown
    means no, one of them grants. More refusals never allow more, more grants never less.
    """
    times = (occurred_at_ms, received_at_ms, late_grant_ms)
    decided = [group for group in groups if group]
    if len(decided) <= 1:
        return allows(basis, decided[0] if decided else (), *times)
    if not all(allows("legitimate_interest", group, *times) for group in decided):
        return False
    return basis != "consent" or any(allows(basis, group, *times) for group in decided)


def allowed_now_in_all(basis: Basis, groups: Iterable[Sequence[Consent]], now_ms: int) -> bool:
    """As `allowed_now`, of decisions that were made under several pids, each pid's a group."""
    decided = [group for group in groups if group]
    if len(decided) <= 1:
        return allowed_now(basis, decided[0] if decided else (), now_ms)
    if not all(allowed_now("legitimate_interest", group, now_ms) for group in decided):
        return False
    return basis != "consent" or any(allowed_now(basis, group, now_ms) for group in decided)


def _holds(decision: Consent, at_ms: int) -> bool:
    until_ms = decision.valid_to_ms
    return decision.valid_from_ms <= at_ms and (until_ms is None or at_ms < until_ms)


def _allows(
    basis: Basis,
    decisions: Sequence[Consent],
    occurred_at_ms: int,
    refusals_until_ms: int | None,
    grants_until_ms: int | None,
) -> bool:
    """Both conditions, with what was recorded by those times; None: with all of it."""
    grants: list[_Stamps] = []
    refusals: list[_Stamps] = []
    newest, newest_is_refusal = _NEVER, basis != "legitimate_interest"
    for decision in decisions:
        until_ms = decision.valid_to_ms
        if until_ms is not None and until_ms <= occurred_at_ms:
            continue
        stamps = (decision.valid_from_ms, decision.recorded_at_ms)
        has_begun = stamps[0] <= occurred_at_ms
        if decision.status not in _YES:
            if refusals_until_ms is None or stamps[1] <= refusals_until_ms:
                refusals.append(stamps)
            if has_begun and stamps >= newest:
                newest, newest_is_refusal = stamps, True
        elif has_begun and (grants_until_ms is None or stamps[1] <= grants_until_ms):
            grants.append(stamps)
            if stamps > newest:
                newest, newest_is_refusal = stamps, False
    if newest_is_refusal:
        return False
    if not refusals:
        return True
    # Of a person who changed their mind often, the newest grant follows nearly every refusal.
    last = max(grants, default=_NEVER)
    return all(
        _follows(last, refusal) or any(_follows(grant, refusal) for grant in grants)
        for refusal in refusals
    )


_Stamps = tuple[int, int]
_NEVER: _Stamps = (-(1 << 63), -(1 << 63))


def _follows(grant: _Stamps, refusal: _Stamps) -> bool:
    return grant[0] >= refusal[0] and grant[1] >= refusal[1] and grant != refusal
