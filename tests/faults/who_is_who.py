"""Which identifiers are one person's, by what was said of them and answered?

By the rules of docs/adr/0018 in words of its own; shares no code with the product. An identifier is
named as `user:42`. Somebody's word is kept with the time at which it was said, and never with when
it arrived: any order gives the same persons.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

RANK = {"user": 3, "email": 2, "phone": 2, "anonymous": 1}
KINDS = ("user", "email", "phone", "anonymous")


@dataclass(frozen=True, slots=True)
class Said:
    """That some identifiers are, or are not, one person's."""

    names: tuple[str, ...]
    at: int
    """Of a call: when it happened, ms. By hand: the number of the decision, rising."""
    how: str
    """`call`, `link` or `revoke`."""


def owners(said: Iterable[Said], pids: Mapping[str, str]) -> dict[str, str]:
    """Each identifier that belongs to another one -> that one.

    `pids` are those of the names in hex; names without one were never heard of. Of one kind the
    greatest number stands for all; without numbers the shortest name, then the last in the alphabet.
    """
    calls: dict[str, dict[str, int]] = defaultdict(dict)
    by_hand: dict[str, dict[str, tuple[int, str]]] = defaultdict(dict)

    def depth(name: str) -> tuple[int, int, int, list[int]]:
        kind, _, value = name.partition(":")
        backwards = [-ord(letter) for letter in value]
        if set(value) <= set("0123456789"):
            return KINDS.index(kind), 0, -len(value), backwards
        return KINDS.index(kind), 1, len(value), backwards

    for each in said:
        names = [name for name in each.names if name in pids]
        if len(names) < 2:
            continue
        top = min(names, key=depth)
        for name in set(names) - {top}:
            if each.how == "call":
                calls[name][top] = min(each.at, calls[name].get(top, each.at))
            else:
                by_hand[name][top] = max((each.at, each.how), by_hand[name].get(top, (-1, "")))
    found = {}
    for name in calls.keys() | by_hand.keys():
        linked = [(at, top) for top, (at, how) in by_hand[name].items() if how == "link"]
        open_ = [(-RANK[top.partition(":")[0]], at, top) for top, at in calls[name].items()
                 if top not in by_hand[name]]  # fmt: skip
        if linked:
            found[name] = max(linked)[1]
        elif open_:
            found[name] = min(open_)[2]
    return found


def root_of(name: str, owner_of: Mapping[str, str]) -> str:
    """The identifier that stands for the person that `name` belongs to."""
    while name in owner_of:
        name = owner_of[name]
    return name


def all_above(name: str, owner_of: Mapping[str, str]) -> set[str]:
    """Whom `name` belongs to, whom that one belongs to, and so on."""
    found = set()
    while name in owner_of:
        name = owner_of[name]
        found.add(name)
    return found
