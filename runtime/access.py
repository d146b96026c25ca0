"""Who may ask for what?

An API key comes as a Bearer token and stands for the roles it is configured under (`[http.keys]`).
`admin` may do everything but write events: a leaked admin key shall not be able to forge counters.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from runtime.problems import Problem
from runtime.settings import Role

_BEARER = HTTPBearer(
    auto_error=False, scheme_name="API key", description="The key of a role, as Bearer token"
)
Roles = frozenset[Role]
_SEES_IDENTIFIERS: Roles = frozenset(["privacy_officer", "admin"])


def sees_identifiers(roles: Roles) -> bool:
    """True if people may be shown to `roles` under their names, where they are not asked for by
    one: whoever answers requests of data subjects has to know who is who, a tool does not."""
    return bool(roles & _SEES_IDENTIFIERS)


class Access:
    """The keys in force. A role without a key, or with an empty one, lets nobody in."""

    def __init__(self, keys: Mapping[Role, str]) -> None:
        self._digests = [(role, _digest(key)) for role, key in keys.items() if key]

    def roles_of(self, key: str) -> Roles:
        """Roles behind `key`; none for an unknown one. Takes the same time whichever it is."""
        found = _digest(key)
        # No early exit, and digests of one length: time tells nothing about any key.
        return frozenset([r for r, digest in self._digests if hmac.compare_digest(digest, found)])

    def require(self, role: Role) -> Callable[..., Awaitable[Roles]]:
        """A FastAPI dependency that lets `role` (and admin, but for `write`) pass.

        Gives the caller's roles. Raises Problem: 401 without a known key, 403 with another role's.
        """
        sufficient: Roles = frozenset([role]) if role == "write" else frozenset([role, "admin"])

        async def check(
            credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)],
        ) -> Roles:
            roles = self.roles_of(credentials.credentials) if credentials else frozenset()
            if not roles:
                raise Problem(
                    401,
                    "Send the API key of a role as 'Authorization: Bearer KEY'",
                    headers={"WWW-Authenticate": 'Bearer realm="headwater"'},
                )
            if not roles & sufficient:
                raise Problem(403, f"This needs the key of the role {role}")
            return roles

        return check


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
