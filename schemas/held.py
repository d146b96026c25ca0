"""What is held of people, of which class, and for what?

Each field says it itself, where it is defined: an Avro field by its attributes `class`, `purpose`,
`sealed` and `holds` (what its JSON is made of), a ClickHouse column by the beginning of its COMMENT
(`behaviour for analytics: When it happened`), a Redis key by a `Layout` beside the code that writes
it. So the inventory (GDPR Art. 30) is read, never kept by hand, and a field without a class is a
fault that `headwater schemas check` or a test names.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

CLASSES: Final = ("identifier", "trait", "behaviour", "technical")
"""Who somebody is; what is known or was declared of them; what they did; what only we need."""

OWN_PURPOSES: Final[Mapping[str, str]] = {
    "operation": "legitimate_interest",  # GDPR Art. 6(1)(f): to run, order and secure all of it
    "accountability": "legal_obligation",  # Art. 6(1)(c) with 5(2), 7(1), 30
}
"""Purposes that no configuration declares, with their legal basis."""

ATTRIBUTES: Final = ("class", "purpose", "sealed", "holds")
"""Of an Avro field, beside those that Avro itself knows; none changes what its bytes mean."""

_COMMENT = re.compile(r"(?P<class>\w+) for (?P<purposes>[\w, ]+): (?P<meaning>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Held:
    """One field: `data_class` is of CLASSES, or "" when nothing says it."""

    name: str
    data_class: str
    purposes: tuple[str, ...]
    is_sealed: bool
    meaning: str


@dataclass(frozen=True, slots=True)
class Layout:
    """One kind of key in Redis: `{...}` stands for what differs, `fields` are of its hash.

    A key that is no hash has one field, named `value`. `prefix_of` says whose prefix goes before.
    """

    pattern: str
    prefix_of: str
    kept: str
    fields: tuple[Held, ...] = field(default=())


def held(name: str, data_class: str, purpose: str, meaning: str, *, sealed: bool = False) -> Held:
    """A field as a layout lists it; `purpose` may name several, with commas."""
    return Held(name, data_class, _listed(purpose), sealed, meaning)


def fields_of(schema: Mapping[str, Any]) -> list[Held]:
    """Every field of an Avro record that holds a value: `traits.sealed`, `sealed.ids`."""
    return list(_walk(schema["fields"], ""))


def column(name: str, comment: str) -> Held:
    """The field that a column is, by its COMMENT."""
    found = _COMMENT.fullmatch(comment)
    if found is None or found["class"] not in CLASSES:
        return Held(name, "", (), False, comment)
    return Held(name, found["class"], _listed(found["purposes"]), False, found["meaning"])


def _listed(purposes: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in purposes.split(",") if part.strip())


def _walk(fields: list[Mapping[str, Any]], before: str) -> Iterator[Held]:
    for each in fields:
        name, kind = f"{before}{each['name']}", each["type"]
        items = kind.get("items") if isinstance(kind, Mapping) else None
        if isinstance(items, Mapping) and "fields" in items:
            yield from _walk(items["fields"], f"{name}.")
            continue
        found = each.get("class", "")
        of = Held(
            name,
            found if found in CLASSES else "",
            _listed(each.get("purpose", "")),
            each.get("sealed", False),
            each.get("doc", ""),
        )
        parts = each.get("holds", {})
        if not parts:
            yield of
        for part, part_class in parts.items():
            known = part_class if part_class in CLASSES else ""
            yield Held(f"{name}.{part}", known, of.purposes, of.is_sealed, of.meaning)
