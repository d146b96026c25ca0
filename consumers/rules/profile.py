"""What is shown of one person, and may it be shown at all?

Profiles are shown to tools for the purpose `personalisation`. Where its legal basis is consent,
unknown means no; where it is a legitimate interest, it is yes until the person objected.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from consumers.rules.rates import Money as Amount
from consumers.rules.rates import list_money, mean
from consumers.rules.times import rfc3339
from schemas.consent import Basis, allowed_now_in_all, decisions_on
from schemas.subjects import Consent, Money, Subject

Json = Any
"""A value of JSON, as orjson reads it."""

PURPOSE = "personalisation"
VISIT_BYTES = 34


def may_be_shown(basis: Basis, decided: Iterable[Sequence[Consent]], at_ms: int) -> bool:
    """True if the decisions of each pid of the person, else the basis, allow it at `at_ms`
    (schemas/consent.py)."""
    on_it = [decisions_on(f"purpose/{PURPOSE}", each) for each in decided]
    return allowed_now_in_all(basis, on_it, at_ms)


def view_profile(
    subject: str, known: Subject, traits: Sequence[tuple[str, Json]]
) -> dict[str, Json]:
    """The answer: `traits` are (name, value), a null value being a trait that was taken back."""
    spent = _by_currency(known.spent)
    return {
        "subject": subject,
        "first_seen": rfc3339(known.first_seen_ms),
        "last_seen": rfc3339(known.last_seen_ms),
        "traits": {name: value for name, value in sorted(traits) if value is not None},
        "computed": {
            "events": known.events,
            "visits": len(known.visits) // VISIT_BYTES,
            "orders": known.orders,
            "refunds": known.refunds,
            "spent": list_money(spent),
            "refunded": list_money(_by_currency(known.refunded)),
            "average_order_value": _average_order(spent, known.orders),
        },
        "segments": sorted(known.segments),
        "consents": [_view_consent(decision) for decision in known.consents],
    }


def _by_currency(sums: Sequence[Money]) -> Mapping[str, int]:
    return {money.currency: money.amount_micro for money in sums}


def _average_order(spent: Mapping[str, int], orders: int) -> list[Amount] | None:
    # How many of the orders were in which currency is not kept.
    if not orders or len(spent) > 1:
        return None
    return list_money({currency: mean(micro, orders) for currency, micro in spent.items()})


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
