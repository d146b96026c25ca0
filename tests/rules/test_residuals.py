"""Does what takes the place of a person's facts keep every number, and nothing of the person?"""

import random
from collections import Counter, defaultdict
from typing import Any

import msgspec.structs
from hypothesis import given
from hypothesis import strategies as st

from schemas.counters import ERASED_MARK, ERASED_RECORDS, MINUTE_MS, NO_CAMPAIGN_AT_ALL
from schemas.requests import Erased
from sinks.rules.residuals import residuals
from sinks.rules.retract import KnownFact
from sinks.rules.rows import Fact, additions

PID, OTHER = b"p" * 16, b"q" * 16
ERASED = Erased(b"e" * 16, PID, 9, b"s" * 16, 2, 1, 7, "erasures.requested", 1, 3, 0)
METRICS = ("opened", "clicked", "orders", "refunds", "page_views", "visits", "sent", "")
KP = 1


def fact(chance: random.Random, offset: int) -> KnownFact:
    metric = chance.choice(METRICS)
    generation = chance.choice((1, 2))
    has_money = metric in ("orders", "refunds")
    made: Fact = (
        chance.choice(("spring", "autumn")),
        0,
        generation,
        KP if generation == 2 else 0,
        offset,
        1 if metric == "visits" else 0,
        PID,
        chance.randbytes(16),
        chance.randrange(6 * MINUTE_MS),
        5,
        metric,
        chance.choice((1, -1)) if metric == "visits" else int(bool(metric)),
        chance.randrange(1, 99) if has_money else 0,
        chance.choice(("EUR", "USD")) if has_money else "",
        int(metric in ("page_views", "orders", "refunds", "")),
        "events.collected",
        0,
        offset,
        0,
        offset,
        0,
        "web",
        chance.randrange(2),
    )
    is_retracted = chance.random() < 0.3 and metric != "visits"
    return KnownFact(made, (2, 999) if is_retracted else None)


def counters_of(rows: list[KnownFact]) -> Counter[Any]:
    """What the counters must say, as the verification counts it again."""
    found: Counter[Any] = Counter()
    for known in rows:
        if known.fact[0] == NO_CAMPAIGN_AT_ALL:
            continue
        for key, added in additions(known.fact):
            found[*key, known.fact[3]] += added
            if known.retracted_at is not None:
                found[*key[:4], known.retracted_at[0], known.fact[3]] -= added
    return Counter({key: value for key, value in found.items() if value})


def people_of(rows: list[KnownFact], from_ms: int, to_ms: int) -> dict[tuple[str, str], int]:
    """Distinct people of each count in a span, as the API counts them."""
    found: defaultdict[tuple[str, str], set[bytes]] = defaultdict(set)
    for known in rows:
        fact = known.fact
        if fact[0] == NO_CAMPAIGN_AT_ALL or known.retracted_at is not None:
            continue
        if from_ms <= fact[8] < to_ms:
            if fact[10] in ("opened", "clicked", "orders"):
                found[fact[0], fact[10]].add(fact[6])
            if fact[14]:
                found[fact[0], "visitor"].add(fact[6])
    return {key: len(pids) for key, pids in found.items()}


@given(st.integers(0, 2**32), st.integers(0, 40))
def test_counters_people_and_records_stay(seed: int, count: int) -> None:
    chance = random.Random(seed)
    facts = [fact(chance, offset) for offset in range(count)]
    kept = residuals(ERASED, KP, facts)
    assert counters_of(kept) == counters_of(facts)
    for first in range(6):
        for last in range(first + 1, 7):
            span = first * MINUTE_MS, last * MINUTE_MS
            assert people_of(kept, *span) == people_of(facts, *span)
    records = Counter((f.fact[3], f.fact[2]) for f in facts if f.fact[5] == 0)
    counted: Counter[tuple[int, int]] = Counter()
    for row in kept:
        if row.fact[10] == ERASED_RECORDS:
            counted[row.fact[3], row.fact[2]] += row.fact[11]
    assert {key: n for key, n in counted.items() if n} == records


def test_records_are_told_by_the_day_from_which_they_grow_old() -> None:
    day_ms = 24 * 60 * MINUTE_MS

    def at(offset: int, occurred_ms: int, received_ms: int) -> KnownFact:
        made = fact(random.Random(offset), offset).fact
        return KnownFact((*made[:5], 0, *made[6:8], occurred_ms, received_ms, *made[10:]), None)

    rows = residuals(ERASED, KP, [at(1, 5, day_ms + 5), at(2, day_ms * 2, 7), at(3, 9, day_ms)])
    told = [row.fact for row in rows if row.fact[10] == ERASED_RECORDS]
    found: Counter[int] = Counter()
    for each in told:
        assert each[1] * day_ms == each[8] == each[9]
        found[each[8] // day_ms] += each[11]
    assert found == {1: 2, 2: 1}


def test_nothing_of_the_person_is_in_the_rows_but_for_the_mark() -> None:
    facts = [fact(random.Random(3), offset) for offset in range(40)]
    mark, *rows = residuals(ERASED, KP, facts)
    assert (mark.fact[0], mark.fact[6], mark.fact[10]) == (NO_CAMPAIGN_AT_ALL, PID, ERASED_MARK)
    known = {PID, ERASED.erasure_id, *(each.fact[7] for each in facts)}
    assert not known & {part for row in rows for part in row.fact[6:8]}
    assert {row.fact[8] % MINUTE_MS for row in rows} == {0}
    # Its own minute and nothing common: no column groups the rows of one person.
    assert all(row.fact[9] == row.fact[8] for row in rows)


def test_counts_of_people_cannot_be_linked_to_each_other() -> None:
    facts = [fact(random.Random(5), offset) for offset in range(60)]
    _, *rows = residuals(ERASED, KP, facts)
    what_by_pid: defaultdict[bytes, set[tuple[str, str]]] = defaultdict(set)
    for row in rows:
        what_by_pid[row.fact[6]].add((row.fact[0], row.fact[10]))
    assert {len(what) for what in what_by_pid.values()} == {1}


def test_rows_written_again_are_the_same_rows() -> None:
    facts = [fact(random.Random(7), offset) for offset in range(30)]
    assert residuals(ERASED, KP, facts) == residuals(ERASED, KP, list(reversed(facts)))
    other = msgspec.structs.replace(ERASED, salt=b"t" * 16)
    ids = {row.fact[7] for row in residuals(ERASED, KP, facts)}
    assert not ids & {row.fact[7] for row in residuals(other, KP, facts)}


def test_person_without_facts_leaves_the_mark_alone() -> None:
    (mark,) = residuals(ERASED, KP, [])
    assert mark.fact[6] == PID


def test_rows_that_stand_for_facts_are_told_apart_by_their_key() -> None:
    facts = [fact(random.Random(11), offset) for offset in range(60)]
    rows = residuals(ERASED, KP, facts)
    keys = [
        (r.fact[0], r.fact[1], r.fact[3], r.fact[6], r.fact[7], r.fact[2], r.fact[4], r.fact[5])
        for r in rows
    ]
    assert len(set(keys)) == len(keys)
