"""A batch's rows are absolute, and the same whatever was written before."""

from typing import Any

from schemas.events import Accepted, VisitChange
from sinks.rules.counters import (
    Counter,
    Plan,
    Prefix,
    forget_idle,
    missing_counters,
    plan_write,
    tally,
)


def event(index: int, campaign: str = "spring", **changes: Any) -> Accepted:
    fields: dict[str, Any] = {
        "event_id": index.to_bytes(16, "big"),
        "pid": b"p" * 16,
        "source": "shop",
        "type": "page",
        "event": "",
        "occurred_at_ms": 60_000,
        "sent_at_ms": None,
        "received_at_ms": 60_000,
        "flags": 0,
        "body_digest": 0,
        "clear": b"{}",
        "traits": [],
        "key_version": 1,
        "sealed": b"",
        "generation": 1,
        "lane": 0,
        "seq": 1,
        "source_topic": "events.collected",
        "source_partition": 0,
        "source_offset": index,
        "index": index,
        "campaign_id": campaign,
        "is_repeat_order": False,
        "amount_micro": None,
        "currency": "",
        "visit_changes": [],
    }
    return Accepted(**(fields | changes))


VIEWS = ("spring", "page_views", "", 60, 1)
VISITS = ("spring", "visits", "", 60, 1)


def write(prefix: Prefix, batch: list[tuple[int, Accepted]], next_offset: int) -> Plan:
    return plan_write(prefix, tally(prefix, batch, next_offset))


def test_counters_are_absolute_and_say_how_far_they_go() -> None:
    prefix = Prefix(7)
    first = write(prefix, [(3, event(1)), (5, event(2))], 6)
    assert first.counters == [(*VIEWS, 7, 2, 5)]
    second = write(prefix, [(8, event(3))], 10)
    assert second.counters == [(*VIEWS, 7, 3, 8)]
    assert (second.progress.next_offset, second.progress.records) == (10, 3)
    assert second.progress.highest == {0: (1, 1, 3)}


def test_a_batch_that_was_written_before_a_crash_counts_once() -> None:
    batch = [(3, event(1)), (5, event(2)), (6, event(3))]
    torn = Prefix(0, counters={VIEWS: Counter(2, 5)})
    plan = write(torn, batch, 7)
    assert plan.counters == [(*VIEWS, 0, 3, 6)]
    assert len(plan.facts) == 3

    whole = Prefix(0, counters={VIEWS: Counter(3, 6)})
    plan = write(whole, batch, 7)
    # Said again: a store that went back since it was read may have lost it.
    assert plan.counters == [(*VIEWS, 0, 3, 6)]
    assert len(plan.facts) == 3
    assert plan.progress.records == 3


def test_an_event_may_add_twice_to_one_counter() -> None:
    both = [VisitChange("spring", 60_000, -1), VisitChange("spring", 61_000, 1)]
    again = Prefix(0, counters={VISITS: Counter(5, 2), VIEWS: Counter(1, 2)})
    plan = write(again, [(2, event(1)), (3, event(2, visit_changes=both))], 4)
    assert (*VISITS, 0, 5, 3) in plan.counters


def test_a_coordinate_that_does_not_rise_is_dropped_and_told() -> None:
    prefix = Prefix(0)
    done = tally(prefix, [(0, event(5)), (1, event(5)), (2, event(4)), (3, event(1, lane=1))], 4)
    assert [(repeat.offset, repeat.lane) for repeat in done.repeats] == [(1, 0), (2, 0)]
    plan = plan_write(prefix, done)
    assert plan.progress.records == 2
    assert plan.counters == [(*VIEWS, 0, 2, 3)]
    assert [fact[4] for fact in plan.facts] == [0, 3]


def test_a_new_generation_begins_its_coordinates_anew() -> None:
    prefix = Prefix(0)
    done = tally(prefix, [(0, event(5, seq=9)), (1, event(1, generation=2))], 2)
    assert done.repeats == []
    assert {key[4] for key in done.added} == {1, 2}


def test_what_an_older_generation_counted_is_left_out_and_the_rest_is_counted() -> None:
    prefix = Prefix(0, counted_before={1: 2})
    plan = write(
        prefix, [(0, event(1)), (1, event(2)), (2, event(3)), (3, event(1, generation=2))], 4
    )
    assert [fact[4] for fact in plan.facts] == [2, 3]
    assert plan.progress.records == 2


def test_what_any_older_generation_found_is_left_out() -> None:
    """The third generation's sink leaves out what the second counted of the first."""
    prefix = Prefix(0, counted_before={1: 2, 2: 4})
    plan = write(
        prefix, [(1, event(1)), (3, event(2)), (5, event(3)), (6, event(1, generation=3))], 7
    )
    assert [fact[4] for fact in plan.facts] == [5, 6]
    assert plan.progress.records == 2


def test_idle_counters_are_forgotten_and_then_looked_up() -> None:
    prefix = Prefix(0)
    write(prefix, [(0, event(1, "a")), (1, event(2, "b"))], 2)
    done = tally(prefix, [(2, event(3, "c"))], 3)
    assert missing_counters(prefix, done) == []
    plan_write(prefix, done)
    forget_idle(prefix, done, limit=2)
    assert {key[0] for key in prefix.counters} == {"c"}
    done = tally(prefix, [(3, event(4, "a")), (4, event(5, "c"))], 5)
    assert [key[0] for key in missing_counters(prefix, done)] == ["a"]
