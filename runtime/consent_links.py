"""How does a link in a mail prove who may follow it, and for what?

By an HMAC-SHA256 over what it is for: the person's pid, a time after which it is worth nothing, and
the matter. Each kind of link has a key of its own, so that one made for unsubscribing cannot open a
preference page. No login is asked of a reader (RFC 8058; GDPR Art. 7(3): withdrawing must be as
easy as giving), and a link holds no identifier that anybody could read.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, Self

from runtime.sealing import secrets_of
from runtime.settings import Settings
from schemas.decisions import RECORD_ID_BYTES
from schemas.subjects import PID_BYTES

Kind = Literal["unsubscribe", "preferences", "confirm"]
PATH = "/consent"
_EXPIRES_BYTES = 5
_MAC_BYTES = 32
_HOUR_MS = 3_600_000
_SECOND_MS = 1000


@dataclass(frozen=True, slots=True)
class Link:
    """What a link is for. `matter` is 'email/newsletter', empty for preferences; `record_id` is
    that of the pending subscription that a confirmation is for."""

    kind: Kind
    pid: bytes
    expires_at_ms: int
    matter: str = ""
    record_id: bytes = b""


@dataclass(frozen=True, slots=True)
class Made:
    """A link as it is sent."""

    url: str
    expires_at_ms: int


class Links:
    """Makes links and tells whether one is ours."""

    def __init__(self, pepper: bytes, base_url: str, hours: Mapping[Kind, int]) -> None:
        self._base_url = base_url.rstrip("/")
        self._lives_ms = {kind: hours[kind] * _HOUR_MS for kind in hours}
        self._keys = {
            kind: blake2b(key=pepper, person=f"link-{kind}"[:16].encode(), digest_size=32).digest()
            for kind in hours
        }

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Links of `[consent]`. Raises SettingInvalid when the pepper's file is missing."""
        chosen = settings.consent
        _, pepper = secrets_of(settings)
        host = settings.http.host
        base_url = chosen.public_url or (
            f"http://{f'[{host}]' if ':' in host else host}:{settings.http.port}"
        )
        hours: dict[Kind, int] = {
            "unsubscribe": chosen.unsubscribe_link_days * 24,
            "preferences": chosen.preferences_link_days * 24,
            "confirm": chosen.confirm_hours,
        }
        return cls(pepper, base_url, hours)

    def unsubscribe(self, pid: bytes, channel: str, topic: str, now_ms: int) -> Made:
        """Ends one subscription; topic 'all' ends every one of the channel."""
        return self._make("unsubscribe", pid, now_ms, f"{channel}/{topic}")

    def preferences(self, pid: bytes, now_ms: int) -> Made:
        """Opens the person's preferences."""
        return self._make("preferences", pid, now_ms)

    def confirm(self, pid: bytes, matter: str, record_id: bytes, now_ms: int) -> Made:
        """Confirms the pending subscription of that record."""
        return self._make("confirm", pid, now_ms, matter, record_id)

    def read(self, kind: Kind, token: str) -> Link | None:
        """What `token` is for; None if we did not make it for this kind. It may have expired."""
        try:
            signed = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (binascii.Error, ValueError):
            return None
        payload, mac = signed[:-_MAC_BYTES], signed[-_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(kind, payload)):
            return None
        pid, rest = payload[:PID_BYTES], payload[PID_BYTES:]
        expires_at_ms = int.from_bytes(rest[:_EXPIRES_BYTES], "big") * _SECOND_MS
        rest = rest[_EXPIRES_BYTES:]
        size = RECORD_ID_BYTES if kind == "confirm" else 0
        return Link(kind, pid, expires_at_ms, rest[size:].decode(), rest[:size])

    def _make(
        self, kind: Kind, pid: bytes, now_ms: int, matter: str = "", record_id: bytes = b""
    ) -> Made:
        expires_s = (now_ms + self._lives_ms[kind]) // _SECOND_MS
        payload = pid + expires_s.to_bytes(_EXPIRES_BYTES, "big") + record_id + matter.encode()
        token = base64.urlsafe_b64encode(payload + self._mac(kind, payload)).rstrip(b"=").decode()
        return Made(f"{self._base_url}{PATH}/{kind}/{token}", expires_s * _SECOND_MS)

    def _mac(self, kind: Kind, payload: bytes) -> bytes:
        return hmac.digest(self._keys[kind], payload, "sha256")


def unsubscribe_headers(made: Made) -> dict[str, str]:
    """Headers that give a mail its one-click button (RFC 8058). Its DKIM signature must cover both,
    and the address must be https."""
    return {
        "List-Unsubscribe": f"<{made.url}>",
        "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
    }
