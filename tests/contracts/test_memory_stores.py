"""Do the stores of the models behave as the real ones?

The same random calls go to both; answers and what is there at the end must be equal.
"""

import random
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from runtime.clickhouse import connect
from runtime.settings import ClickHouse, Kafka, Settings
from schemas.counters import MOVED
from schemas.topics import Topics
from sinks import profile_store
from sinks.counter_store import CounterStore
from sinks.counter_tables import Store
from sinks.migrations.apply import apply_migrations
from sinks.rules.counters import CounterRow, Progress
from sinks.rules.links import Link
from sinks.rules.retract import KnownFact
from sinks.rules.rows import Fact
from tests.conftest import FreshName
from tests.model.memory_clickhouse import MemoryClickHouse, MemoryCounterStore
from tests.model.memory_redis import MemoryRedis

CALLS = 400


def test_scripts_of_redis_do_what_the_model_does(
    redis_client: "redis.Redis", fresh_name: FreshName
) -> None:
    chance = random.Random(1)
    memory, prefix = MemoryRedis(chance), f"{fresh_name('scripts')}:"
    set_if_newer = redis_client.register_script(profile_store._SET_IF_NEWER)
    move_cursor = redis_client.register_script(profile_store._MOVE_CURSOR)
    differing = []
    for number in range(CALLS):
        key = f"{prefix}{chance.randrange(5)}"
        args: list[Any]
        if chance.random() < 0.7:
            args = [
                str(chance.randint(1, 3)),
                chance.randrange(30),
                chance.choice((b"", b"p", b"q")),
                chance.choice(("", "a", "a b", "c")),
                key[-1],
                f"{prefix}segment:",
            ]
            real, model = set_if_newer([key], args), memory.set_if_newer([key], args)
        else:
            keys = [f"{key}:cursor", f"{key}:applied"]
            args = [
                chance.choice((b"", b"1:1", b"1:2")),
                chance.choice((b"1:1", b"1:2", b"1:3")),
                chance.choice((b"", b"stood", b"stands")),
            ]
            real, model = move_cursor(keys, args), memory.move_cursor(keys, args)
        if real != model:
            differing.append((number, args, real, model))
    assert not differing, f"scripts differ from the model: {differing[:3]}"
    for key, held in memory.hashes.items():
        told: dict[Any, Any] = dict(redis_client.hgetall(key))
        there = {name.decode(): value for name, value in told.items()}
        assert there == held, "hashes differ from the model"
    for key, members in memory.sets.items():
        told_members: Any = redis_client.zrange(key, 0, -1)
        assert {each.decode() for each in told_members} == members, "sets differ from the model"
    for key, cursor in memory.strings.items():
        assert redis_client.get(key) == cursor, "cursors differ from the model"


@pytest.fixture
def clickhouse_settings(clickhouse_url: str, fresh_name: FreshName) -> Iterator[Settings]:
    database = fresh_name("model").replace("-", "_")
    settings = Settings(
        kafka=Kafka(partitions=2), clickhouse=ClickHouse(url=clickhouse_url, database=database)
    )
    with connect(settings, database="default") as client:
        apply_migrations(client, database)
        yield settings
        client.command(f"DROP DATABASE {database}")


def test_tables_of_clickhouse_do_what_the_model_does(clickhouse_settings: Settings) -> None:
    chance = random.Random(2)
    topic = Topics().accepted
    memory = MemoryClickHouse(chance)
    memory.is_calm = True
    stores: list[tuple[Store, Store]] = []
    for generation in (1, 2):
        kafka = clickhouse_settings.kafka.model_copy(update={"generation": generation})
        real = CounterStore(clickhouse_settings.model_copy(update={"kafka": kafka}), topic)
        stores.append((real, MemoryCounterStore(memory, generation)))
    for _ in range(25):
        facts = [_fact(chance) for _ in range(chance.randint(1, 4))]
        counters = [_counter(chance) for _ in range(chance.randint(1, 4))]
        # A process writes at most one row a partition at once.
        progress = [_progress(chance, kp) for kp in range(2) if chance.random() < 0.7]
        # What takes a fact back, or gives it to another campaign, is the same whenever it is told.
        marked = _fact(chance)
        marks = [(marked, 1 + marked[4] % 2, 5 - marked[4])]
        links = [_link(chance) for _ in range(chance.randint(0, 3))]
        for store in chance.choice(stores):
            store.insert_links(links)
            store.insert_facts(facts)
            store.insert_marks(marks)
            store.insert_counters(counters)
            store.insert_progress(progress, 0)
    for there, model in stores:
        for kp in range(2):
            known = model.all_counters(kp)
            assert there.all_counters(kp) == known, "counters differ from the model"
            people = [bytes([number]) * 16 for number in range(2)]
            assert _sorted(there.facts_of(kp, people)) == _sorted(model.facts_of(kp, people)), (
                "facts of people differ from the model"
            )
            assert sorted(there.marked_people(kp)) == sorted(model.marked_people(kp))
            some_people = [bytes([chance.randrange(6)]) * 16]
            rows = set(there.links_of(some_people))  # a row that was written again is there twice
            assert rows == set(model.links_of(some_people)), "links differ from the model"
            some = list(known)[::2]
            assert there.some_counters(kp, some) == model.some_counters(kp, some)
        assert there.progress([0, 1]) == model.progress([0, 1]), "progress differs from the model"
        assert there.positions([0, 1]) == model.positions([0, 1])
    with connect(clickhouse_settings) as client:
        ((count,),) = client.query("SELECT count() FROM facts FINAL").result_rows
    assert count == len(memory.facts), "facts differ from the model"


def _sorted(facts: list[KnownFact]) -> list[KnownFact]:
    return sorted(facts, key=lambda known: known.fact)


def _fact(chance: random.Random) -> Fact:
    off, byte = chance.randrange(6), bytes([chance.randrange(2)]) * 16
    return (
        chance.choice("ab"), 1, chance.randint(1, 2), chance.randrange(2), off,
        chance.choice((0, 1, MOVED)), byte, byte, 1, 1, "opened", 1, 0, "", 1, "t", 0, off, 0, 1, 1, "web", 1,
    )  # fmt: skip


def _link(chance: random.Random) -> Link:
    root, member, off = (chance.randrange(6) for _ in range(3))
    # One record has one row.
    salt = bytes([root, member]) * 8
    return Link(
        bytes([root]) * 16, bytes([member]) * 16, off % 2 == 0, off % 3 == 0, 1, root % 2, off, salt
    )


def _counter(chance: random.Random) -> CounterRow:
    last_offset = chance.randrange(30)
    # One prefix has one sum: rows of one version are equal.
    return ("a", chance.choice(("opened", "orders")), "", 60, chance.randint(1, 2),
            chance.randrange(2), last_offset * 7, last_offset)  # fmt: skip


def _progress(chance: random.Random, kp: int) -> Progress:
    next_offset = chance.randrange(100)
    return Progress(kp, next_offset, next_offset, {0: (1, next_offset, 1)})
