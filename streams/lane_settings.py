"""What do all lanes of a worker share?"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from runtime.clock import ClockMs
from schemas.consent import Basis
from schemas.topics import Topics
from schemas.traits import SHIPPED, Measures
from streams.rules.admit import Rules


@dataclass(frozen=True, slots=True)
class LaneSettings:
    """What every lane of a worker shares."""

    bootstrap_servers: str
    topics: Topics
    partitions: int
    generation: int
    barrier_s: float
    deduplication_ms: int
    rules: Rules
    is_trial: bool
    clock_ms: ClockMs
    bases: Mapping[str, Basis] = field(default_factory=dict)
    """The legal basis of each purpose, for segments."""
    measures: Measures = SHIPPED
    """By what scores and favourites are told, for segments."""

    def bases_in_force(self) -> dict[str, Basis]:
        """Those, and of `personalisation` the one by which events are admitted."""
        return {**self.bases, "personalisation": self.rules.gate.personalisation_basis}
