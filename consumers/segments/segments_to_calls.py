"""Who is told that somebody entered a segment, or left it?

The webhook that the segment's definition names, else the one of `[sending] segment_webhook`, else
nobody. Definitions change while everything runs: whenever a change was decided by newer ones than
those that are known here, they are read again. Who was in a segment that is defined no more leaves
it then, and the webhook that it last named hears of it: whoever was told that people entered would
count them in for ever.
"""

from collections.abc import Callable, Sequence

from consumers.messages.store import Put
from consumers.rules.segment_calls import call_of
from runtime.segment_log import newest_segments, segments_of
from runtime.settings import Settings
from schemas.codec import SEGMENT_CHANGED
from schemas.segment_records import SegmentsDefined

Newest = Callable[[], SegmentsDefined]


class ChangesToCalls:
    """Reads records of `segments.changed` as calls; for one thread.

    Raises Malformed for what is no such record, StoreUnavailable when it cannot be told who hears.
    """

    def __init__(self, settings: Settings, newest: Newest | None = None) -> None:
        self._default = settings.sending.segment_webhook
        self._newest = newest or (lambda: newest_segments(settings))
        self._version = 0
        self._webhooks: dict[str, str] = {}

    def __call__(self, _: int, __: int, value: bytes | None) -> Sequence[Put]:
        """The call of a record, or none."""
        changed = SEGMENT_CHANGED.decode(value)
        if changed.version > self._version:
            self._read_definitions()
        to = self._webhooks.get(changed.segment_id) or self._default
        if not to:
            return []
        # Where the lane wrote it, which stays the same however often it is read.
        place = f"{changed.generation}:{changed.lane}:{changed.seq}:{changed.index}"
        call = call_of(
            changed.pid,
            changed.segment_id,
            changed.version,
            has_entered=changed.entered,
            at_ms=changed.occurred_at_ms,
            place=place,
            to=to,
        )
        return [(call, call.due_at_ms)]

    def _read_definitions(self) -> None:
        defined = self._newest()
        self._webhooks |= {each.id: each.webhook for each in segments_of(defined)}
        self._version = defined.version
