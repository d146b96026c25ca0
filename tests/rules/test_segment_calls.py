"""Who hears that somebody entered a segment or left it, while definitions change?"""

import json

from consumers.segments.segments_to_calls import ChangesToCalls
from runtime.settings import Settings
from schemas.codec import SEGMENT_CHANGED
from schemas.segment_records import SegmentChanged, SegmentsDefined

BOUGHT = {"computed": "orders", "at_least": 1}


class Definitions:
    """The newest on a log."""

    def __init__(self) -> None:
        self.newest = SegmentsDefined(0, 0, "[]")

    def apply(self, **webhooks: str) -> None:
        segments = [
            {"id": id_, "condition": BOUGHT} | ({"webhook": to} if to else {})
            for id_, to in webhooks.items()
        ]
        self.newest = SegmentsDefined(self.newest.version + 1, 5, json.dumps(segments))

    def __call__(self) -> SegmentsDefined:
        return self.newest


def told(calls: ChangesToCalls, segment_id: str, version: int, *, entered: bool) -> list[str]:
    """The webhooks that hear of a change."""
    changed = SegmentChanged(b"p" * 16, segment_id, version, entered, 7, 1, 0, 9, version)
    return [message.channel for message, _ in calls(0, 0, SEGMENT_CHANGED.encode(changed))]


def test_who_leaves_with_a_segment_that_is_removed_is_told_where_they_entered() -> None:
    definitions = Definitions()
    calls = ChangesToCalls(Settings(), definitions)
    definitions.apply(audience="push", quiet="")
    assert told(calls, "audience", 1, entered=True) == ["push"]
    assert told(calls, "quiet", 1, entered=True) == []
    definitions.apply(renamed="push")
    assert told(calls, "renamed", 2, entered=True) == ["push"]
    assert told(calls, "audience", 2, entered=False) == ["push"]
    assert told(calls, "quiet", 2, entered=False) == []


def test_a_segment_that_names_another_webhook_or_none_is_told_as_it_says_now() -> None:
    definitions = Definitions()
    calls = ChangesToCalls(Settings(), definitions)
    definitions.apply(audience="push")
    assert told(calls, "audience", 1, entered=True) == ["push"]
    definitions.apply(audience="other")
    assert told(calls, "audience", 2, entered=False) == ["other"]
    definitions.apply(audience="")
    assert told(calls, "audience", 3, entered=True) == []
