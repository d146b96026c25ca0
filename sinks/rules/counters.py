"""What must be written for a batch, so that every event counts once whatever was written before?

A counter row is absolute and says which prefix of its partition it covers (`last_off`): an event at
or below it is in it already. So a batch that is repeated after a crash, whole or torn, by this
process or by one that should be dead, writes rows that say the same or less. The model behind this
ran 20,000 random schedules of crashes and zombies (tests/model/test_counters.py runs more, on
this code); without the guard or without the order of the writes it fails within a few.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from schemas.events import Accepted
from sinks.rules.rows import CounterKey, Fact, additions, fact_rows

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


@dataclass(frozen=True, slots=True)
class Repeat:
    """An event whose coordinate does not rise: a broken promise of the streams. Not counted."""

    offset: int
    lane: int
    found: Coordinate
    highest: Coordinate


@dataclass(slots=True)
class Tally:
    """A batch of one partition, counted but not yet added to the counters."""

    next_offset: int
    facts: list[Fact] = field(default_factory=list)
    added: dict[CounterKey, list[tuple[int, int]]] = field(default_factory=dict)
    """Of each counter: (offset, addition), offsets rising."""
    repeats: list[Repeat] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Plan:
    """The rows of one partition for `facts`, `counters` and `progress`, to be written so."""

    facts: list[Fact]
    counters: list[CounterRow]
    progress: Progress


def tally(prefix: Prefix, batch: Sequence[tuple[int, Accepted]], next_offset: int) -> Tally:
    """Every event of `batch` that is new has its facts and additions in the answer.

    `batch` is (offset, event), offsets rising from `prefix.next_offset`; `next_offset` is the
    position after it, control records included. Counts in `prefix` what is new.
    """
    done = Tally(next_offset)
    facts, added, highest, kp = done.facts, done.added, prefix.highest, prefix.kp
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
        prefix.records += 1
        for fact in fact_rows(event, kp, offset):
            facts.append(fact)
            for key, addition in additions(fact):
                known = added.get(key)
                if known is None:
                    added[key] = [(offset, addition)]
                else:
                    known.append((offset, addition))
    return done


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
    return Plan(done.facts, rows, progress)


def forget_idle(prefix: Prefix, done: Tally, *, limit: int) -> None:
    """Keep the cache below `limit` counters; from then on others are looked up when needed."""
    if len(prefix.counters) > limit:
        prefix.counters = {key: prefix.counters[key] for key in done.added}
        prefix.is_complete = False
