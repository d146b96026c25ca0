"""Who can vouch for a text so that a changed one is recognised?

Ed25519 (RFC 8032): whoever has the key file signs, whoever has its public key checks.
"""

import base64
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


class Signer:
    """One signing key, and its public half."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self._public = self._key.public_key()

    @property
    def public_key(self) -> str:
        """The public key, base64: what others need to check a signature."""
        raw = self._public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    @property
    def fingerprint(self) -> str:
        """A short name of the public key, for comparing it by eye."""
        return hashlib.sha256(self.public_key.encode()).hexdigest()[:16]

    def sign(self, message: bytes) -> str:
        """The signature, base64."""
        return base64.b64encode(self._key.sign(message)).decode()

    def is_ours(self, message: bytes, signature: str) -> bool:
        """True if this key signed exactly `message`."""
        try:
            self._public.verify(base64.b64decode(signature, validate=True), message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def __repr__(self) -> str:
        return f"Signer({self.fingerprint})"
