"""What must be written for a batch, so that every event counts once whatever was written before?

A counter row is absolute and says which prefix of its partition it covers (`last_off`): an event at
or below it is in it already. So a batch that is repeated after a crash, whole or torn, by this
process or by one that should be dead, writes rows that say the same or less. The model behind this
ran 20,000 random schedules of crashes and zombies (tests/model/test_counters.py runs more, on
this code); without the guard or without the order of the writes it fails within a few.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from schemas.events import EMAIL_EVENTS, Accepted, Retracted
from schemas.moves import Linked
from schemas.requests import Erased
from sinks.rules.links import Link, anonymous_links, link_row, salts_of_people
from sinks.rules.residuals import residuals
from sinks.rules.retract import (
    KnownFact,
    Marked,
    add_event,
    correction_facts,
    facts_to_retract,
    person_from,
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


def tally(
    prefix: Prefix, batch: Sequence[tuple[int, Accepted | Linked]], next_offset: int
) -> Tally:
    """Every event of `batch` that is new has its facts and additions in the answer, a link its row.

    `batch` is (offset, event or link), offsets rising from `prefix.next_offset`; `next_offset` is
    the position after it, control records included. Counts in `prefix` what is new. Needs every
    marked person of the batch to be looked up (`people_to_look_up`).
    """
    done = Tally(next_offset)
    facts, added, highest, kp = done.facts, done.added, prefix.highest, prefix.kp
    marked = prefix.marked
    counted_before: dict[int, int] = {}
    for offset, event in batch:
        before_offset = counted_before.get(event.generation)
        if before_offset is None:
            before_offset = counted_before[event.generation] = _counted(prefix, event.generation)
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
        prefix.records += 1
        if marked and (person := marked.get(event.pid)) is not None:
            event = _with_visits_of(person, event)
        for fact in fact_rows(event, kp, offset):
            facts.append(fact)
            for key, addition in additions(fact):
                known = added.get(key)
                if known is None:
                    added[key] = [(offset, addition)]
                else:
                    known.append((offset, addition))
    return done


def _with_visits_of(person: Marked, event: Accepted) -> Accepted:
    is_visit = not (event.type == "track" and event.event in EMAIL_EVENTS)
    changes = add_event(person, event) if is_visit else []
    return msgspec.structs.replace(event, visit_changes=changes)


def people_to_look_up(prefix: Prefix, batch: Iterable[tuple[int, Accepted | Linked]]) -> set[bytes]:
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
    return offset < prefix.next_offset or offset < _counted(prefix, generation)


def tally_retraction(
    prefix: Prefix, retracted: Retracted, offset: int, facts: Iterable[KnownFact], gap_ms: int
) -> Tally:
    """What the retraction at `offset` takes back is in the answer; its person is marked by it.

    `facts` are all of the person in this partition, and `prefix` ends at `offset`. What is taken
    back counts at the place of the retraction: generation and offset of its own, so that a counter
    still says by its version which retractions are in it.
    """
    done = Tally(offset + 1)
    found = (retracted.generation, retracted.seq, retracted.index)
    highest = prefix.highest.get(retracted.lane)
    if offset < _counted(prefix, retracted.generation):
        return done
    if highest is not None and found <= highest:
        done.repeats.append(Repeat(offset, retracted.lane, found, highest))
        return done
    prefix.highest[retracted.lane] = found
    known = before(prefix, facts)
    gone = facts_to_retract(retracted, known)
    if not gone:
        return done
    done.marks = [(fact, retracted.generation, offset) for fact in gone]
    for fact in gone:
        for key, addition in additions(fact):
            at_retraction = (*key[:4], retracted.generation)
            done.added.setdefault(at_retraction, []).append((offset, -addition))
    places = {(fact[2], fact[4]) for fact in gone}
    left = [each for each in known if each.fact[5] or (each.fact[2], each.fact[4]) not in places]
    person = prefix.marked[retracted.pid] = person_from(left, gap_ms)
    received_at_ms = max(fact[9] for fact in gone)
    done.facts = correction_facts(
        retracted, prefix.kp, offset, settle_visits(person), received_at_ms
    )
    for fact in done.facts:
        for key, addition in additions(fact):
            done.added.setdefault(key, []).append((offset, addition))
    return done


def tally_erasures(
    prefix: Prefix,
    run: Sequence[tuple[int, Erased]],
    next_offset: int,
    facts: Iterable[KnownFact],
    already: Collection[bytes],
    links: Sequence[Link] = (),
) -> Tally:
    """What stands in for the facts of everybody in `run` is in the answer; no counter changes.

    `facts` are all of these people, in every partition, and were read before `already`, those whose
    stand-ins are there: whoever is not among them had all their facts when they were read. `links`
    are all of the persons that they are of.
    """
    done = Tally(next_offset)
    salts = salts_of_people({erased.pid for _, erased in run}, links)
    by_pid: dict[bytes, list[KnownFact]] = {}
    for known in facts:
        by_pid.setdefault(known.fact[6], []).append(known)
    for offset, erased in run:
        if offset < _counted(prefix, erased.generation):
            continue
        found = (erased.generation, erased.seq, erased.index)
        highest = prefix.highest.get(erased.lane)
        if highest is not None and found <= highest:
            done.repeats.append(Repeat(offset, erased.lane, found, highest))
            continue
        prefix.highest[erased.lane] = found
        prefix.marked.pop(erased.pid, None)
        if erased.pid not in already:
            theirs = by_pid.get(erased.pid, ())
            for row in residuals(erased, prefix.kp, theirs):
                generation, at = row.retracted_at or (0, NEVER)
                done.stand_ins.append((row.fact, generation, at))
            if (salt := salts.get(erased.pid)) is not None:
                done.links += anonymous_links(erased, prefix.kp, salt, theirs)
    return done


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


def _counted(prefix: Prefix, generation: int) -> int:
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
    return Plan(done.facts, done.marks, rows, progress, done.stand_ins, done.links)


def forget_idle(prefix: Prefix, done: Tally, *, limit: int) -> None:
    """Keep the cache below `limit` counters; from then on others are looked up when needed."""
    if len(prefix.counters) > limit:
        prefix.counters = {key: prefix.counters[key] for key in done.added}
        prefix.is_complete = False
