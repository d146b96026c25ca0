"""How is another system told of something, so that it can trust who tells it, and we where it is?

Standard Webhooks: an HMAC-SHA256 over id, time and body, under headers that the receiver's library
knows; the id stays the same however often a call is repeated, so that it counts once. The address
may come from whoever configures, and names can be pointed anywhere later: so what a name stands for
is looked at when we connect, and the connection goes to the very address that was looked at. Only
public ones are taken, unless the webhook says otherwise (server-side request forgery).
"""

import asyncio
import ipaddress
import re
import socket
from base64 import b64decode
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks import Webhook as Signing

from runtime.settings_sending import Webhook
from schemas.errors import SettingInvalid

ANSWERS_WITHIN_S = 15.0
_PASSING = frozenset({408, 409, 425, 429})
_SECRET = re.compile(r"(?:whsec_)?([A-Za-z0-9+/]{32,88}={0,2})\s*", re.ASCII)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one call: `status` is HTTP's, 0 without an answer; `why` has no value of
    anybody. Whether to try again is `may_pass`."""

    status: int
    why: str

    @property
    def is_taken(self) -> bool:
        return 200 <= self.status < 300

    @property
    def may_pass(self) -> bool:
        """Trying again may help: no answer, or one that speaks of a moment."""
        return self.status == 0 or self.status >= 500 or self.status in _PASSING


class PrivateAddress(OSError):
    """A name that stands for an address of a network that is not public."""


def is_public(address: str) -> bool:
    """True for an address that anybody in the internet reaches; none of a network of one's own."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if found.teredo is not None or found.is_site_local:
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


class PublicResolver(AbstractResolver):
    """Resolves names to addresses that are all public. Raises PrivateAddress for any other."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        if not found or not all(is_public(str(at[0])) for *_, at in found):
            raise PrivateAddress("the name stands for an address that is not public")
        return [
            ResolveResult(
                hostname=host,
                host=str(at[0]),
                port=port,
                family=of,
                proto=proto,
                flags=socket.AI_NUMERICHOST,
            )
            for of, _, proto, _, at in found
        ]

    async def close(self) -> None:
        """Nothing is kept."""


class Caller:
    """Calls one webhook; belongs to the event loop that first uses it."""

    def __init__(self, chosen: Webhook) -> None:
        self.name = chosen.name
        self._url = chosen.url
        self._allows_private = chosen.allow_private
        self._signing = Signing(secret_of(chosen))
        self._session: aiohttp.ClientSession | None = None

    async def call(self, message_id: str, body: bytes, now_ms: int) -> Answered:
        """The receiver has answered, or not in time. Call again with the same id for the same."""
        if not self._allows_private and not _may_be_public(self._url):
            return Answered(0, "private_address")
        at = datetime.fromtimestamp(now_ms // 1000, UTC)
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "Headwater",
            "webhook-id": message_id,
            "webhook-timestamp": str(now_ms // 1000),
            "webhook-signature": self._signing.sign(message_id, at, body.decode()),
        }
        if self._session is None:
            self._session = self._connect()
        try:
            # A redirect is not followed: it may lead anywhere.
            async with self._session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                return Answered(answer.status, f"status_{answer.status}")
        except PrivateAddress:
            return Answered(0, "private_address")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            is_private = isinstance(error.__cause__, PrivateAddress) or isinstance(
                getattr(error, "os_error", None), PrivateAddress
            )
            return Answered(0, "private_address" if is_private else "no_answer")

    async def close(self) -> None:
        """Give the connections back."""
        if self._session is not None:
            await self._session.close()

    def _connect(self) -> aiohttp.ClientSession:
        resolver = None if self._allows_private else PublicResolver()
        # No name is remembered: it may stand for another address at the next call.
        connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, limit=20)
        timeout = aiohttp.ClientTimeout(total=ANSWERS_WITHIN_S)
        return aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=4096,
        )


def secret_of(chosen: Webhook) -> str:
    """The secret in the webhook's file. Raises SettingInvalid, never showing content."""
    where, path = f"[[webhooks]] {chosen.name}: secret_file", Path(chosen.secret_file)
    try:
        found = _SECRET.fullmatch(path.read_text("ascii"))
        size = len(b64decode(found[1] + "==")) if found else 0
    except OSError as error:
        raise SettingInvalid(f"{where}: cannot read {path}: {error.strerror}") from error
    except ValueError:
        found, size = None, 0
    if found is None or not 24 <= size <= 64:
        raise SettingInvalid(
            f"{where}: {path} must hold whsec_ and 24 to 64 bytes in base64; "
            'make one with: echo "whsec_$(openssl rand -base64 32)"'
        )
    return found[1]


def _may_be_public(url: str) -> bool:
    # An address in the URL itself is connected to without asking the resolver.
    host = urlsplit(url).hostname or ""
    try:
        return is_public(host)
    except ValueError:
        return True
