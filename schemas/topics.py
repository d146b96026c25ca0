"""Which topics are there, who may read what in them, and how long?

A topic exists only where another reader needs it, the key changes, or we must replay. The four
input topics and `subjects` share key (pid), partitioner (murmur2) and partition count: partition p
of all of them is lane p.
"""

from dataclasses import dataclass

DAY_MS = 86_400_000
PARTITIONER = "murmur2_random"
"""Java's and aiokafka's choice; librdkafka's default would put a pid elsewhere."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as it is created: `retention_ms` of None keeps the newest record of each key."""

    name: str
    records: tuple[str, ...]
    keyed_by: str
    retention_ms: int | None
    is_lane_input: bool = False
    max_message_bytes: int = 1_048_588


@dataclass(frozen=True, slots=True)
class Topics:
    """The names in force; `prefix` lets several Headwaters share one Kafka."""

    prefix: str = ""

    @property
    def collected(self) -> str:
        return f"{self.prefix}events.collected"

    @property
    def consents(self) -> str:
        return f"{self.prefix}consents.changed"

    @property
    def erasures(self) -> str:
        return f"{self.prefix}erasures.requested"

    @property
    def moves(self) -> str:
        return f"{self.prefix}subjects.moves"

    @property
    def accepted(self) -> str:
        return f"{self.prefix}events.accepted"

    @property
    def subjects(self) -> str:
        return f"{self.prefix}subjects"

    @property
    def rejected(self) -> str:
        return f"{self.prefix}events.rejected"

    @property
    def journeys(self) -> str:
        return f"{self.prefix}journeys.due"

    @property
    def segments_defined(self) -> str:
        return f"{self.prefix}segments.defined"

    @property
    def segments_changed(self) -> str:
        return f"{self.prefix}segments.changed"

    @property
    def inputs(self) -> tuple[str, ...]:
        """What a lane reads, in the order in which it prefers to apply them."""
        return (self.erasures, self.consents, self.moves, self.segments_defined, self.collected)

    def all(self) -> tuple[Topic, ...]:
        """Every topic, with its default retention; `[topics.*]` overrides it."""
        return (
            Topic(self.collected, ("Collected",), "pid", 7 * DAY_MS, is_lane_input=True),
            Topic(self.consents, ("ConsentChanged",), "pid", 3650 * DAY_MS, is_lane_input=True),
            Topic(self.erasures, ("ErasureRequested",), "pid", 3650 * DAY_MS, is_lane_input=True),
            # What is said of a person may be as large as their record.
            Topic(
                self.moves,
                ("Claimed", "Moved", "Kin"),
                "pid",
                7 * DAY_MS,
                is_lane_input=True,
                max_message_bytes=8 * 1_048_576,
            ),
            Topic(
                self.segments_defined,
                ("SegmentsDefined",),
                "'@segments'",
                3650 * DAY_MS,
                is_lane_input=True,
            ),
            # Room for what the lane adds to the largest event that `collected` takes.
            Topic(
                self.accepted,
                ("Accepted", "Retracted", "Reattributed", "Erased", "Linked"),
                "pid",
                30 * DAY_MS,
                max_message_bytes=2 * 1_048_576,
            ),
            Topic(self.rejected, ("Rejected",), "nothing", 30 * DAY_MS),
            Topic(self.segments_changed, ("SegmentChanged",), "pid", 30 * DAY_MS),
            Topic(self.journeys, ("JourneyDue",), "pid", 7 * DAY_MS),
            Topic(
                self.subjects,
                ("Subject", "Cursor", "Sightings", "Parked", "SegmentsInForce"),
                "pid, '@cursor', '@seen' and a number, '@parked' and pid, '@segments', "
                "in trial mode '@writer'",
                None,
                max_message_bytes=8 * 1_048_576,
            ),
        )
