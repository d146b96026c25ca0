"""How does a lane switch to other segments?

The definitions come on the log, as one record in every partition, so each lane switches at one
point of its own order of things, and a lane that is rebuilt switches there again (ADR 0023).
"""

from collections.abc import Sequence
from typing import Any

from schemas.codec import SEGMENTS_DEFINED, Malformed
from schemas.subjects import SEGMENTS_KEY
from streams.lane import Lane
from streams.rules.membership import SegmentsInvalid
from streams.rules.outcomes import Refused

WRONG_DEFINITIONS = Refused(
    "$.definitions",
    "wrong_definitions",
    "expected a list of segments; apply them with `headwater segments apply`",
)
WRONG_SEGMENTS_KEY = Refused("$", "wrong_key", "expected the key '@segments'")


def apply_definitions(lane: Lane, records: Sequence[Any]) -> None:
    """The newest definitions are in force, and everybody will be looked at by them."""
    topic = lane.settings.topics.segments_defined
    for record in records:
        if record.key != SEGMENTS_KEY:
            lane.reject(WRONG_SEGMENTS_KEY, topic, record.offset, None)
            continue
        try:
            defined = SEGMENTS_DEFINED.decode(record.value)
            lane.membership.switch(defined, lane.people)
        except Malformed as error:
            lane.reject(Refused("$", error.reason, error.expected), topic, record.offset, None)
        except (SegmentsInvalid, ValueError):
            lane.reject(WRONG_DEFINITIONS, topic, record.offset, None)
