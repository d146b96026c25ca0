"""Does the fast demo's ledger keep what docs/journeys.md and docs/automation.md promise?

Each customer here plays one part on Monday, 5 January 2026, in Prague, one hour ahead of UTC.
"""

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from producers.rules.cart_days import Customer, Deed, Kind, Story, monday_before, tell_story
from producers.rules.cart_ledger import (
    Told,
    clock,
    differences,
    differing_moves,
    messages_of,
    moves_of,
)

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
BEGINS_MS = int(MONDAY.timestamp()) * 1000
HOUR_MS = 3_600_000
SOMEBODY = Customer(1, "Europe/Prague")
Act = tuple[Kind, float]
"""A kind, and how many hours after midnight in UTC."""


def story_of(*acts: Act, customer: Customer = SOMEBODY) -> Story:
    deeds = []
    for number, (kind, hours) in enumerate(acts):
        at_ms = BEGINS_MS + round(hours * HOUR_MS)
        deeds.append(Deed(customer, kind, at_ms, at_ms, number))
    return Story((customer,), tuple(deeds), BEGINS_MS)


def told(story: Story) -> list[str]:
    return [
        " ".join([
            each.journey, str(each.number), each.outcome, clock(each.at_ms),
            *(f"held until {clock(at_ms)}" for at_ms in each.held_until_ms),
        ])
        for each in messages_of(story)
    ]  # fmt: skip


def test_cart_left_behind_is_told_of_after_an_hour_and_after_a_day() -> None:
    found = told(story_of(("add", 10)))
    assert found == ["cart 1 sent Mon 11:00", "cart 2 sent Tue 11:00"]


@pytest.mark.parametrize("ends", ["order", "remove"])
def test_cart_that_was_bought_or_emptied_in_time_is_not_told_of(ends: Kind) -> None:
    assert told(story_of(("add", 10), (ends, 10.5))) == []


def test_change_puts_the_reminder_off_and_twice_is_offered_something_that_the_limits_stop() -> None:
    assert told(story_of(("add", 10), ("add", 10.5))) == [
        "cart 1 sent Mon 11:30",
        "cart-offer 1 day_cap Mon 13:30",
        "cart 2 sent Tue 11:30",
        "cart-offer 2 week_cap Wed 13:30",
    ]


def test_order_after_the_first_reminder_spares_the_second() -> None:
    assert told(story_of(("add", 10), ("order", 12.5))) == ["cart 1 sent Mon 11:00"]


def test_order_that_is_heard_of_too_late_spares_only_what_comes_after() -> None:
    story = story_of(("add", 10), ("order", 10.5))
    late = Deed(SOMEBODY, "order", story.deeds[1].occurred_at_ms, BEGINS_MS + 12 * HOUR_MS, 1)
    story = Story(story.customers, (story.deeds[0], late), BEGINS_MS)
    assert told(story) == ["cart 1 sent Mon 11:00"]


def test_nights_in_prague_end_at_eight_by_its_clocks() -> None:
    assert told(story_of(("add", 20))) == [
        "cart 1 sent Tue 07:00 held until Tue 07:00",
        "cart 2 sent Wed 07:00 held until Wed 07:00",
    ]


@pytest.mark.parametrize(
    ("kind", "rule"),
    [("order", "purchase_since"), ("remove", "cart_changed"), ("refuse", "purpose"),
     ("unsubscribe", "subscription")],
)  # fmt: skip
def test_what_happens_over_night_is_seen_in_the_morning(kind: Kind, rule: str) -> None:
    found = told(story_of(("add", 20), (kind, 30.5)))
    assert found[0] == f"cart 1 {rule} Tue 07:00 held until Tue 07:00"


@pytest.mark.parametrize(
    ("customer", "rule"),
    [(Customer(1, "UTC", agrees=False), "purpose"),
     (Customer(1, "UTC", subscribes=False), "subscription")],
)  # fmt: skip
def test_without_consent_or_subscription_nothing_goes(customer: Customer, rule: str) -> None:
    found = messages_of(story_of(("add", 10), customer=customer))
    assert [each.outcome for each in found] == [rule, rule]


def test_segment_is_left_a_day_after_the_last_event_without_another() -> None:
    moves = moves_of(story_of(("add", 10), ("add", 20)))
    at = {(segment, way): clock(at_ms) for segment, way, at_ms in moves}
    assert at == {
        ("active_today", "entered"): "Mon 10:00",
        ("active_today", "left"): "Tue 20:00",
        ("eager", "entered"): "Mon 20:00",
    }
    assert set(moves.values()) == {1}


def test_what_differs_is_named() -> None:
    sent = Told("customer-1", "cart", 1, BEGINS_MS, "sent")
    [missing] = differences([sent], [])
    assert missing == "expected and not there: cart 1 to customer-1: sent at Mon 00:00"
    [extra] = differences([sent], [sent, sent])
    assert extra.startswith("there and not expected")
    moved = ("eager", "left", BEGINS_MS)
    [line] = differing_moves(Counter(), Counter([moved]))  # type: ignore[list-item]
    assert line == "eager: expected 0 to have left at Mon 00:00, got 1"


def test_story_is_the_same_for_the_same_seed_and_leaves_nothing_open() -> None:
    for seed in range(50):
        story = tell_story(seed, 100, MONDAY)
        assert story == tell_story(seed, 100, MONDAY)
        found = messages_of(story)
        assert found
        assert all(each.at_ms < story.ends_at_ms for each in found)
        assert len(set(found)) == len(found)
        assert moves_of(story)


def test_each_outcome_of_the_documentation_happens_in_a_small_story() -> None:
    found = messages_of(tell_story(1, 24, MONDAY))
    assert {each.outcome for each in found} == {
        "sent", "purpose", "subscription", "purchase_since", "cart_changed", "day_cap", "week_cap",
    }  # fmt: skip
    assert any(each.held_until_ms for each in found)


def test_story_that_the_test_of_the_demo_lives_through_is_the_same_on_any_monday() -> None:
    """It begins on the Monday before it runs (tests/integration/test_demo.py): summer time and the
    turn of a year must change none of what is expected there."""
    for week in range(110):
        story = tell_story(46, 4, MONDAY + timedelta(weeks=week))
        found = messages_of(story)
        assert Counter(each.outcome for each in found) == {
            "sent": 2, "purchase_since": 1, "day_cap": 1, "week_cap": 1,
        }  # fmt: skip
        assert [bool(each.held_until_ms) for each in found].count(True) == 1
        left = [count for (_, way, _), count in moves_of(story).items() if way == "left"]
        assert left == [1, 1]


@pytest.mark.parametrize("day", range(1, 8))
def test_the_four_days_are_over_and_of_one_week(day: int) -> None:
    now = datetime(2026, 1, day, 12, 34, tzinfo=UTC)
    monday = monday_before(int(now.timestamp() * 1000))
    assert (monday.weekday(), monday.hour, monday.minute) == (0, 0, 0)
    assert 4 <= (now - monday).total_seconds() / 86_400 < 11
