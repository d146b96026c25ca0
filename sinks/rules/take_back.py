"""What must be written when something that is counted already is taken back?

A retraction marks facts of a person and corrects their visits; an erasure puts stand-ins where the
facts of a person were. Either is written by itself, and needs what the person has in the store.
"""

from collections.abc import Collection, Iterable, Sequence

from schemas.events import Retracted
from schemas.requests import Erased
from sinks.rules.counters import NEVER, Prefix, Repeat, Tally, before, counted_until
from sinks.rules.links import Link, anonymous_links, salts_of_people
from sinks.rules.residuals import residuals
from sinks.rules.retract import (
    KnownFact,
    correction_facts,
    facts_to_retract,
    person_from,
    settle_visits,
)
from sinks.rules.rows import additions, row_of


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
    if offset < counted_until(prefix, retracted.generation):
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
    taken = {row_of(fact) for fact in gone}
    left = [each for each in known if row_of(each.fact) not in taken]
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
        if offset < counted_until(prefix, erased.generation):
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
