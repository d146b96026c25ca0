"""Do the events of a person's several pids belong to the last touch under any of them?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import Accepted, Collected
from schemas.requests import IDLE, ErasureRequested
from schemas.subjects import PID_BYTES
from schemas.touches import Touch
from streams.rules.course import differences
from streams.rules.touches import Touches
from tests.lane_log import TOPICS
from tests.lanes_together import Together
from tests.model.campaigns import campaigns_said
from tests.model.recount import decode_said
from tests.rules.test_moves import USER, claim
from tests.stream_log import EMAIL, ORDER, START_MS, make_event

DEVICE, MAIL = (bytes([at]) * PID_BYTES for at in (4, 3))
MINUTE_MS, WINDOW_MS = 60_000, 7
TOUCHES = st.lists(
    st.builds(
        Touch,
        st.integers(0, 30),
        st.integers(0, 3).map(lambda n: bytes([n]) * 8),
        st.just(0),
        st.sampled_from(("a", "b", "(none)")),
    ),
    unique_by=lambda touch: touch[:2],
    max_size=8,
).map(sorted)


@given(TOUCHES, TOUCHES)
def test_differences_are_the_moments_that_belong_to_others(
    before: list[Touch], after: list[Touch]
) -> None:
    found = differences(before, after, WINDOW_MS)
    for at_ms in range(45):
        was, now = (_campaign_at(touches, at_ms) for touches in (before, after))
        changed = [(each.before, each.after) for each in found if each[0] <= at_ms < each[1]]
        assert changed == ([(was, now)] if was != now else [])


def _campaign_at(touches: list[Touch], at_ms: int) -> str:
    known = Touches()
    known.replace(touches)
    return known.campaign_at(at_ms, WINDOW_MS)


def _event(pid: bytes, minute: int, name: str = "", campaign: str = "") -> Collected:
    properties = {"campaign_id": campaign} if campaign else {}
    if name == ORDER:
        properties |= {"order_id": f"{minute}", "total": "3", "currency": "EUR"}
    return make_event(
        event_id=bytes([minute]) * 16,
        pid=pid,
        event=name,
        occurred_at_ms=START_MS + minute * MINUTE_MS,
        clear={"properties": properties},
    )


def _campaigns(lanes: Together) -> dict[int, str]:
    """By minute the campaign of each event, after all that was said."""
    found = {}
    for p in range(lanes.partitions):
        said = [decode_said(value) for _, value in lanes.logs[TOPICS.accepted, p] if value]
        for at, campaign in campaigns_said(said).items():
            event = said[at]
            assert isinstance(event, Accepted)
            found[event.event_id[0]] = campaign
    return found


LIFE = (
    _event(DEVICE, 1, campaign="a"),
    _event(USER, 2),
    _event(MAIL, 3, EMAIL, campaign="b"),
    _event(DEVICE, 4, ORDER),
    _event(USER, 5, ORDER, campaign="c"),
    _event(DEVICE, 6),
)
ALONE = {1: "a", 2: "(none)", 3: "b", 4: "a", 5: "c", 6: "a"}
TOGETHER = {1: "a", 2: "a", 3: "b", 4: "b", 5: "c", 6: "c"}


@pytest.mark.parametrize("seed", range(6))
def test_what_any_pid_was_touched_by_decides_while_they_are_one(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    lanes = Together(monkeypatch, seed=seed)
    life = list(LIFE)
    lanes.chance.shuffle(life)
    claims = claim(DEVICE, USER), claim(MAIL, USER)
    lanes.run(*life, *claims) if seed % 2 else lanes.run(*claims).run(*life)
    assert _campaigns(lanes) == TOGETHER
    lanes.run(claim(DEVICE, USER, 5, "revoked"), claim(MAIL, USER, 5, "revoked"))
    assert _campaigns(lanes) == ALONE


def test_erased_pid_touches_its_person_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes = Together(monkeypatch)
    lanes.run(*LIFE, claim(DEVICE, USER), claim(MAIL, USER))
    lanes.run(ErasureRequested(bytes(16), MAIL, START_MS, IDLE))
    left = _campaigns(lanes)
    assert {minute: left[minute] for minute in (2, 4, 6)} == {2: "a", 4: "a", 6: "c"}
