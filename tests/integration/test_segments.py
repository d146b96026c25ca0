"""Are people in the segments that the log defines, from the event on that brings them in until time
takes them out?"""

import random
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest

from runtime.segment_log import apply_segments, newest_segments, segments_of
from schemas.codec import ERASURE_REQUESTED, SEGMENT_CHANGED
from schemas.events import Collected
from schemas.requests import ErasureRequested
from schemas.segment_records import SegmentChanged
from schemas.segments import REPEAT_BUYERS, Segment, parse_segments
from tests.stream_log import ORDER, Log, make_event, new_log
from tests.stream_worker import Worker
from tests.waiting import eventually

HOUR_MS = 3_600_000
LEFT_MS = (4_000, 16_000, 64_000)
"""So long before a window's edge an event of these tests happened. One that reached its lane only
after the edge, on a busy machine, shows nothing: then the next, of somebody else, has more time."""


@pytest.fixture(scope="module")
def log(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    log = new_log(kafka, f"segments-{uuid4().hex[:12]}")
    with Worker(
        tmp_path_factory.mktemp("segments"), "w1", log.settings.model_dump_json()
    ) as worker:
        worker.start().wait_open()
        yield log


def segments(*definitions: dict[str, object]) -> tuple[Segment, ...]:
    return parse_segments(definitions)


def changes_of(log: Log, pid: bytes) -> list[tuple[str, bool, int]]:
    """(segment, entered, version of the definitions) in the order of the log."""
    found: list[SegmentChanged] = [
        SEGMENT_CHANGED.decode(value)
        for _, key, value in log.read(log.topics.segments_changed)
        if key == pid
    ]
    return [(each.segment_id, each.entered, each.version) for each in found]


def views(pid: bytes, category: str, *, before_edge_ms: int) -> Collected:
    """A view that leaves a window of an hour so soon."""
    now_ms = time.time_ns() // 1_000_000
    return make_event(
        pid=pid,
        event="Product Viewed",
        occurred_at_ms=now_ms - HOUR_MS + before_edge_ms,
        received_at_ms=now_ms,
        clear={"properties": {"category": category}},
    )


def test_people_enter_by_event_leave_by_clock_and_fill_what_is_defined_later(log: Log) -> None:
    lately = {"event": "Product Viewed", "within_hours": 1, "where": {"category": "shoes"}}
    first = segments(
        {"id": "shoes_lately", "condition": lately},
        {"id": "others", "condition": {"not": {"segment": "shoes_lately"}}},
    )
    applied = apply_segments(log.settings, first)
    assert applied is not None and applied.version == 1
    assert apply_segments(log.settings, first) is None  # nothing new
    log.wait_applied()
    staying, elsewhere = (random.randbytes(16) for _ in range(2))
    log.send(
        [
            views(staying, "shoes", before_edge_ms=HOUR_MS),
            views(elsewhere, "books", before_edge_ms=HOUR_MS),
        ]
    )
    log.wait_applied()
    for left_ms in LEFT_MS:
        passing = random.randbytes(16)
        log.send([views(passing, "shoes", before_edge_ms=left_ms)])
        log.wait_applied()
        if changes_of(log, passing)[0] == ("shoes_lately", True, 1):
            break
    assert changes_of(log, passing)[0] == ("shoes_lately", True, 1)
    assert log.subjects()[staying].segments == ["shoes_lately"]
    assert log.subjects()[elsewhere].segments == ["others"]

    # Nothing more happens to them.
    eventually(lambda: log.subjects()[passing].segments == ["others"], within_s=100)
    assert sorted(changes_of(log, passing)[1:]) == [("others", True, 1), ("shoes_lately", False, 1)]
    assert log.subjects()[passing].wake_at_ms == 0
    assert changes_of(log, staying) == [("shoes_lately", True, 1)]

    second = segments({"id": "seen", "condition": {"computed": "events", "at_least": 1}})
    apply_segments(log.settings, second)
    assert segments_of(newest_segments(log.settings)) == second
    eventually(lambda: log.subjects()[staying].segments == ["seen"], within_s=30)
    eventually(lambda: log.subjects()[elsewhere].segments == ["seen"], within_s=30)
    assert sorted(changes_of(log, elsewhere)[1:]) == [("others", False, 2), ("seen", True, 2)]


def test_what_is_in_force_is_applied_anew_where_a_partition_was_added_since(kafka: str) -> None:
    settings = new_log(kafka, f"segments-{uuid4().hex[:12]}").settings
    of_one = settings.kafka.model_copy(update={"partitions": 1})
    wanted = segments({"id": "seen", "condition": {"computed": "events", "at_least": 1}})
    before = settings.model_copy(update={"kafka": of_one})
    assert apply_segments(before, wanted) is not None
    assert apply_segments(before, wanted) is None
    again = apply_segments(settings, wanted)
    assert again is not None and again.version == 2
    assert apply_segments(settings, wanted) is None


def test_an_erased_person_leaves_all(log: Log) -> None:
    pid = random.randbytes(16)
    orders = [
        make_event(
            pid=pid,
            event=ORDER,
            clear={"properties": {"order_id": n, "total": "5.00", "currency": "EUR"}},
        )
        for n in range(2)
    ]
    log.send(orders)
    log.wait_applied()
    entered = [id_ for id_, is_in, _ in changes_of(log, pid) if is_in]
    assert REPEAT_BUYERS in entered
    now_ms = time.time_ns() // 1_000_000
    request = ErasureRequested(random.randbytes(16), pid, now_ms, "by the person")
    log.producer.produce(log.topics.erasures, ERASURE_REQUESTED.encode(request), pid)
    log.flush()
    log.wait_applied()
    left = [id_ for id_, is_in, _ in changes_of(log, pid) if not is_in]
    assert sorted(left) == sorted(entered)
    assert log.subjects()[pid].segments == []
