"""Is everybody looked at when they are due, once, and nobody else?"""

import random

from streams.rules.person import Person
from streams.rules.wakes import Wakes


def _people(count: int) -> dict[bytes, Person]:
    pids = [n.to_bytes(16, "big") for n in range(count)]
    return {pid: Person(pid) for pid in pids}


def test_everybody_is_woken_at_their_newest_time_alone() -> None:
    chance = random.Random(3)
    people = _people(50)
    wakes = Wakes()
    expected: dict[bytes, int] = {}
    now_ms = 0
    woken = 0
    for _ in range(3_000):
        if chance.random() < 0.7:
            person = chance.choice(list(people.values()))
            at_ms = chance.choice((0, now_ms + chance.randrange(1, 500)))
            wakes.set(person, at_ms)
            expected[person.pid] = at_ms
            continue
        now_ms += chance.randrange(100)
        due = [pid for pid, at_ms in expected.items() if 0 < at_ms <= now_ms]
        found = wakes.due(people, now_ms, 1_000)
        assert sorted(person.pid for person in found) == sorted(due)
        woken += len(due)
        for person in found:
            wakes.set(person, 0)
            expected[person.pid] = 0
        assert len(wakes) <= 2 * len(people)
    assert woken > 100


def test_times_survive_in_the_people() -> None:
    people = _people(9)
    wakes = Wakes()
    for at_ms, person in enumerate(people.values()):
        wakes.set(person, at_ms)
    again = Wakes(people.values())
    assert again.next_ms() == 1
    assert [person.wake_at_ms for person in again.due(people, 5, 3)] == [1, 2, 3]
    assert [person.wake_at_ms for person in again.due(people, 5, 9)] == [4, 5]


def test_nobody_waits_in_vain_for_somebody_who_is_gone() -> None:
    people = _people(3)
    wakes = Wakes()
    for person in people.values():
        wakes.set(person, 7)
    gone, erased, stays = people
    del people[gone]
    people[erased].erase(1)
    assert [person.pid for person in wakes.due(people, 7, 9)] == [stays]
    assert wakes.next_ms() is None


def test_who_is_due_but_has_to_wait_is_looked_at_later_and_at_once_after_a_start() -> None:
    person = Person(b"p" * 16)
    wakes = Wakes()
    wakes.set(person, 5, 20)
    people = {person.pid: person}
    assert (wakes.next_ms(), wakes.due(people, 19, 9)) == (20, [])
    assert Wakes([person]).next_ms() == 5
    person.wake_entry_ms = 20
    assert wakes.due(people, 20, 9) == [person]
