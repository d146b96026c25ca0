"""How is what a person's events add up to shown?

`schemas/traits.py` finds it, in whole millionths and UTC ms; here it becomes what a tool reads.
"""

from typing import Any

from consumers.rules.rates import list_money, mean
from schemas.circumstances import NAMES
from schemas.persons import VISIT
from schemas.subjects import Subject
from schemas.traits import Computed, Counts, Scores

Json = Any
"""A value of JSON."""


def view_computed(known: Subject, computed: Computed) -> dict[str, Json]:
    """The profile's `computed`: what is not known is null."""
    newest = {each.name: each.value for each in known.circumstances}
    paid = computed.paid
    return {
        "events": known.events,
        "visits": len(known.visits) // VISIT.size,
        "orders": known.orders,
        "refunds": known.refunds,
        "spent": list_money({each.currency: each.amount_micro for each in known.spent}),
        "refunded": list_money({each.currency: each.amount_micro for each in known.refunded}),
        "average_order_value": None
        if paid is None
        else list_money({currency: mean(*sums) for currency, sums in paid.items()}),
        "days_since_last_order": computed.days_since_last_order,
        "rfm": None if computed.scores is None else _view_scores(computed.scores),
        "favourite_category": computed.favourite_category,
        "windows": {
            f"{days}d": None if counts is None else _view_counts(counts)
            for days, counts in computed.windows.items()
        },
        **{name: newest.get(name) for name in NAMES},
    }


def _view_scores(scores: Scores) -> dict[str, Json]:
    return {
        "recency": scores.recency,
        "frequency": scores.frequency,
        "monetary": [
            {"currency": currency, "score": score}
            for currency, score in sorted(scores.monetary.items())
        ],
    }


def _view_counts(counts: Counts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in Counts.__dataclass_fields__}
