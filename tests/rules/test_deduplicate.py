"""Is every call recognised within the window, across restarts, and forgotten after it?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import Collected
from schemas.subjects import Sightings
from streams.rules.deduplicate import REUSED, Memory
from streams.rules.outcomes import DUPLICATE
from tests.stream_log import START_MS, make_event

WINDOW_MS = 1_000


def event(number: int, received_at_ms: int, digest: int = 7) -> Collected:
    return make_event(
        event_id=bytes([number]) * 16, received_at_ms=START_MS + received_at_ms, body_digest=digest
    )


def test_first_sighting_is_new_and_the_second_is_a_duplicate() -> None:
    memory = Memory(WINDOW_MS)
    assert memory.recognise(event(1, 0)) is None
    assert memory.recognise(event(1, 0)) is DUPLICATE
    assert memory.recognise(event(2, 0)) is None


def test_same_id_with_another_body_is_refused_and_changes_nothing() -> None:
    memory = Memory(WINDOW_MS)
    memory.recognise(event(1, 0))
    assert memory.recognise(event(1, 5, digest=8)) is REUSED
    assert memory.recognise(event(1, 5)) is DUPLICATE


@pytest.mark.parametrize("digest", [0, 1, -1, 2**31 - 1, -(2**31)])
def test_digest_is_told_apart_over_its_whole_range(digest: int) -> None:
    memory = Memory(WINDOW_MS)
    memory.recognise(event(1, 0, digest))
    assert memory.recognise(event(1, 0, digest)) is DUPLICATE
    assert memory.recognise(event(1, 0, digest ^ 1)) is REUSED
    again = restarted(memory)
    assert again.recognise(event(1, 0, digest)) is DUPLICATE
    assert again.recognise(event(1, 0, digest ^ 1)) is REUSED


@pytest.mark.parametrize(("later_ms", "is_known"), [(WINDOW_MS, True), (WINDOW_MS + 1, False)])
def test_window_includes_its_last_millisecond(later_ms: int, is_known: bool) -> None:
    memory = Memory(WINDOW_MS)
    memory.recognise(event(1, 0))
    assert (memory.recognise(event(1, later_ms)) is DUPLICATE) == is_known


def test_copy_received_earlier_than_the_first_is_a_duplicate() -> None:
    memory = Memory(WINDOW_MS)
    memory.recognise(event(1, 500))
    assert memory.recognise(event(1, 0)) is DUPLICATE


def test_copy_after_the_window_begins_a_window_of_its_own() -> None:
    memory = Memory(WINDOW_MS)
    memory.recognise(event(1, 0))
    memory.take_fresh(1)
    assert memory.recognise(event(1, 2_000)) is None
    memory.take_fresh(2)
    assert memory.forget_expired(START_MS + 2_000) == [1]
    assert memory.recognise(event(1, 2_500)) is DUPLICATE


def test_expired_transactions_are_named_once_and_their_ids_are_gone() -> None:
    memory = Memory(WINDOW_MS)
    for seq, received_at_ms in enumerate((0, 400, 1_001, 1_500), 1):
        memory.recognise(event(seq, received_at_ms))
        memory.take_fresh(seq)
    assert memory.forget_expired(START_MS + 1_500) == [1, 2]
    assert memory.forget_expired(START_MS + 1_500) == []
    assert len(memory) == 2


def test_record_with_a_wrong_clock_does_not_make_the_lane_forget() -> None:
    memory = Memory(WINDOW_MS)
    memory.recognise(event(1, 0))
    memory.take_fresh(1)
    memory.recognise(event(2, 10**12))
    memory.take_fresh(2)
    assert memory.forget_expired(START_MS + 900) == []
    assert memory.recognise(event(1, 950)) is DUPLICATE
    assert memory.forget_expired(START_MS + 1_100) == [1]


def test_nothing_new_writes_nothing() -> None:
    memory = Memory(WINDOW_MS)
    memory.recognise(event(1, 0))
    assert memory.take_fresh(1) is not None
    memory.recognise(event(1, 0))
    assert memory.take_fresh(2) is None


def test_sightings_hold_28_bytes_an_id() -> None:
    memory = Memory(WINDOW_MS)
    for number in range(5):
        memory.recognise(event(number, number))
    sightings = memory.take_fresh(1)
    assert sightings is not None
    assert len(sightings.ids) == 5 * 28
    assert sightings.newest_received_at_ms == START_MS + 4


def restarted(memory: Memory) -> Memory:
    """What the next owner of the lane knows after the last of `memory`'s transactions."""
    again = Memory(memory.window_ms)
    sightings = memory.take_fresh(1)
    if sightings is not None:
        again.restore(1, sightings)
    again.newest_received_at_ms = memory.newest_received_at_ms
    return again


steps = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 12), st.integers(0, 5_000), st.integers(-2, 2)),
        st.just("barrier"),
        st.just("restart"),
    ),
    max_size=60,
)


@given(steps)
def test_restarts_change_no_answer(taken: list[object]) -> None:
    """A lane that restarts now and then answers as one that never does; both as a plain list does.

    Received time rises, as it does on a log; forgetting may come at any barrier.
    """
    live, other = Memory(WINDOW_MS), Memory(WINDOW_MS)
    written: dict[int, Sightings] = {}
    plain: dict[int, tuple[int, int]] = {}
    now_ms, seq = 0, 1
    for step in taken:
        if isinstance(step, tuple):
            number, more_ms, digest = step
            now_ms += more_ms // 20
            copy = event(number, now_ms, digest)
            expected: object = None
            known = plain.get(number)
            if known is not None and now_ms - known[0] <= WINDOW_MS:
                expected = DUPLICATE if known[1] == digest else REUSED
            else:
                plain[number] = (now_ms, digest)
            assert live.recognise(copy) is expected
            assert other.recognise(copy) is expected
            continue
        live.take_fresh(seq)
        live.forget_expired(START_MS + now_ms)
        sightings = other.take_fresh(seq)
        if sightings is not None:
            written[seq] = sightings
        for expired in other.forget_expired(START_MS + now_ms):
            del written[expired]
        seq += 1
        if step == "restart":
            newest = other.newest_received_at_ms
            other = Memory(WINDOW_MS)
            other.newest_received_at_ms = newest
            for at, each in sorted(written.items()):
                other.restore(at, each)
