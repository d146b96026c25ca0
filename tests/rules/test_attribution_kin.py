"""Do the events of a person's several pids belong to the last touch under any of them?"""

import random
from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import Accepted, Collected, Reattributed
from schemas.moves import Claimed
from schemas.requests import IDLE, ErasureRequested
from schemas.subjects import PID_BYTES
from schemas.touches import Touch
from sinks.rules.retract import visits_of
from streams.rules.course import differences
from streams.rules.touches import Touches
from tests.lane_log import TOPICS
from tests.lanes_together import Together
from tests.model.campaigns import campaigns_said
from tests.model.recount import decode_said
from tests.rules.test_moves import USER, claim
from tests.stream_log import EMAIL, GAP_MS, ORDER, START_MS, make_event

REFUND = "Order Refunded"
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


def _event(
    pid: bytes, minute: int, name: str = "", campaign: str = "", order: int = 0
) -> Collected:
    properties = {"campaign_id": campaign} if campaign else {}
    if name in (ORDER, REFUND):
        properties |= {"order_id": f"{order or minute}", "total": "3", "currency": "EUR"}
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
SEEDS = 60


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


@pytest.mark.parametrize("seed", range(SEEDS))
def test_refunds_are_of_the_campaign_of_the_order_under_any_pid(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    lanes = Together(monkeypatch, seed=seed)
    life = list(_life(lanes.chance))
    expected = _truth(life)
    sent: list[Collected | Claimed] = [*life, claim(DEVICE, USER), claim(MAIL, USER)]
    if seed % 3:
        sent = [*life, claim(DEVICE, MAIL, rank="email"), claim(MAIL, USER)]
    lanes.chance.shuffle(sent)
    half = len(sent) // 2
    lanes.run(*sent[:half]).run(*sent[half:])
    assert _campaigns(lanes) == expected
    assert _visits(lanes) == {
        pid: visits_of(
            (
                (each.occurred_at_ms, each.event_id, expected[each.event_id[0]])
                for each in life
                if each.pid == pid and each.event != EMAIL
            ),
            GAP_MS,
        )
        for pid in {each.pid for each in life}
    }


def _life(chance: random.Random) -> Iterator[Collected]:
    """Orders are told once, refunds of some of them, and of unknown ones, at any time."""
    minutes = chance.sample(range(1, 200), 14)
    orders = minutes[:4]
    for minute in minutes:
        pid, campaign = chance.choice((USER, DEVICE, MAIL)), chance.choice(("", "", "a", "b"))
        name = ORDER if minute in orders else chance.choice(("", EMAIL, REFUND, REFUND))
        order = chance.choice((*orders, 250)) if name == REFUND else 0
        yield _event(pid, minute, name, campaign, order)


def _truth(life: list[Collected]) -> dict[int, str]:
    found: dict[int, str] = {}
    touched = "(none)"
    of_order: dict[str, str] = {}
    in_order = sorted(life, key=lambda each: each.occurred_at_ms)
    for event in in_order:
        properties = msgspec.json.decode(event.clear)["properties"]
        touched = properties.get("campaign_id", touched)
        found[event.event_id[0]] = touched
        if event.event == ORDER:
            of_order[properties["order_id"]] = touched
    for event in in_order:
        properties = msgspec.json.decode(event.clear)["properties"]
        if event.event == REFUND and properties["order_id"] in of_order:
            found[event.event_id[0]] = of_order[properties["order_id"]]
    return found


def _visits(lanes: Together) -> dict[bytes, Counter[tuple[str, int]]]:
    """By pid what was said of its visits: how many began where and when."""
    found: dict[bytes, Counter[tuple[str, int]]] = {}
    for p in range(lanes.partitions):
        for _, value in lanes.logs[TOPICS.accepted, p]:
            said = decode_said(value) if value else None
            if isinstance(said, Accepted | Reattributed):
                visits = found.setdefault(said.pid, Counter())
                for change in said.visit_changes:
                    visits[change.campaign_id, change.started_at_ms] += change.delta
    return {pid: Counter({k: v for k, v in of.items() if v}) for pid, of in found.items()}
