"""Of which identifiers does a call say that they are one person's, and who claims whom by it?

Segment's SDKs put userId and anonymousId on every call after a login, so most calls repeat what one
has said: `identify`, which is made for that, and `alias`, which says by what name a user was known
before. Only these two claim. Which identifier claims the others is a function of the call alone
(schemas/identity.py), so a call sent again, by any collector, claims the same.

`previousId` may be an anonymous id or an older user id, and nothing in the call tells which. To ask
who is known already would make the answer depend on the order of arrival. So both are claimed, and
the one that nobody ever used costs two small rows in the vault; it is claimed as an anonymous id
alone where the call itself says that it is one, by having it as its anonymousId.
"""

from collections.abc import Mapping, Sequence

from producers.rules.call_fields import IdType
from schemas.identity import RANK, Claim, height

Identifier = tuple[IdType, str]


def one_person_of(
    kind: str, ids: Mapping[IdType, str], previous_id: str | None
) -> tuple[Identifier, ...]:
    """At least two identifiers, each once, of a call that says that they are one person's; of any
    other call none."""
    if kind == "identify":
        return tuple(ids.items()) if len(ids) > 1 else ()
    if previous_id is None or "user" not in ids:
        return ()
    user: Identifier = ("user", ids["user"])
    before: list[Identifier] = [("anonymous", previous_id)]
    if ids.get("anonymous") != previous_id and ids["user"] != previous_id:
        before.append(("user", previous_id))
    return (user, *before)


def claims_of(
    named: Sequence[tuple[Identifier, bytes]], occurred_at_ms: int, event_id: bytes, cause: str
) -> list[tuple[bytes, Claim]]:
    """Identifiers, with their pids, that a call says are one person's, as claims of the highest on
    each other one.

    The claims of (claimed pid, claim); none of a single one.
    """
    (top_type, _), top = max(named, key=lambda each: height(*each[0]))
    claim = Claim(top, RANK[top_type], occurred_at_ms, event_id, cause)
    return [(pid, claim) for _, pid in named if pid != top]
