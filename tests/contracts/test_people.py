"""Do the counts of people that ClickHouse answers equal a count by hand, with links and without?"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator

import pytest

from consumers.campaigns.counts import CampaignCounts, Progress, Span
from consumers.campaigns.series import read_series
from consumers.clickhouse_reader import ClickHouseReader
from runtime.clickhouse import connect
from runtime.settings import ClickHouse, Kafka, Settings
from schemas.counters import PEOPLE
from schemas.topics import Topics
from sinks.counter_store import CounterStore
from sinks.migrations.apply import apply_migrations
from sinks.rules.counters import Mark
from sinks.rules.links import Link
from sinks.rules.rows import Fact
from tests.conftest import FreshName

PIDS = 12
FACTS = 150
ENDS = {0: 60, 1: 50}
"""How far the counters are: later facts, marks and links are not seen yet."""
METRICS = ("opened", "clicked", "orders", "")

Found = dict[tuple[str, str], int]


@pytest.fixture
def settings(clickhouse_url: str, fresh_name: FreshName) -> Iterator[Settings]:
    database = fresh_name("people").replace("-", "_")
    made = Settings(
        kafka=Kafka(partitions=2), clickhouse=ClickHouse(url=clickhouse_url, database=database)
    )
    with connect(made, database="default") as client:
        apply_migrations(client, database)
        yield made
        client.command(f"DROP DATABASE {database}")


def pid(number: int) -> bytes:
    return bytes([number + 1]) * 16


def fact(chance: random.Random, offset: int) -> Fact:
    metric = chance.choice(METRICS)
    return (
        chance.choice("ab"), 0, 1, offset % 2, offset // 2, 0, pid(chance.randrange(PIDS)),
        chance.randbytes(16), 60_000, 60_000, metric, int(bool(metric)), 0, "",
        int(metric in ("orders", "")), "t", 0, offset, 0, 1, 1, "web", 0,
    )  # fmt: skip


def link(chance: random.Random, offset: int) -> Link:
    # Roots are few, so that pids are joined and parted again.
    root, member = chance.randrange(4), chance.randrange(4, PIDS)
    is_linked = chance.random() < 0.7
    return Link(pid(root), pid(member), is_linked, not is_linked, 1, root % 2, offset, bytes(16))


def by_hand(facts: list[Fact], marks: list[Mark], links: list[Link], *, is_bounded: bool) -> Found:
    """(campaign, count of people) -> how many."""

    def is_seen(kp: int, offset: int) -> bool:
        return not is_bounded or offset < ENDS[kp]

    taken_back = {row[7] for row, _, offset in marks if is_seen(row[3], offset)}
    newest: dict[tuple[bytes, bytes], bool] = {}
    for each in sorted(links, key=lambda each: each.off):
        if is_seen(each.kp, each.off):
            newest[each.root, each.member] = each.is_linked
    people: defaultdict[tuple[str, str], set[bytes]] = defaultdict(set)
    for row in facts:
        if row[7] in taken_back or not is_seen(row[3], row[4]):
            continue
        roots = [root for (root, who), is_in in newest.items() if who == row[6] and is_in]
        for name, metric in PEOPLE.items():
            if row[10] == metric or (metric == "visitor" and row[14]):
                people[row[0], name].add(min(roots, default=row[6]))
    return {key: len(persons) for key, persons in people.items()}


async def counted(settings: Settings) -> Found:
    reader = ClickHouseReader(settings.clickhouse)
    try:
        reached = Progress({(1, kp): end for kp, end in ENDS.items()}, None)
        found = await CampaignCounts(reader, Topics()).count(Span(), reached)
        return {
            (campaign_id, name): sums.numbers[name]
            for campaign_id, sums in found.by_campaign.items()
            for name in PEOPLE
            if sums.numbers.get(name)
        }
    finally:
        await reader.close()


async def in_series(settings: Settings) -> Found:
    reader = ClickHouseReader(settings.clickhouse)
    try:
        series = {
            (campaign_id, name): await read_series(reader, campaign_id, name, 60, Span())
            for campaign_id in "ab"
            for name in PEOPLE
        }
        return {key: points[""][0][1] for key, points in series.items() if points}
    finally:
        await reader.close()


@pytest.mark.parametrize("are_linked", [False, True])
def test_people_are_counted_as_by_hand(settings: Settings, are_linked: bool) -> None:
    chance = random.Random(9)
    store = CounterStore(settings, Topics().accepted)
    facts = [fact(chance, offset) for offset in range(FACTS)]
    marks = [(row, 1, row[4] + chance.randrange(40)) for row in chance.sample(facts, 25)]
    links = [link(chance, chance.randrange(80)) for _ in range(30)] if are_linked else []
    links = list({(each.kp, each.off): each for each in links}.values())
    for _ in range(2):  # what a crash makes a sink repeat
        store.insert_links(links)
        store.insert_facts(facts)
    store.insert_marks(marks)
    truth = by_hand(facts, marks, links, is_bounded=True)
    assert asyncio.run(counted(settings)) == truth, "people counted otherwise"
    if are_linked:
        assert truth != by_hand(facts, marks, [], is_bounded=True)
    assert asyncio.run(in_series(settings)) == by_hand(facts, marks, links, is_bounded=False)
    store.close()
