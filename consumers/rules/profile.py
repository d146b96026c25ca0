"""What is shown of one person, and may it be shown at all?

Profiles are shown to tools for the purpose `personalisation`. Where its legal basis is consent,
unknown means no; where it is a legitimate interest, it is yes until the person objected.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from consumers.rules.computed import view_computed
from consumers.rules.times import rfc3339
from schemas.consent import Basis, allowed_now_in_all, decisions_on
from schemas.subjects import Consent, Subject
from schemas.traits import Computed

Json = Any
"""A value of JSON, as orjson reads it."""

PURPOSE = "personalisation"


def may_be_shown(basis: Basis, decided: Iterable[Sequence[Consent]], at_ms: int) -> bool:
    """True if the decisions of each pid of the person, else the basis, allow it at `at_ms`
    (schemas/consent.py)."""
    on_it = [decisions_on(f"purpose/{PURPOSE}", each) for each in decided]
    return allowed_now_in_all(basis, on_it, at_ms)


def view_profile(
    subject: str, known: Subject, traits: Sequence[tuple[str, Json]], computed: Computed
) -> dict[str, Json]:
    """The answer: `traits` are (name, value), a null value being a trait that was taken back."""
    return {
        "subject": subject,
        "first_seen": rfc3339(known.first_seen_ms),
        "last_seen": rfc3339(known.last_seen_ms),
        "traits": {name: value for name, value in sorted(traits) if value is not None},
        "computed": view_computed(known, computed),
        "segments": sorted(known.segments),
        "consents": [_view_consent(decision) for decision in known.consents],
    }


def _view_consent(decision: Consent) -> dict[str, Json]:
    kind, _, name = decision.subject_of.partition("/")
    of = {"purpose": name} if kind == "purpose" else {"channel": kind, "topic": name}
    valid_to = None if decision.valid_to_ms is None else rfc3339(decision.valid_to_ms)
    return {
        **of,
        "status": decision.status,
        "valid_from": rfc3339(decision.valid_from_ms),
        "valid_to": valid_to,
        "recorded_at": rfc3339(decision.recorded_at_ms),
    }
