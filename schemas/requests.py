"""What do people ask of us: a change of consent, or to be forgotten?"""

from hashlib import blake2b

import msgspec

ERASE, FORGET = "erase", "forget"
"""Phases of an erasure, as the lanes hear of them."""
IDLE = "idle"
"""The ground of nobody's request: nothing was heard of the person for `[profiles] idle_days`."""
MERGED = "merged"
"""The ground of an erasure that a lane asks for: the pid belongs to a person who was erased."""


class ConsentChanged(msgspec.Struct, frozen=True, gc=False):
    """One decision with its proof (GDPR Art. 7(1)); see consents.avsc."""

    record_id: bytes
    pid: bytes
    purpose: str | None
    channel: str | None
    topic: str | None
    legal_basis: str
    status: str
    valid_from_ms: int
    valid_to_ms: int | None
    recorded_at_ms: int
    source: str
    method: str | None = None
    text_version: str | None = None
    text_hash: bytes | None = None
    language: str | None = None
    jurisdiction: str | None = None
    age_band: str | None = None
    authorised_by: str | None = None
    age_of_consent: int | None = None


class ErasureRequested(msgspec.Struct, frozen=True, gc=False):
    """A request to be forgotten (GDPR Art. 17); see erasures.avsc."""

    erasure_id: bytes
    pid: bytes
    requested_at_ms: int
    reason: str
    subjects: list[str] = []
    phase: str = ERASE


def merged_erasure_id(erased: bytes, pid: bytes) -> bytes:
    """The id of the erasure of `pid` because it belongs to the erased one: asked twice, asked once.

    BLAKE2b-128 of both pids, which are random: whoever writes it, a lane, has no keys.
    """
    return blake2b(erased + pid, digest_size=16, person=b"headwater.merged").digest()


class Erased(msgspec.Struct, frozen=True, gc=False):
    """Everything of the person lies before this record in its partition; see erased.avsc."""

    erasure_id: bytes
    pid: bytes
    erased_at_ms: int
    salt: bytes
    generation: int
    lane: int
    seq: int
    source_topic: str
    source_partition: int
    source_offset: int
    index: int
