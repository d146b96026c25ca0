"""Is what a person did lately kept whole, in any order, and no longer than it should?"""

import random

import pytest

from schemas.activity import MAY_PROFILE, MOST_ENTRIES, Entry, times_by_name
from schemas.varints import write_text
from streams.rules.activity import Activity

DAY_MS = 86_400_000


def _entries(count: int, chance: random.Random) -> list[Entry]:
    return [
        Entry(
            chance.randrange(40 * DAY_MS),
            at.to_bytes(8, "big"),
            chance.choice(("page", "Product Viewed", "Order Completed")),
            chance.choice(("", "spring")),
            chance.choice(("", "shoes", "hats")),
            f"p{chance.randrange(60)}",
            chance.randrange(2),
        )
        for at in range(count)
    ]


def _with(entries: list[Entry]) -> Activity:
    activity = Activity()
    for entry in entries:
        activity.add(*entry)
    return activity


def test_any_order_gives_the_same_set_and_nothing_is_lost() -> None:
    chance = random.Random(5)
    entries = _entries(300, chance)  # more texts than a short list holds
    shuffled = entries.copy()
    chance.shuffle(shuffled)
    assert _with(entries) == _with(shuffled)
    assert sorted(_with(shuffled)) == sorted(entries)
    again = Activity(bytes(_with(shuffled).packed))
    again.add(*entries[0]._replace(product="another"))
    assert len(again) == 301
    assert {entry.product for entry in again} == {entry.product for entry in entries} | {"another"}


def test_what_is_too_old_goes() -> None:
    entries = _entries(200, random.Random(6))
    activity = _with(entries)
    assert activity.forget(39 * DAY_MS)
    kept = [entry for entry in entries if entry.occurred_at_ms >= 39 * DAY_MS]
    assert 0 < len(kept) < 20
    assert sorted(activity) == sorted(kept)
    assert len(activity) == len(kept)
    assert not activity.forget(39 * DAY_MS)


def test_of_too_many_the_newest_stay() -> None:
    entries = _entries(MOST_ENTRIES + 50, random.Random(7))
    activity = _with(entries)
    assert activity.forget(0)
    assert sorted(activity) == sorted(entries)[50:]


@pytest.mark.parametrize("name", ["", "a", "ř" * 31, "a" * 63, "a" * 64, "ř" * 100])
def test_times_are_read_without_entries(name: str) -> None:
    chance = random.Random(8)
    entries = [
        entry._replace(name=chance.choice((name, entry.name)), product="ř" * chance.randrange(99))
        for entry in _entries(200, chance)
    ]
    names = [name, "page", "never"]
    found = times_by_name(bytes(_with(entries).packed), {write_text(each): each for each in names})
    expected = {
        each: sorted(
            entry.occurred_at_ms
            for entry in entries
            if entry.name == each and entry.flags & MAY_PROFILE
        )
        for each in names
    }
    assert found == {each: times for each, times in expected.items() if times}
