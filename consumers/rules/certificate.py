"""What does a certificate of erasure say, and how can anybody tell that it was not changed?

Canonical JSON (sorted names, no spaces, no fractions), signed with Ed25519 (RFC 8032). Each one
holds the hash of the one before, so that none can be taken out or put in between. It names the
subject by a keyed hash only: whoever has the identifier and the pepper can tell that it is theirs,
and nobody else.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import orjson

from consumers.rules.erasure import Erasure
from consumers.rules.times import rfc3339

VERSION = 1
FIRST_PREVIOUS = "0" * 64

Json = dict[str, Any]


def certificate_of(
    erasure: Erasure,
    *,
    subject: str,
    number: int,
    previous: str,
    issued_at_ms: int,
    kept: Sequence[str],
    code: str,
    public_key: str,
) -> Json:
    """The certificate of what was looked for and found; `subject` is the HMAC of the identifier."""
    return {
        "version": VERSION,
        "number": number,
        "previous": previous,
        "erasure_id": erasure.erasure_id,
        "subject_hmac": subject or None,
        "reason": erasure.reason,
        "requested_at": rfc3339(erasure.requested_at_ms),
        "issued_at": rfc3339(issued_at_ms),
        "status": erasure.status,
        "stores": [
            {
                "store": look.store,
                "looked_for": look.looked_for,
                "how": look.how,
                "remaining": look.remaining,
                "checked_at": rfc3339(look.checked_at_ms),
            }
            for look in erasure.looks
        ],
        "pending": [
            {"what": wait.what, "until": rfc3339(wait.until_ms)} for wait in erasure.pending
        ],
        "kept": list(kept),
        "code": code,
        "public_key": public_key,
    }


def canonical(certificate: Json) -> bytes:
    """The bytes that are signed and hashed."""
    return orjson.dumps(certificate, option=orjson.OPT_SORT_KEYS)


def hash_of(certificate: Json, signature: str) -> str:
    """What the next certificate names as the one before it."""
    return hashlib.sha256(canonical(certificate) + b"|" + signature.encode()).hexdigest()


def broken_links(
    chain: Sequence[Json], first: int = 1, previous: str = FIRST_PREVIOUS
) -> list[int]:
    """Numbers of certificates that do not follow the one before them.

    `chain` holds {"certificate", "signature"} from number `first` on; `previous` is the hash of the
    one before it.
    """
    broken = []
    for number, link in enumerate(chain, start=first):
        body = link["certificate"]
        if body.get("number") != number or body.get("previous") != previous:
            broken.append(number)
        previous = hash_of(body, link["signature"])
    return broken
