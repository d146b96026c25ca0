"""How do definitions of segments and changes of membership travel?

One record defines all segments, and lies in every partition of `segments.defined`; each change of
one person in one segment is one record of `segments.changed`; and a lane keeps in `subjects` which
definitions are in force there. Field by field, they are in the Avro files beside this module.
"""

import msgspec


class SegmentsDefined(msgspec.Struct, frozen=True, gc=False):
    """All segments from here on; see segments_defined.avsc."""

    version: int
    defined_at_ms: int
    definitions: str


class SegmentChanged(msgspec.Struct, frozen=True, gc=False):
    """Somebody entered or left a segment; see segment_changed.avsc."""

    pid: bytes
    segment_id: str
    version: int
    entered: bool
    occurred_at_ms: int
    generation: int
    lane: int
    seq: int
    index: int


class SegmentsInForce(msgspec.Struct, frozen=True, gc=False):
    """What a lane decides by, and whether everybody was looked at; see segments_in_force.avsc."""

    version: int
    defined_at_ms: int
    definitions: str
    bases: str
    is_filled: bool
    measures: str = ""
