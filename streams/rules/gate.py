"""May this event be used, and for what?

The legal basis of each purpose decides (GDPR Art. 6): `legitimate_interest` is allowed until
objected, `consent` is not allowed while unknown. Counters need `analytics`; traits and segments
need `personalisation`.
"""

from dataclasses import dataclass

from streams.rules.outcomes import Withheld

ANALYTICS_WITHHELD = Withheld("analytics")


@dataclass(frozen=True, slots=True)
class Gate:
    """What the configured bases allow for a person of whom no decision is known."""

    counts: bool
    profiles: bool


def gate_from_bases(bases: dict[str, str]) -> Gate:
    """The gate of `[purposes.*]`; a purpose that is not configured is not allowed."""
    return Gate(
        counts=bases.get("analytics") == "legitimate_interest",
        profiles=bases.get("personalisation") == "legitimate_interest",
    )
