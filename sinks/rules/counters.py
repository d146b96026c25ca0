"""What must be written for a batch, so that every event counts once whatever was written before?

A counter row is absolute and says which prefix of its partition it covers (`last_off`): an event at
or below it is in it already. So a batch that is repeated after a crash, whole or torn, by this
process or by one that should be dead, writes rows that say the same or less. The model behind this
ran 20,000 random schedules of crashes and zombies (tests/model/test_counters.py runs more, on
this code); without the guard or without the order of the writes it fails within a few.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from schemas.events import EMAIL_EVENTS, Accepted, Reattributed
from schemas.moves import Linked
from sinks.rules.links import Link, link_row
from sinks.rules.reattribute import Live, move_facts
from sinks.rules.retract import (
    KnownFact,
    Marked,
    add_event,
    correction_facts,
    settle_visits,
)
from sinks.rules.rows import CounterKey, Fact, additions, fact_rows

_NOT_MARKED = Marked(0)

Coordinate = tuple[int, int, int]
"""(generation, seq, index) of an output of one lane: rises along every partition it writes to."""

CounterRow = tuple[str, str, str, int, int, int, int, int]
"""A row of `counters` in the order of COUNTER_COLUMNS; minute in seconds since 1970."""

COUNTER_COLUMNS = (
    "campaign_id",
    "metric",
    "currency",
    "minute",
    "generation",
    "kp",
    "value",
    "last_off",
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a partition is counted, as stored beside the counters."""

    kp: int
    next_offset: int
    records: int = 0
    highest: Mapping[int, Coordinate] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counter:
    """One counter: the sum over every event of its partition up to and with `last_offset`."""

    value: int
    last_offset: int


@dataclass(slots=True)
class Prefix:
    """What the process that owns a partition remembers of its counted prefix.

    Changed in place by `plan_write`. `counters` is a cache; when it `is_complete`, a counter that
    is not in it is not in the store either. `counted_before` gives, for each older generation, the
    offset up to which it counted whatever it found: its own events and what older ones had left.
    """

    kp: int
    next_offset: int = 0
    records: int = 0
    highest: dict[int, Coordinate] = field(default_factory=dict)
    counted_before: Mapping[int, int] = field(default_factory=dict)
    counters: dict[CounterKey, Counter] = field(default_factory=dict)
    is_complete: bool = True
    marked: dict[bytes, Marked | None] = field(default_factory=dict)
    """People with retracted events; None for one who is not looked up yet."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """An event whose coordinate does not rise: a broken promise of the streams. Not counted."""

    offset: int
    lane: int
    found: Coordinate
    highest: Coordinate


Mark = tuple[Fact, int, int]
"""A fact that no longer counts, and (generation, offset) of what took it back."""


@dataclass(slots=True)
class Tally:
    """A batch of one partition, counted but not yet added to the counters."""

    next_offset: int
    facts: list[Fact] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    moves: list[Mark] = field(default_factory=list)
    """What counts in another campaign now."""
    added: dict[CounterKey, list[tuple[int, int]]] = field(default_factory=dict)
    """Of each counter: (offset, addition), offsets rising."""
    repeats: list[Repeat] = field(default_factory=list)
    stand_ins: list[Mark] = field(default_factory=list)
    """What takes the place of erased people's facts: written whole, in one insert."""
    links: list[Link] = field(default_factory=list)
    """Who is of which person: written before any of the others."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of one partition for `facts`, `counters` and `progress`, to be written so."""

    facts: list[Fact]
    marks: list[Mark]
    counters: list[CounterRow]
    progress: Progress
    stand_ins: list[Mark] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    moves: list[Mark] = field(default_factory=list)


Said = Accepted | Reattributed | Linked


def tally(
    prefix: Prefix, batch: Sequence[tuple[int, Said]], next_offset: int, live: Live | None = None
) -> Tally:
    """Every event of `batch` that is new has its facts and additions in the answer, a link its row.

    `batch` is (offset, what is said), offsets rising from `prefix.next_offset`; `next_offset` is
    the position after it, control records included. Counts in `prefix` what is new. Needs every
    marked person of the batch to be looked up (`people_to_look_up`), and in `live` everybody of
    whom something is reattributed (`people_to_move`); keeps both as they are after it.
    """
    done = Tally(next_offset)
    facts, added, highest, kp = done.facts, done.added, prefix.highest, prefix.kp
    marked = prefix.marked
    counted_before: dict[int, int] = {}
    for offset, event in batch:
        before_offset = counted_before.get(event.generation)
        if before_offset is None:
            before_offset = counted_before[event.generation] = counted_until(
                prefix, event.generation
            )
        if offset < before_offset:
            continue
        lane = event.lane
        found = (event.generation, event.seq, event.index)
        before = highest.get(lane)
        if before is not None and found <= before:
            done.repeats.append(Repeat(offset, lane, found, before))
            continue
        highest[lane] = found
        if isinstance(event, Linked):
            done.links.append(link_row(event, kp, offset))
            continue
        if type(event) is Reattributed:
            assert live is not None
            _reattribute(prefix, done, event, offset, live[event.pid])
            continue
        assert type(event) is Accepted
        prefix.records += 1
        if marked and (person := marked.get(event.pid)) is not None:
            event = _with_visits_of(person, event)
        rows = fact_rows(event, kp, offset)
        if live and event.pid in live:
            live[event.pid].append(rows[0])
        for fact in rows:
            facts.append(fact)
            for key, addition in additions(fact):
                known = added.get(key)
                if known is None:
                    added[key] = [(offset, addition)]
                else:
                    known.append((offset, addition))
    return done


def _reattribute(
    prefix: Prefix, done: Tally, said: Reattributed, offset: int, facts: list[Fact]
) -> None:
    """What `said`, at `offset`, gives to other campaigns counts there; `facts` as in move_facts."""
    moved = move_facts(said, facts, offset)
    for fact, now in moved:
        done.moves.append((fact, said.generation, offset))
        done.facts.append(now)
        for key, addition in additions(fact):
            at_record = (*key[:4], said.generation)
            done.added.setdefault(at_record, []).append((offset, -addition))
    changes = said.visit_changes
    person = prefix.marked.get(said.pid)
    if person is not None:
        campaign_of = {now[7]: now[0] for _, now in moved}
        person.events = [(at, id_, campaign_of.get(id_, of)) for at, id_, of in person.events]
        changes = settle_visits(person)
    received_at_ms = max((now[9] for _, now in moved), default=0)
    corrections = correction_facts(said, prefix.kp, offset, changes, received_at_ms)
    done.facts += corrections
    for fact in (*(now for _, now in moved), *corrections):
        for key, addition in additions(fact):
            done.added.setdefault(key, []).append((offset, addition))


def people_to_move(batch: Iterable[tuple[int, Said]]) -> set[bytes]:
    """Everybody of whom `batch` gives something to another campaign."""
    return {event.pid for _, event in batch if type(event) is Reattributed}


def _with_visits_of(person: Marked, event: Accepted) -> Accepted:
    is_visit = not (event.type == "track" and event.event in EMAIL_EVENTS)
    changes = add_event(person, event) if is_visit else []
    return msgspec.structs.replace(event, visit_changes=changes)


def people_to_look_up(prefix: Prefix, batch: Iterable[tuple[int, Said]]) -> set[bytes]:
    """The marked people of `batch` who are not known yet."""
    marked = prefix.marked
    if not marked:
        return set()
    return {event.pid for _, event in batch if marked.get(event.pid, _NOT_MARKED) is None}


def before(prefix: Prefix, facts: Iterable[KnownFact]) -> list[KnownFact]:
    """`facts` as they are in the prefix: what a torn write left beyond it has not happened yet."""
    found = []
    for known in facts:
        if not _is_before(prefix, known.fact[2], known.fact[4]):
            continue
        at = known.retracted_at
        is_retracted = at is not None and _is_before(prefix, *at)
        found.append(known if is_retracted or at is None else KnownFact(known.fact))
    return found


def _is_before(prefix: Prefix, generation: int, offset: int) -> bool:
    return offset < prefix.next_offset or offset < counted_until(prefix, generation)


NEVER = -1
"""Offset of what took a fact back, of one that nothing did."""


def mark_people(prefix: Prefix, retracted: Iterable[tuple[bytes, int, int]]) -> None:
    """Those with a retraction in the prefix are marked; of each (pid, generation, offset)."""
    for pid, generation, offset in retracted:
        if _is_before(prefix, generation, offset):
            prefix.marked[pid] = None


def forget_people(prefix: Prefix, *, limit: int) -> None:
    """Keep who is looked up below `limit`; others are looked up again when they do something."""
    if sum(person is not None for person in prefix.marked.values()) > limit:
        prefix.marked = dict.fromkeys(prefix.marked)


def counted_until(prefix: Prefix, generation: int) -> int:
    """The offset below which events of `generation` are counted."""
    return max(
        (offset for older, offset in prefix.counted_before.items() if older >= generation),
        default=0,
    )


def missing_counters(prefix: Prefix, done: Tally) -> list[CounterKey]:
    """The counters to look up in the store before `plan_write`."""
    if prefix.is_complete:
        return []
    return [key for key in done.added if key not in prefix.counters]


def plan_write(prefix: Prefix, done: Tally) -> Plan:
    """The rows that make `done` durable; `prefix` stands after it.

    Needs every counter of `missing_counters` that the store has to be in `prefix.counters`.
    """
    counters = prefix.counters
    rows: list[CounterRow] = []
    for key, added in done.added.items():
        known = counters.get(key)
        last_offset = added[-1][0]
        if known is None:
            value = sum(addition for _, addition in added)
        elif known.last_offset < added[0][0]:
            value = known.value + sum(addition for _, addition in added)
        elif known.last_offset >= last_offset:
            # Said again: it stands after the progress, so a store that went back may have lost it
            # and show no sign.
            value, last_offset = known.value, known.last_offset
        else:
            # Compared with the row as it was before the batch: one event may add twice to a key.
            value = known.value + sum(
                addition for offset, addition in added if offset > known.last_offset
            )
        counters[key] = Counter(value, last_offset)
        rows.append((*key, prefix.kp, value, last_offset))
    prefix.next_offset = done.next_offset
    progress = Progress(prefix.kp, done.next_offset, prefix.records, dict(prefix.highest))
    return Plan(done.facts, done.marks, rows, progress, done.stand_ins, done.links, done.moves)


def forget_idle(prefix: Prefix, done: Tally, *, limit: int) -> None:
    """Keep the cache below `limit` counters; from then on others are looked up when needed."""
    if len(prefix.counters) > limit:
        prefix.counters = {key: prefix.counters[key] for key in done.added}
        prefix.is_complete = False
