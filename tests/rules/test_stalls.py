"""A stall is told from progress, from having nothing to do, and from what cannot be known."""

from hypothesis import given
from hypothesis import strategies as st

from runtime.stalls import LogRange, Place, Stall, Standing, beyond, lag_of, stuck, watch_on

HERE: Place = ("events.collected", 0)
OTHER: Place = ("events.collected", 1)
LIMIT_S = 60.0


def watched(*seen: tuple[int | None, tuple[int, ...], int], every_s: float = 10) -> Stall:
    """What is known of HERE after looks of (position, signs, end of the log)."""
    stalls: dict[Place, Stall] = {}
    for position, signs, end in seen:
        standings = {HERE: Standing(position, signs)}
        stalls = watch_on(stalls, standings, {HERE: LogRange(0, end)}, elapsed_s=every_s)
    return stalls[HERE]


def test_lag_without_progress_adds_up_from_the_look_that_saw_it_first() -> None:
    assert watched((5, (), 5)).for_s == 0
    assert watched((5, (), 5), (5, (), 9)).for_s == 0, "it may have come just now"
    assert watched((5, (), 5), (5, (), 9), (5, (), 9), (5, (), 20)).for_s == 20


def test_any_progress_begins_anew() -> None:
    stalled = [(5, (1,), 9)] * 4
    assert watched(*stalled).for_s == 30
    assert watched(*stalled, (6, (1,), 9)).for_s == 0, "the position moved"
    assert watched(*stalled, (5, (2,), 9)).for_s == 0, "a sign of life"
    assert watched(*stalled, (6, (1,), 9), (6, (1,), 9)).for_s == 10


def test_nothing_to_do_is_no_stall_however_long() -> None:
    assert watched(*[(9, (), 9)] * 100).for_s == 0
    assert watched(*[(None, (), 0)] * 100).for_s == 0, "an empty log needs no position"


def test_an_unknown_position_has_all_of_the_log_before_it() -> None:
    assert lag_of(Standing(None), LogRange(100, 130)) == 30
    assert lag_of(Standing(0), LogRange(100, 130)) == 30, "retention deleted what lay before"
    assert lag_of(Standing(140), LogRange(100, 130)) == 0, "an end that was asked for earlier"
    assert watched(*[(None, (7,), 9)] * 4).for_s == 30
    assert watched(*[(None, (records,), 9) for records in range(100)]).for_s == 0


def test_partitions_are_judged_apart_and_forgotten_when_they_go() -> None:
    logs = {HERE: LogRange(0, 100), OTHER: LogRange(0, 100)}
    stalls: dict[Place, Stall] = {}
    for position in range(8):
        standings = {HERE: Standing(1), OTHER: Standing(position)}
        stalls = watch_on(stalls, standings, logs, elapsed_s=10)
    assert stuck(stalls, limit_s=LIMIT_S) == HERE
    stalls = watch_on(stalls, {OTHER: Standing(9)}, logs, elapsed_s=10)
    assert stalls.keys() == {OTHER}
    assert stuck(stalls, limit_s=LIMIT_S) is None


def test_position_beyond_the_end_tells_a_log_that_went_back() -> None:
    standings = {HERE: Standing(9), OTHER: Standing(None)}
    assert beyond(standings, {HERE: LogRange(0, 8), OTHER: LogRange(0, 0)}) == {HERE}
    assert beyond(standings, {HERE: LogRange(0, 9)}) == set()
    assert beyond(standings, {}) == set()


def test_nothing_is_said_of_a_log_that_is_not_known() -> None:
    assert watch_on({}, {HERE: Standing(1)}, {}, elapsed_s=1_000) == {}
    assert stuck({}, limit_s=LIMIT_S) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 4)), min_size=1))
def test_the_stall_is_the_time_since_the_last_progress_or_rest(
    looks: list[tuple[int, int, int]],
) -> None:
    """Counted again from the end, without a memory of stalls."""
    quiet = 0
    last = looks[-1]
    for position, sign, end in reversed(looks[:-1]):
        if (position, sign) != last[:2] or end <= position or last[2] <= last[0]:
            break
        quiet += 1
    seen = [(position, (sign,), end) for position, sign, end in looks]
    assert watched(*seen, every_s=1).for_s == quiet
