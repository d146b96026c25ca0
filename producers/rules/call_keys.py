"""How is a call recognised again without keeping what it says?

By keyed hashes: whoever has the log but not the pepper can neither test a guessed messageId or
trait name, nor tell from two digests what two bodies had in common.
"""

from dataclasses import dataclass, field
from hashlib import blake2b

_EVENT_ID_BYTES = 16
_TRAIT_BYTES = 8
_DIGEST_BYTES = 4


@dataclass(frozen=True, slots=True)
class CallKeys:
    """One key for each use, so that equal inputs of two uses do not meet in one value."""

    event_id: bytes = field(repr=False)
    body_digest: bytes = field(repr=False)
    trait: bytes = field(repr=False)

    @classmethod
    def of(cls, pepper: bytes) -> "CallKeys":
        """The same keys for the same pepper, for ever: retries must find their event again."""
        return cls(
            *(
                blake2b(key=pepper, person=use, digest_size=32).digest()
                for use in (b"event-id", b"body-digest", b"trait")
            )
        )

    def event_id_of(self, source: str, message_id: str) -> bytes:
        """16 bytes that stand for this message of this source; no source's name holds a NUL."""
        framed = f"{source}\0{message_id}".encode()
        return blake2b(framed, key=self.event_id, digest_size=_EVENT_ID_BYTES).digest()

    def digest_of(self, canonical: bytes) -> int:
        """A signed 32-bit number that tells a body from another one with the same messageId."""
        digest = blake2b(canonical, key=self.body_digest, digest_size=_DIGEST_BYTES).digest()
        return int.from_bytes(digest, "big", signed=True)

    def trait_key_of(self, name: str) -> bytes:
        """8 bytes that stand for a trait's name."""
        return blake2b(name.encode(), key=self.trait, digest_size=_TRAIT_BYTES).digest()
