"""Which rows say that two pids are one person, also after both were erased?

A lane says on events.accepted who joins and leaves the person of a root (schemas/moves.py). Each
such record is a row as it is; readers take the newest of each pair (consumers/profiles/persons.py).

Whoever is erased leaves anonymous rows in the place of their facts (residuals.py), named by a salt
of each pid's own. Two pids of one person that did the same in one campaign would become two people
by that. So the rows of each count of people are joined, as pids are: to a name that both pids find
by the salt of their person's oldest link, whichever of them is erased first, and that nobody finds
once the links and the record are gone.
"""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from schemas.moves import Linked
from schemas.requests import Erased
from schemas.topics import Topics
from sinks.rules.residuals import names_of_people
from sinks.rules.retract import KnownFact

LINK_COLUMNS = ("root", "member", "is_linked", "by_erasure", "generation", "kp", "off", "salt")
NO_SALT = bytes(16)
OFFSET = 0
"""Of rows that join anonymous ones: in sight of every reader, as those are."""


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """A row of `links`, its fields in the order of LINK_COLUMNS."""

    root: bytes
    member: bytes
    is_linked: bool
    by_erasure: bool
    generation: int
    kp: int
    off: int
    salt: bytes

    @property
    def place(self) -> tuple[int, int]:
        """Later ones count before earlier ones. Rows of one root are of one partition."""
        return self.generation, self.off


def link_row(linked: Linked, kp: int, offset: int) -> Link:
    """The row of a record at `offset` of partition `kp`."""
    return Link(
        linked.root,
        linked.pid,
        linked.is_linked,
        not linked.is_linked and linked.source_topic.endswith(Topics().erasures),
        linked.generation,
        kp,
        offset,
        linked.salt,
    )


def newest_of_pairs(links: Iterable[Link]) -> list[Link]:
    """Of each root and member the row that is in force."""
    newest: dict[tuple[bytes, bytes], Link] = {}
    for link in links:
        known = newest.get((link.root, link.member))
        if known is None or link.place >= known.place:
            newest[link.root, link.member] = link
    return list(newest.values())


def roots_in_force(links: Iterable[Link]) -> dict[bytes, bytes]:
    """Member -> the root that stands for it: while two do, the smaller, as every reader takes."""
    found: dict[bytes, bytes] = {}
    for link in newest_of_pairs(links):
        if link.is_linked:
            found[link.member] = min(link.root, found.get(link.member, link.root))
    return found


def salts_of_people(people: Iterable[bytes], links: Sequence[Link]) -> dict[bytes, bytes]:
    """Of each pid that shares a person with others, the salt that all of them find.

    `links` are all rows of their roots; it is the one of the oldest. Who left because the root is
    erased was of the person until then.
    """
    roots = roots_in_force(links)
    for link in newest_of_pairs(links):
        if link.by_erasure:
            roots.setdefault(link.member, link.root)
    oldest: dict[bytes, Link] = {}
    for link in links:
        known = oldest.get(link.root)
        if known is None or (link.place, link.member) < (known.place, known.member):
            oldest[link.root] = link
    return {pid: oldest[root].salt for pid in people if (root := roots.get(pid, pid)) in oldest}


def anonymous_links(erased: Erased, kp: int, salt: bytes, facts: Iterable[KnownFact]) -> list[Link]:
    """What joins each count of people that `facts`, all of the pid, leave, to those of its person.

    `kp` is the partition of the record.
    """
    return [
        Link(_id(salt, count), name, True, False, erased.generation, kp, OFFSET, NO_SALT)
        for count, name in sorted(names_of_people(erased, facts).items())
    ]


def _id(salt: bytes, count: tuple[str, str]) -> bytes:
    return hmac.digest(salt, "|".join(("person", *count)).encode(), hashlib.sha256)[:16]
