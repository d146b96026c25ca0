"""What may a single condition ask of a person?

The leaves of a segment's tree. Each names one kind of fact that every lane holds of a person, and
compares it with constants: so a condition can be answered from the person's own record, and it can
be told in advance when time alone changes the answer (schemas/segment_rules.py).
"""

import difflib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from math import isfinite
from typing import Any, Final, Protocol

from schemas.circumstances import NAMES, word_of, words_of
from schemas.traits import BEST, WORST

COUNTS: Final = ("events", "orders", "refunds", "visits")
"""Of all time."""
IN_WINDOWS: Final = ("events", "visits", "product_views", "cart_adds", "orders")
"""Counted within a window that ends now."""
AMOUNTS: Final = ("spent", "refunded", "average_order_value")
"""Of one currency, which the condition names: amounts of two are never added."""
AGES: Final = ("days_since_first_seen", "days_since_last_seen", "days_since_last_order")
"""Whole days of 24 hours that have passed; of what never was, no comparison is true."""
SCORES: Final = ("recency", "frequency", "monetary")
"""5 (best) to 1, by [traits]; monetary of one currency, which the condition names."""
TEXTS: Final = ("favourite_category", *NAMES)
"""The newest that is known, by when it happened."""
MEASURED: Final = (*SCORES, "favourite_category")
"""Told by what is configured (schemas/traits.py, Measures)."""
COMPUTED: Final = tuple(dict.fromkeys((*COUNTS, *IN_WINDOWS, *AMOUNTS, *AGES, *SCORES, *TEXTS)))
WINDOWS: Final = ("within_days", "within_hours")
WHERE: Final = ("category", "product_id", "campaign")
COMPARISONS: Final = ("at_least", "at_most", "exactly")
LONGEST_TEXT = 200
LARGEST_WHOLE = (1 << 63) - 1
"""Larger numbers cannot be shown as JSON by us."""
MOST_VALUES = 100
MOST_COUNT = 5_000
MOST_DAYS = 36_500

_CURRENCY = re.compile(r"[A-Z]{3}")
_SUBSCRIPTION = re.compile(r"[a-z0-9_-]+/[A-Za-z0-9_.-]+")
Leaf = Mapping[str, Any]
Told = Iterator[tuple[str, str]]
"""(key at fault, or "" for the leaf; what was expected)."""


class Names(Protocol):
    """The names that are known; None: any."""

    @property
    def purposes(self) -> Collection[str] | None: ...
    @property
    def clear_traits(self) -> Collection[str] | None: ...
    @property
    def history_days(self) -> int: ...
    @property
    def scored_currencies(self) -> Collection[str] | None: ...
    @property
    def timezones(self) -> Collection[str] | None: ...


class Around(Protocol):
    """What a leaf is checked against."""

    @property
    def known(self) -> Names: ...
    @property
    def ids(self) -> Collection[str]: ...


def check_leaf(kind: str, leaf: Leaf, around: Around) -> Told:
    """Everything that is wrong with `leaf`, whose kind is one of the five."""
    yield from _CHECKS[kind](leaf, around)


def _event(leaf: Leaf, around: Around) -> Told:
    allowed = ("event", *WINDOWS, "where", *COMPARISONS)
    yield from _only(leaf, allowed)
    if not _is_text(leaf["event"]):
        yield "event", "expected the name of a track event, or page or screen"
    yield from _window(leaf, around, must=True)
    where = leaf.get("where", {})
    if not isinstance(where, Mapping):
        yield "where", f"expected a table of {', '.join(WHERE)}"
    else:
        for key, value in where.items():
            if key not in WHERE:
                yield "where", f"{key}: expected one of {', '.join(WHERE)}{_near(key, WHERE)}"
            elif not _is_text(value) and not _is_list_of_texts(value):
                yield "where", f"{key}: expected a text, or a list of texts"
    yield from _comparison(leaf, lambda value: _is_whole(value, 0, MOST_COUNT), must=False)


def _window(leaf: Leaf, around: Around, *, must: bool) -> Told:
    windows = [key for key in WINDOWS if key in leaf]
    if len(windows) > 1 or (must and not windows):
        yield windows[1] if windows else "", f"expected one of {' and '.join(WINDOWS)}"
    elif windows:
        most = around.known.history_days * (24 if windows[0] == "within_hours" else 1)
        if not _is_whole(leaf[windows[0]], 1, most):
            yield windows[0], f"expected a whole number from 1 to {most}"


def _computed(leaf: Leaf, around: Around) -> Told:
    name = leaf["computed"]
    if name not in COMPUTED:
        near = _near(name, COMPUTED) if isinstance(name, str) else ""
        yield "computed", f"expected one of {', '.join(COMPUTED)}{near}"
        return
    if name in TEXTS:
        yield from _only(leaf, ("computed", "is", "in"))
        yield from _one_of_values(leaf)
        yield from _words(name, leaf, around)
        return
    allowed: tuple[str, ...] = ("computed", *COMPARISONS)
    if name in AMOUNTS or name == "monetary":
        allowed = ("computed", "currency", *COMPARISONS)
        yield from _currency(leaf, around if name == "monetary" else None)
    if name in IN_WINDOWS:
        allowed = ("computed", *WINDOWS, *COMPARISONS)
        yield from _window(leaf, around, must=name not in COUNTS)
    yield from _only(leaf, allowed)
    if name in AMOUNTS:
        yield from _comparison(leaf, _is_amount, must=True)
        return
    least, most = (WORST, BEST) if name in SCORES else (0, MOST_DAYS if name in AGES else 10**9)
    yield from _comparison(leaf, lambda value: _is_whole(value, least, most), must=True)


def _currency(leaf: Leaf, scored_around: Around | None) -> Told:
    currency = leaf.get("currency")
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        where = "currency" if "currency" in leaf else ""
        yield where, "expected currency, an ISO 4217 code such as EUR"
        return
    scored = None if scored_around is None else scored_around.known.scored_currencies
    if scored is not None and currency not in scored:
        yield (
            "currency",
            f"expected one of [traits.monetary]: {', '.join(scored)}{_near(currency, scored)}",
        )


def _words(name: str, leaf: Leaf, around: Around) -> Told:
    """What it is compared with is a word that it can have: of others it is never one."""
    for key in ("is", "in"):
        values = leaf.get(key, ())
        for value in values if isinstance(values, list | tuple) else (values,):
            if not _is_text(value):
                yield key, "expected a text"
            elif name == "country":
                if word_of(name, value) is None:
                    meant = f"; did you mean {value.upper()}?" if len(value) == 2 else ""
                    yield key, f"expected a country as two letters (ISO 3166) such as CZ{meant}"
            elif name == "timezone":
                zones = around.known.timezones
                if zones is not None and value not in zones:
                    near = _near(value, zones)
                    yield key, f"expected a zone of the IANA database such as Europe/Prague{near}"
            elif name in NAMES and value not in words_of(name):
                known = sorted(words_of(name))
                yield key, f"expected one of {', '.join(known)}{_near(value, known)}"


def _trait(leaf: Leaf, around: Around) -> Told:
    yield from _only(leaf, ("trait", "is", "in"))
    name, clear = leaf["trait"], around.known.clear_traits
    if not _is_text(name):
        yield "trait", "expected the name of a trait"
    elif clear is not None and name not in clear:
        yield (
            "trait",
            "expected a trait that may be read: this one is sealed for its person, or nobody sends "
            "it. Add it to clear in [fields.traits] if it says nothing that has to be secret"
            f"{_near(name, clear)}",
        )
    yield from _one_of_values(leaf)


def _consent(leaf: Leaf, around: Around) -> Told:
    yield from _only(leaf, ("consent",))
    about, purposes = leaf["consent"], around.known.purposes
    expected = "expected a purpose such as advertising, or channel/topic such as email/newsletter"
    if not _is_text(about):
        yield "consent", expected
    elif "/" in about:
        if not _SUBSCRIPTION.fullmatch(about) or about.startswith("purpose/"):
            yield "consent", expected
    elif purposes is not None and about not in purposes:
        yield (
            "consent",
            f"expected one of [purposes.*]: {', '.join(purposes)}{_near(about, purposes)}",
        )


def _segment(leaf: Leaf, around: Around) -> Told:
    yield from _only(leaf, ("segment",))
    id_ = leaf["segment"]
    if not isinstance(id_, str) or id_ not in around.ids:
        near = _near(id_, around.ids) if isinstance(id_, str) else ""
        yield "segment", f"expected the id of another segment{near}"


_CHECKS: Final = {
    "event": _event,
    "computed": _computed,
    "trait": _trait,
    "consent": _consent,
    "segment": _segment,
}


def _only(leaf: Leaf, allowed: tuple[str, ...]) -> Told:
    for key in leaf:
        if key not in allowed:
            yield key, f"expected {', '.join(allowed)}{_near(key, allowed)}"


def _comparison(leaf: Leaf, fits: Any, *, must: bool) -> Told:
    found = [key for key in COMPARISONS if key in leaf]
    if len(found) > 1 and found != ["at_least", "at_most"]:
        yield found[1], f"expected {found[0]} alone, or at_least with at_most"
    if must and not found:
        yield "", f"expected one of {', '.join(COMPARISONS)}"
    for key in found:
        if not fits(leaf[key]):
            yield key, "expected a number that this can be compared with"


def _one_of_values(leaf: Leaf) -> Told:
    found = [key for key in ("is", "in") if key in leaf]
    if len(found) != 1:
        yield "", "expected one of is and in"
    elif found == ["in"]:
        values = leaf["in"]
        if not isinstance(values, list | tuple) or not 0 < len(values) <= MOST_VALUES:
            yield "in", f"expected a list of 1 to {MOST_VALUES} values"
        elif not all(_is_value(value) for value in values):
            yield "in", "expected texts, numbers, true or false"
    elif not _is_value(leaf["is"]):
        yield "is", "expected a text, a number, true or false"


def _near(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def _is_text(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_TEXT


def _is_list_of_texts(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and 0 < len(value) <= MOST_VALUES
        and all(_is_text(each) for each in value)
    )


def _is_value(value: object) -> bool:
    if isinstance(value, float):
        return isfinite(value)  # TOML knows nan and inf; no trait is either, nor can JSON say so
    if type(value) is int:
        return abs(value) <= LARGEST_WHOLE
    return _is_text(value) or isinstance(value, bool)


def _is_whole(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_amount(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 10**12  # type: ignore[operator]
