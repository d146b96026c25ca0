"""What does a lane promise about its positions, its owner and its memory?

On a log in memory.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn

import pytest

from runtime.lanes import Batch
from runtime.settings import Kafka as KafkaSettings
from runtime.settings import Purpose, Settings, Time
from schemas.codec import CURSOR
from schemas.errors import StoreRefused
from schemas.subjects import CURSOR_KEY, SEEN_PREFIX, Cursor
from streams import lane as lane_module
from streams.app import arrows, lane_settings
from streams.lane import RECORDS_A_SLICE, Lane
from streams.rules.gate import Gate
from tests.lane_log import TOPICS, Died, Fetched, InlineThread, Kafka, Producer
from tests.stream_log import START_MS, make_event

COLLECTED_TOPIC = TOPICS.collected
HOUR_MS = 3_600_000
OpenLane = Callable[..., Lane]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    """A log in memory, on which `Lane` now works; a crash raises Died."""

    def die(why: str, **_where: object) -> NoReturn:
        raise Died(why)

    kafka = Kafka()
    monkeypatch.setattr(lane_module, "crash", die)
    monkeypatch.setattr(
        lane_module, "LaneProducer", lambda _servers, name, fault: Producer(kafka, name, fault)
    )
    monkeypatch.setattr(lane_module, "read_compacted", kafka.read_compacted)
    return kafka


@pytest.fixture
def clock() -> list[int]:
    """What the lanes take for the time, in ms."""
    return [START_MS]


@pytest.fixture
def open_lane(log: Kafka, clock: list[int]) -> OpenLane:
    def open_lane(*, generation: int = 1, is_trial: bool = False) -> Lane:
        settings = Settings(
            kafka=KafkaSettings(partitions=1, generation=generation, is_trial=is_trial)
        )
        lane = Lane(0, lane_settings(settings, lambda: clock[0]), arrows(TOPICS))
        lane._thread = InlineThread()  # type: ignore[assignment]
        lane.open()
        for topic in TOPICS.inputs:
            lane.start_at(topic, 0, 10**9)
        return lane

    return open_lane


def batch_of(first: int, values: list[bytes | None], to_offset: int) -> Batch:
    records = [Fetched(b"k", value, first + at) for at, value in enumerate(values)]
    return Batch(COLLECTED_TOPIC, 0, records, first, to_offset, 1)


def work(lane: Lane, *batches: Batch) -> None:
    """Apply the batches and commit."""
    for batch in batches:
        for part in lane._slices(batch):
            lane._apply(*part)
    asyncio.run(lane._barrier())


def cursors(log: Kafka) -> list[Cursor]:
    records = log.outputs[TOPICS.subjects]
    return [CURSOR.decode(value) for key, value in records if key == CURSOR_KEY]


@pytest.mark.parametrize("from_offset", [4, 6])
def test_batch_that_does_not_join_the_one_before_ends_the_process(
    open_lane: OpenLane, from_offset: int
) -> None:
    lane = open_lane()
    work(lane, batch_of(0, [None] * 5, 5))
    with pytest.raises(Died, match="the chain of offsets is broken"):
        lane._slices(batch_of(from_offset, [None], from_offset + 1))


@pytest.mark.parametrize("count", [0, 1, RECORDS_A_SLICE, RECORDS_A_SLICE + 1, 5_000])
def test_slices_cover_a_batch_with_its_offsets_without_a_record(
    open_lane: OpenLane, count: int
) -> None:
    lane = open_lane()
    slices = lane._slices(batch_of(0, [None] * count, count + 3))
    assert sum(len(records) for _, records, _ in slices) == count
    assert max(len(records) for _, records, _ in slices) <= RECORDS_A_SLICE
    ends = [to_offset for _, _, to_offset in slices]
    assert ends == sorted(set(ends))
    assert ends[-1] == count + 3


def test_offsets_without_a_record_move_the_cursor(log: Kafka, open_lane: OpenLane) -> None:
    work(open_lane(), batch_of(0, [], 2))
    [cursor] = cursors(log)
    assert {each.topic: each.next_offset for each in cursor.positions}[COLLECTED_TOPIC] == 2


@pytest.mark.parametrize("is_behind", [True, False])
def test_lane_commits_later_while_its_log_has_more(
    log: Kafka, open_lane: OpenLane, is_behind: bool
) -> None:
    """What changes twice meanwhile is written once; at the end of the log nothing waits."""
    lane = open_lane()
    lane.settings = replace(lane.settings, barrier_s=0.0)

    async def flow() -> list[int]:
        commits = []
        for batch in (batch_of(0, [None], 1), batch_of(1, [None], 2)):
            lane._is_behind = is_behind and batch.from_offset == 0
            for part in lane._slices(batch):
                await lane._apply_and_breathe(*part)
            commits.append(len(cursors(log)))
        return commits

    assert asyncio.run(flow()) == ([0, 1] if is_behind else [1, 2])


def test_idle_lane_writes_nothing(log: Kafka, open_lane: OpenLane) -> None:
    work(open_lane())
    assert not any(log.outputs.values())


@pytest.mark.parametrize(("first", "end"), [(0, 4), (6, 9)])
def test_cursor_outside_its_log_is_refused_with_the_remedy(
    open_lane: OpenLane, first: int, end: int
) -> None:
    work(open_lane(), batch_of(0, [None] * 5, 5))
    with pytest.raises(StoreRefused, match=r"raise \[kafka\] generation to 2 to begin anew"):
        open_lane().start_at(COLLECTED_TOPIC, first, end)


@pytest.mark.parametrize(("first", "end"), [(0, 5), (5, 5), (5, 9)])
def test_cursor_at_the_edge_of_its_log_is_taken(open_lane: OpenLane, first: int, end: int) -> None:
    work(open_lane(), batch_of(0, [None] * 5, 5))
    lane = open_lane()
    lane.start_at(COLLECTED_TOPIC, first, end)
    assert lane.next_offsets[COLLECTED_TOPIC] == 5


def test_risen_generation_begins_at_the_logs_start_and_keeps_what_it_knows(
    log: Kafka, open_lane: OpenLane
) -> None:
    event = make_event()
    before = open_lane()
    before.memory.recognise(event)
    before.person(event.pid).events = 7
    before.changed[event.pid] = before.person(event.pid)
    work(before, batch_of(0, [None] * 5, 5))
    lane = open_lane(generation=2)
    assert lane.next_offsets[COLLECTED_TOPIC] == 0
    assert lane.people[event.pid].events == 7
    assert len(lane.memory) == 1
    work(lane, batch_of(0, [None], 1))
    assert [(each.generation, each.seq) for each in cursors(log)] == [(1, 1), (2, 2)]


def test_risen_generation_fences_the_owner_of_the_one_before(
    log: Kafka, open_lane: OpenLane
) -> None:
    before = open_lane()
    work(before, batch_of(0, [None] * 5, 5))
    after = open_lane(generation=2)
    with pytest.raises(Died, match="fenced"):
        work(before, batch_of(5, [None], 6))
    work(after, batch_of(0, [None], 1))
    assert [each.generation for each in cursors(log)] == [1, 2]


def test_generation_behind_the_lanes_is_refused(open_lane: OpenLane) -> None:
    work(open_lane(generation=2), batch_of(0, [], 1))
    with pytest.raises(StoreRefused, match="stands in generation 2"):
        open_lane(generation=1)


def test_trial_mode_writes_under_a_new_name_each_start_and_fences_the_last(
    log: Kafka, open_lane: OpenLane, clock: list[int]
) -> None:
    before = open_lane(is_trial=True)
    work(before, batch_of(0, [], 1))
    clock[0] += 1
    after = open_lane(is_trial=True)
    assert before.producer.transactional_id != after.producer.transactional_id
    with pytest.raises(Died, match="fenced"):
        work(before, batch_of(1, [], 2))
    work(after, batch_of(1, [], 2))
    assert [each.seq for each in cursors(log)] == [1, 2]


def test_owner_in_trial_mode_that_never_committed_is_fenced(
    log: Kafka, open_lane: OpenLane, clock: list[int]
) -> None:
    """noida-db would keep its transaction open for ever, and with it everything after it hidden."""
    before = open_lane(is_trial=True)
    clock[0] += 1
    after = open_lane(is_trial=True)
    with pytest.raises(Died, match="fenced"):
        work(before, batch_of(0, [], 1))
    work(after, batch_of(0, [], 1))
    assert [each.seq for each in cursors(log)] == [1]


def test_event_ids_are_kept_for_their_window_and_then_removed_from_the_log(
    log: Kafka, open_lane: OpenLane, clock: list[int]
) -> None:
    lane = open_lane()
    for hours in (0, 71, 73, 145):
        clock[0] = START_MS + hours * HOUR_MS
        lane.memory.recognise(make_event(received_at_ms=clock[0]))
        work(lane, batch_of(lane.next_offsets[COLLECTED_TOPIC], [], hours + 1))
    newest = log.read_compacted("", TOPICS.subjects, 0, "").newest
    kept = [int.from_bytes(key[5:], "big") for key in newest if key.startswith(SEEN_PREFIX)]
    assert kept == [3, 4]
    assert len(lane.memory) == len(open_lane().memory) == 2


def test_lanes_work_by_the_configuration() -> None:
    shared = lane_settings(
        Settings(
            kafka=KafkaSettings(partitions=7, generation=3, barrier_ms=40, topic_prefix="x."),
            time=Time(deduplication_hours=2, visit_gap_minutes=10, late_grant_minutes=5),
            purposes={"analytics": Purpose(basis="legitimate_interest")},
        ),
        lambda: 5,
    )
    assert (shared.partitions, shared.generation, shared.barrier_s) == (7, 3, 0.04)
    assert shared.deduplication_ms == 2 * HOUR_MS
    assert shared.rules.visit_gap_ms == 10 * 60_000
    assert shared.rules.gate == Gate(counts=True, profiles=False, late_grant_ms=5 * 60_000)
    assert shared.topics.subjects == "x.subjects"
    assert shared.clock_ms() == 5
