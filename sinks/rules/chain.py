"""How does one changed record show for ever after?

Every head is a hash of the head before it and of the whole record: offset, key and value. Whoever
changes, leaves out or moves one record would have to find other records with the same hashes, or
change every later head, and the signed ones among them.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

GENESIS = bytes(32)
Raw = tuple[int, bytes | None, bytes | None]
"""Offset, key and value of a record as they lie in the log."""


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain of a partition stands: `next_offset` is the first that it does not cover."""

    next_offset: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A head as somebody vouched for it; `public_key` and `signature` in base64."""

    head: Head
    signed_at_ms: int
    public_key: str
    signature: str


def next_head(digest: bytes, offset: int, key: bytes | None, value: bytes | None) -> bytes:
    """The head after one more record: 32 bytes."""
    hashed = sha256(digest)
    hashed.update(struct.pack(">Q", offset))
    for part in (key, value):
        # A null is not an empty value; and no two records are framed alike.
        hashed.update(struct.pack(">q", -1 if part is None else len(part)))
        hashed.update(part or b"")
    return hashed.digest()


def chain_on(digest: bytes, records: Sequence[Raw]) -> list[tuple[int, bytes]]:
    """(offset, head after it) of each record, in their order."""
    heads = []
    for offset, key, value in records:
        digest = next_head(digest, offset, key, value)
        heads.append((offset, digest))
    return heads


def statement_of(
    topic: str, generation: int, partition: int, head: Head, signed_at_ms: int
) -> bytes:
    """What is signed: one reading, whatever the names are (no topic holds a line break)."""
    lines = (
        "headwater consent ledger 1",
        topic,
        str(generation),
        str(partition),
        str(head.next_offset),
        head.digest.hex(),
        str(signed_at_ms),
    )
    return "\n".join(lines).encode()
