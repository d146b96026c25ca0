"""What do all lanes of a worker share?"""

from dataclasses import dataclass

from runtime.clock import ClockMs
from schemas.topics import Topics
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
