"""How does what was looked at become a certificate that nobody can change or leave out?

Certificates are appended in one chain. Whoever was slower takes the new end of it and signs again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import msgspec.structs

from consumers.erasures.store import ErasureStore
from consumers.rules.certificate import (
    FIRST_PREVIOUS,
    Json,
    broken_links,
    canonical,
    certificate_of,
    hash_of,
)
from consumers.rules.erasure import Erasure
from runtime.clock import ClockMs
from runtime.signing import Signer


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check of a certificate found: signed by our key, and which links do not fit."""

    is_ours: bool
    broken: tuple[int, ...]

    @property
    def is_good(self) -> bool:
        """True if nothing was changed, put in or taken out."""
        return self.is_ours and not self.broken


class Certifier:
    """Signs and appends; checks."""

    def __init__(
        self, store: ErasureStore, signer: Signer, kept: Sequence[str], clock: ClockMs
    ) -> None:
        self._store = store
        self._signer = signer
        self._kept = tuple(kept)
        self._clock = clock
        self._code = _version()

    def certify(self, named: Sequence[tuple[Erasure, str]]) -> list[Erasure]:
        """Each has a certificate of what it says now, and knows its number."""
        while named:
            length = self._store.length()
            previous = FIRST_PREVIOUS
            if length:
                (last,) = self._store.chain(length, length)
                previous = hash_of(last["certificate"], last["signature"])
            signed: list[Json] = []
            for number, (erasure, subject) in enumerate(named, start=length + 1):
                body = certificate_of(
                    erasure,
                    subject=subject,
                    number=number,
                    previous=previous,
                    issued_at_ms=self._clock(),
                    kept=self._kept,
                    code=self._code,
                    public_key=self._signer.public_key,
                )
                signature = self._signer.sign(canonical(body))
                signed.append({"certificate": body, "signature": signature})
                previous = hash_of(body, signature)
            if self._store.append(length, signed):
                return [
                    msgspec.structs.replace(erasure, certificate=number)
                    for number, (erasure, _) in enumerate(named, start=length + 1)
                ]
        return []

    def check(self, number: int, erasure_id: str) -> Checked:
        """Whether certificate `number` is ours and of this erasure, and which of the whole chain do
        not fit."""
        chain = self._store.chain()
        broken = tuple(broken_links(chain))
        if not 1 <= number <= len(chain):
            return Checked(is_ours=False, broken=broken)
        body, signature = chain[number - 1]["certificate"], chain[number - 1]["signature"]
        is_ours = self._signer.is_ours(canonical(body), signature)
        return Checked(is_ours and body.get("erasure_id") == erasure_id, broken)


def _version() -> str:
    try:
        return f"headwater {version('headwater')}"
    except PackageNotFoundError:
        return "headwater, a checkout that is not installed"
