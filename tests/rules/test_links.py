"""Do pids of one person stay one in every count of people, also when all of them were erased?"""

import itertools
import random
from collections import defaultdict

import msgspec.structs
from hypothesis import given
from hypothesis import strategies as st

from schemas.counters import NO_CAMPAIGN_AT_ALL
from schemas.moves import Linked
from schemas.requests import Erased
from sinks.rules.counters import Prefix, Tally
from sinks.rules.links import Link, link_row, roots_in_force, salts_of_people
from sinks.rules.retract import KnownFact
from sinks.rules.rows import Fact
from sinks.rules.take_back import tally_erasures

MINUTES = 4
METRICS = ("opened", "clicked", "orders", "page_views")


def pid(number: int) -> bytes:
    return bytes([number]) * 16


def link(
    root: int,
    member: int,
    off: int,
    *,
    is_linked: bool = True,
    by_erasure: bool = False,
    generation: int = 1,
) -> Link:
    salt = bytes([root, member, off, generation]) * 4
    return Link(pid(root), pid(member), is_linked, by_erasure, generation, root % 2, off, salt)


def erased(number: int) -> Erased:
    salt = bytes([200 + number]) * 16
    return Erased(pid(number), pid(number), 9, salt, 1, number, 1, "erasures.requested", 0, 3, 0)


def fact(chance: random.Random, person: int) -> KnownFact:
    metric, minute = chance.choice(METRICS), chance.randrange(MINUTES)
    made: Fact = (
        chance.choice("ab"), 0, 1, person % 2, chance.randrange(10**9), 0, pid(person),
        chance.randbytes(16), minute * 60_000, 5, metric, 1, 0, "",
        int(metric == "page_views"), "events.collected", 0, 0, 0, 0, 0, "web", 0,
    )  # fmt: skip
    return KnownFact(made)


Counts = dict[tuple[str, str, int, int], int]


def people(facts: list[Fact], links: list[Link], gone: set[bytes]) -> Counts:
    """(campaign, count, first minute, last minute) -> persons, as every reader counts them."""
    roots = roots_in_force(links)
    found: defaultdict[tuple[str, str, int, int], set[bytes]] = defaultdict(set)
    for each in facts:
        if each[0] == NO_CAMPAIGN_AT_ALL or each[6] in gone:
            continue
        counts = [each[10]] * (each[10] in METRICS[:3]) + ["visitor"] * each[14]
        minute = each[8] // 60_000
        for count, first in itertools.product(counts, range(minute + 1)):
            for last in range(minute, MINUTES):
                found[each[0], count, first, last].add(roots.get(each[6], each[6]))
    return {key: len(persons) for key, persons in found.items()}


@given(st.integers(0, 2**32), st.permutations([1, 2, 3]), st.booleans(), st.booleans())
def test_no_count_of_people_changes_when_all_pids_of_a_person_are_erased(
    seed: int, order: list[int], links_go_late: bool, parted: bool
) -> None:
    chance = random.Random(seed)
    known = [fact(chance, person) for person in (1, 2, 3, 4) for _ in range(chance.randrange(9))]
    # 2 and 3 are of the person of 1; 4 was once.
    links = [link(1, 4, 1), link(1, 3, 2), link(1, 2, 5), link(1, 4, 9, is_linked=False)]
    before = people([each.fact for each in known], links, set())
    if parted:  # as the lane of the root says it when it is asked to erase
        links += [
            link(1, person, 20 + person, is_linked=False, by_erasure=True) for person in (2, 3)
        ]
    facts, joined, gone = [each.fact for each in known], list(links), set[bytes]()
    for person in order:
        theirs = [each for each in known if each.fact[6] == pid(person)]
        prefix = Prefix(person % 2)
        done: Tally = tally_erasures(prefix, [(7, erased(person))], 8, theirs, set(), links)
        facts += [stand_in for stand_in, _, _ in done.stand_ins]
        joined += done.links
        gone.add(pid(person))
        if not links_go_late and len(gone) == 3:
            joined = [each for each in joined if each.root != pid(1)]
    assert people(facts, joined, gone) == before


def test_rows_that_join_anonymous_ones_name_nobody() -> None:
    chance = random.Random(3)
    known = [fact(chance, 2) for _ in range(30)]
    links = [link(1, 2, 1)]
    done = tally_erasures(Prefix(0), [(7, erased(2))], 8, known, set(), links)
    assert done.links
    named = {name for each in done.links for name in (each.root, each.member, each.salt)}
    assert not named & {pid(1), pid(2), erased(2).erasure_id, erased(2).salt, links[0].salt}
    again = tally_erasures(Prefix(0), [(7, erased(2))], 8, known[::-1], set(), links)
    assert again.links == done.links


def test_whoever_is_alone_leaves_no_link() -> None:
    known = [fact(random.Random(5), 2) for _ in range(30)]
    done = tally_erasures(Prefix(0), [(7, erased(2))], 8, known, set(), [])
    assert done.stand_ins
    assert done.links == []


def test_newest_word_on_a_pair_is_in_force_whatever_the_order() -> None:
    links = [
        link(1, 2, 5),
        link(1, 2, 9, is_linked=False),
        link(1, 2, 2, generation=2),
        link(1, 3, 4),
        link(1, 3, 8, is_linked=False),
    ]
    for some in itertools.permutations(links):
        assert roots_in_force(some) == {pid(2): pid(1)}


def test_between_two_roots_the_smaller_counts() -> None:
    assert roots_in_force([link(7, 2, 5), link(1, 2, 3)]) == {pid(2): pid(1)}


def test_all_pids_of_a_person_find_one_salt() -> None:
    links = [link(1, 3, 2), link(1, 2, 5), link(4, 5, 1)]
    salts = salts_of_people(map(pid, (1, 2, 3, 4, 5, 6)), links)
    assert salts[pid(1)] == salts[pid(2)] == salts[pid(3)] == links[0].salt
    assert salts[pid(4)] == salts[pid(5)] == links[2].salt
    assert pid(6) not in salts


def test_record_of_a_lane_is_a_row_at_its_place() -> None:
    linked = Linked(pid(2), pid(1), True, 3, 5, 7, "p.subjects.moves", 5, 11, 2, b"s" * 16)
    assert link_row(linked, 4, 99) == Link(pid(1), pid(2), True, False, 3, 4, 99, b"s" * 16)
    left = msgspec.structs.replace(linked, is_linked=False)
    assert not link_row(left, 4, 99).by_erasure
    by_erasure = msgspec.structs.replace(left, source_topic="p.erasures.requested")
    assert link_row(by_erasure, 4, 99).by_erasure
