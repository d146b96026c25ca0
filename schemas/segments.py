"""What is a segment, and what is said of one that is written wrongly?

A segment is a condition on one person: a closed tree of `all`, `any` and `not` over leaves, so that
whoever writes one can ask only what every lane can answer from the person's own record. What it
may hold, with an example of each, is in docs/segments.md. A whole set of definitions has one
version and travels as one record (`segments.defined`); each lane switches to it at one point of
its log (ADR 0023). Numbers of money are decimals as in the configuration; nothing here reads a
clock.
"""

import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.segment_leaves import check_leaf

REPEAT_BUYERS: Final = "repeat_buyers"
MOST_SEGMENTS = 200
MOST_DEPTH = 8
MOST_NODES = 100
MOST_CHAINED = 3
"""So many segments deep may one build on others, itself included."""
LONGEST_NAME = 200
MOST_WINDOW_DAYS = 30

_ID = re.compile(r"[a-z0-9_]{1,64}")
_WEBHOOK = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_KEYS = ("id", "name", "condition", "webhook")
BRANCHES = ("all", "any", "not")
LEAVES = ("event", "computed", "trait", "consent", "segment")

Path = tuple[str | int, ...]
Condition = Mapping[str, Any]
"""A node as JSON: the same in headwater.toml, in a file, on the wire and on the log."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One definition. `webhook` names who is told of changes; empty for nobody."""

    id: str
    name: str
    condition: Condition
    webhook: str = ""

    def to_json(self) -> dict[str, Any]:
        """As it travels and is shown."""
        told = {"webhook": self.webhook} if self.webhook else {}
        return {"id": self.id, "name": self.name, "condition": dict(self.condition), **told}


BUILT_IN: Final = (
    Segment(
        REPEAT_BUYERS,
        "People with two orders or more",
        {"computed": "orders", "at_least": 2},
    ),
)
"""Always there, unless a definition of the same id takes the place."""


@dataclass(frozen=True, slots=True)
class Known:
    """The names that a condition may use beside those that are always there; None: any."""

    purposes: Collection[str] | None = None
    clear_traits: Collection[str] | None = None
    history_days: int = MOST_WINDOW_DAYS
    scored_currencies: Collection[str] | None = None
    timezones: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where in the definitions, and what was expected there."""

    path: Path
    expected: str

    def said(self) -> str:
        """`segments[0].condition.all[1].event: expected ...`."""
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return f"segments{where}: {self.expected}"


class SegmentsInvalid(Exception):
    """These definitions cannot be used; `faults` says each thing that is wrong."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(fault.said() for fault in faults))
        self.faults = tuple(faults)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` for the known name that is most like `name`, if one is."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def members_key(prefix: str, id_: str) -> str:
    """The key in Redis of the pids (hex, sorted) of who is in a segment."""
    return f"{prefix}segment:{id_}"


def with_built_in(segments: Sequence[Segment]) -> tuple[Segment, ...]:
    """These, after those that are always there and are not defined anew."""
    ids = {segment.id for segment in segments}
    return (*(each for each in BUILT_IN if each.id not in ids), *segments)


def parse_segments(definitions: object, known: Known | None = None) -> tuple[Segment, ...]:
    """The segments that a list of JSON objects defines. Raises SegmentsInvalid with every fault."""
    check = _Check(Known() if known is None else known)
    segments = check.segments(definitions)
    if check.faults:
        raise SegmentsInvalid(check.faults)
    return segments


def segments_to_json(segments: Iterable[Segment]) -> str:
    """The definitions as one canonical text: equal text is the same set."""
    return json.dumps([each.to_json() for each in segments], sort_keys=True, ensure_ascii=False)


@dataclass(slots=True)
class _Check:
    known: Known
    faults: list[Fault] = field(default_factory=list)
    ids: frozenset[str] = frozenset()
    nodes: int = 0

    def fault(self, path: Path, expected: str) -> None:
        self.faults.append(Fault(path, expected))

    def segments(self, definitions: object) -> tuple[Segment, ...]:
        if not isinstance(definitions, Sequence) or isinstance(definitions, str):
            self.fault((), "expected a list of segments")
            return ()
        if len(definitions) > MOST_SEGMENTS:
            self.fault((), f"expected at most {MOST_SEGMENTS} segments")
            return ()
        built_in = {each.id for each in BUILT_IN}
        named = [each.get("id") for each in definitions if isinstance(each, Mapping)]
        self.ids = frozenset(each for each in named if isinstance(each, str)) | built_in
        found: list[Segment] = []
        for at, definition in enumerate(definitions):
            segment = self._segment(definition, (at,))
            if segment is None:
                continue
            if any(segment.id == other.id for other in found):
                self.fault((at, "id"), f"expected an id of its own: {segment.id} is there already")
            found.append(segment)
        if not self.faults:
            self._chains(with_built_in(found), found)
        return tuple(found)

    def _segment(self, definition: object, path: Path) -> Segment | None:
        if not isinstance(definition, Mapping):
            self.fault(path, "expected a segment: id, name, condition")
            return None
        before = len(self.faults)
        for key in definition:
            if key not in _KEYS:
                self.fault((*path, key), f"expected {', '.join(_KEYS)}{nearest(key, _KEYS)}")
        id_, name = definition.get("id"), definition.get("name", "")
        webhook = definition.get("webhook", "")
        if not isinstance(id_, str) or not _ID.fullmatch(id_):
            self.fault((*path, "id"), "expected 1 to 64 of a-z, 0-9 and _")
        if not isinstance(name, str) or len(name) > LONGEST_NAME:
            self.fault((*path, "name"), f"expected a text of at most {LONGEST_NAME} characters")
        if webhook != "" and not (isinstance(webhook, str) and _WEBHOOK.fullmatch(webhook)):
            self.fault((*path, "webhook"), "expected the name of one of [[webhooks]]")
        if "condition" not in definition:
            self.fault(path, "expected a condition")
        else:
            self.nodes = 0
            self.node(definition["condition"], (*path, "condition"), 1)
            if self.nodes > MOST_NODES:
                self.fault((*path, "condition"), f"expected at most {MOST_NODES} conditions in it")
        if len(self.faults) > before:
            return None
        return Segment(str(id_), name or str(id_), definition["condition"], webhook)

    def node(self, node: object, path: Path, depth: int) -> None:
        """Say what is wrong with one node and those in it."""
        self.nodes += 1
        if self.nodes > MOST_NODES:
            return
        if depth > MOST_DEPTH:
            self.fault(path, f"expected at most {MOST_DEPTH} conditions within each other")
            return
        kinds = (*BRANCHES, *LEAVES)
        if not isinstance(node, Mapping):
            self.fault(path, f"expected a condition with one of {', '.join(kinds)}")
            return
        found = [key for key in node if key in kinds]
        if len(found) != 1:
            self._unknown(node, path, kinds, found)
            return
        (kind,) = found
        if kind not in BRANCHES:
            for key, expected in check_leaf(kind, node, self):
                self.fault((*path, key) if key else path, expected)
            return
        for key in node:
            if key != kind:
                self.fault((*path, key), f"expected {kind} alone")
        if kind == "not":
            self.node(node[kind], (*path, kind), depth + 1)
            return
        inner = node[kind]
        if not isinstance(inner, Sequence) or isinstance(inner, str) or not inner:
            self.fault((*path, kind), "expected a list of one condition at least")
            return
        for at, each in enumerate(inner):
            self.node(each, (*path, kind, at), depth + 1)

    def _unknown(
        self, node: Condition, path: Path, kinds: tuple[str, ...], found: list[str]
    ) -> None:
        if found:
            self.fault((*path, found[1]), f"expected one of {' or '.join(found)}, not both")
            return
        near = [key for key in node if nearest(key, kinds)]
        where = near[0] if near else next(iter(node), None)
        expected = f"expected one of {', '.join(kinds)}"
        if where is None:
            self.fault(path, expected)
        else:
            self.fault((*path, where), expected + nearest(where, kinds))

    def _chains(self, everything: Sequence[Segment], found: Sequence[Segment]) -> None:
        builds_on = {each.id: frozenset(segments_in(each.condition)) for each in everything}
        chains: dict[str, int | None] = {}
        for at, segment in enumerate(found):
            chain = _longest(segment.id, builds_on, chains)
            path: Path = (at, "condition")
            if chain is None:
                self.fault(
                    path, f"expected {segment.id} not to build on itself, nor on one that does"
                )
            elif chain > MOST_CHAINED:
                self.fault(path, f"expected at most {MOST_CHAINED} segments that build on another")


def segments_in(condition: Condition) -> Iterable[str]:
    """The ids of the segments that a condition names."""
    for kind in ("all", "any"):
        for inner in condition.get(kind, ()):
            yield from segments_in(inner)
    if "not" in condition:
        yield from segments_in(condition["not"])
    if "segment" in condition:
        yield condition["segment"]


def _longest(
    id_: str, builds_on: Mapping[str, Collection[str]], chains: dict[str, int | None]
) -> int | None:
    """How many segments deep `id_` is; None when it comes back to itself, or builds on one that
    does. `chains` is what was found so far: in a wide net each segment is walked once."""
    if id_ in chains:
        return chains[id_]
    chains[id_] = None  # meanwhile: whatever comes back here goes in a circle
    deepest = 0
    for inner in builds_on[id_]:
        found = _longest(inner, builds_on, chains)
        if found is None:
            return None
        deepest = max(deepest, found)
    chains[id_] = deepest + 1
    return deepest + 1
