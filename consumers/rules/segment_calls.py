"""How is another system told that somebody entered a segment, or left it?

By a call to a webhook with the person's pseudonym: whoever may know more looks it up. The call is a
message like others, of an id that is made from where the change stands on the log, so that a change
that is read twice is told once.
"""

from hashlib import blake2b

import msgspec

from consumers.rules.messages import SEGMENT, Message
from consumers.rules.times import rfc3339

ID_BYTES = 16


def call_of(
    pid: bytes, segment_id: str, version: int, *, has_entered: bool, at_ms: int, place: str, to: str
) -> Message:
    """The call to the webhook `to`; `place` is the change's own on the log, as `topic:1:0:42`."""
    body = {
        "type": "segment.entered" if has_entered else "segment.left",
        "timestamp": rfc3339(at_ms),
        "data": {"pid": pid.hex(), "segment_id": segment_id, "version": version},
    }
    return Message(
        id=blake2b(f"{place}|{to}".encode(), digest_size=ID_BYTES).hexdigest(),
        pid=pid,
        kind=SEGMENT,
        source=segment_id,
        step=1,
        channel=to,
        campaign_id="",
        due_at_ms=at_ms,
        body=msgspec.json.encode(body),
    )
