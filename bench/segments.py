"""Which segments do the benchmarks ask for? Kinds that cost something."""

from schemas.segments import Segment, parse_segments

_EVENTS = ("Product Viewed", "Product Added", "Order Completed", "Email Opened")


def segments(count: int) -> tuple[Segment, ...]:
    """So many: windows over events with and without an order, spend, days since, consents."""
    definitions: list[dict[str, object]] = []
    for number in range(count):
        event, days = _EVENTS[number % len(_EVENTS)], 1 + number % 30
        seen = {"event": event, "within_days": days, "at_least": 1 + number % 3}
        conditions: tuple[dict[str, object], ...] = (
            {"all": [seen, {"not": {"event": "Order Completed", "within_days": days}}]},
            {"any": [{"computed": "spent", "currency": "EUR", "at_least": 50 * number}, seen]},
            {"all": [seen, {"computed": "days_since_last_order", "at_most": days}]},
            {"all": [{"not": {"consent": "advertising"}}, seen]},
        )
        condition = conditions[number % len(conditions)]
        definitions.append({"id": f"s{number}", "condition": condition})
    return parse_segments(definitions)
