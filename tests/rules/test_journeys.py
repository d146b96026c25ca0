"""When is a message about a cart left behind due, and when is none?"""

import asyncio
import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.settings import Journey as JourneySettings
from runtime.settings import Purpose, Settings, Time, load_settings
from schemas.carts import ADD, CartChange, CartLine, JourneyState
from schemas.errors import SettingInvalid
from schemas.subjects import Consent
from streams.app import lane_settings
from streams.known import Known
from streams.outputs import Outputs
from streams.rules.cart import Cart
from streams.rules.gate import Gate
from streams.rules.journeys import (
    Due,
    Journey,
    decide,
    is_held_out,
    message_id_of,
    unseen_until_ms,
)
from streams.rules.person import Person
from streams.subjects_to_journeys import settle_journeys

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
START_MS = 1_760_000_000_000
SHIPPED = lane_settings(
    Settings(journeys=(JourneySettings(id="cart", topic="cart-reminders"),)), lambda: START_MS
).rules.journeys[0]
CONSENT, INTEREST = Gate(counts=False, profiles=False), Gate(counts=True, profiles=True)
LINE = CartLine("tea", "", "", "", "", "", 1, None, "")


def cart(minute: int = 0) -> Cart:
    """A cart that was changed last so many minutes after the start."""
    return Cart((LINE,), (), START_MS + minute * MINUTE_MS)


def at(minutes: float) -> int:
    return START_MS + int(minutes * MINUTE_MS)


def sent_over(
    history: dict[int, Cart | None], journey: Journey = SHIPPED, *, until_days: int = 30
) -> list[tuple[int, int]]:
    """(minutes after the start, number) of every message that somebody is due whose cart becomes
    that of `history` at those minutes, and who is looked at only when they should be."""
    state: JourneyState | None = None
    now_cart: Cart | None = None
    sent: list[tuple[int, int]] = []
    changes = sorted(history)
    wake_ms = 0
    while True:
        next_change = at(changes[0]) if changes else None
        if next_change is not None and (not wake_ms or next_change <= wake_ms):
            now_ms, now_cart = next_change, history[changes.pop(0)]
        elif wake_ms and wake_ms <= at(until_days * 1440):
            now_ms = wake_ms
        else:
            return sent
        state, due, wake_ms = decide(journey, now_cart, state, now_ms, may=True)
        if due is not None:
            sent.append(((now_ms - START_MS) // MINUTE_MS, due.number))


def test_message_is_due_an_hour_after_the_last_change_and_again_a_day_later() -> None:
    assert sent_over({0: cart(0)}) == [(60, 1), (60 + 1440, 2)]


def test_a_change_begins_the_wait_anew() -> None:
    assert sent_over({0: cart(0), 30: cart(30), 80: cart(80)})[0] == (140, 1)


def test_an_emptied_cart_is_not_mentioned() -> None:
    assert sent_over({0: cart(0), 59: None}) == []
    assert sent_over({0: cart(0), 61: None}) == [(60, 1)]


def test_a_cart_changed_after_its_message_is_followed_by_at_most_three_in_all() -> None:
    after = sent_over({0: cart(0), 100: cart(100), 3000: cart(3000), 3200: cart(3200)})
    assert after == [(60, 1), (60 + 1440, 2), (60 + 2 * 1440, 3)]


def test_after_the_last_message_there_is_peace_for_the_cool_down() -> None:
    day = 1440
    last = 60 + day
    rests_until = last + 7 * day
    within, after = rests_until - 61, rests_until - 60
    assert sent_over({0: cart(0), within: cart(within)}) == [(60, 1), (last, 2)]
    assert sent_over({0: cart(0), after: cart(after)})[2:] == [
        (after + 60, 1),
        (after + 60 + day, 2),
    ]


def test_an_expired_cart_is_not_mentioned() -> None:
    days = 1440
    assert sent_over({7 * days - 1: cart(0)}) == [(7 * days - 1, 1)]
    assert sent_over({7 * days + 1: cart(0)}) == []
    late = decide(SHIPPED, cart(0), None, at(7 * days + 1), may=True)
    assert late == (None, None, 0)


def test_what_is_not_known_yet_is_not_due() -> None:
    assert decide(SHIPPED, cart(0), None, -1, may=True) == (None, None, at(60))
    assert decide(SHIPPED, cart(0), None, at(60) - 1, may=True) == (None, None, at(60))


def test_who_may_not_be_written_to_is_passed_over_until_the_cart_changes() -> None:
    state, due, wake_ms = decide(SHIPPED, cart(0), None, at(60), may=False)
    assert (due, wake_ms) == (None, 0)
    assert decide(SHIPPED, cart(0), state, at(2000), may=True)[1:] == (None, 0)
    again = decide(SHIPPED, cart(90), state, at(150), may=True)
    assert again.due == Due(1, at(90), at(150))


def test_without_follow_ups_one_message_is_followed_by_peace() -> None:
    one = replace(SHIPPED, follow_ups_ms=())
    assert sent_over({0: cart(0), 100: cart(100), 9 * 1440: cart(9 * 1440)}, one) == [
        (60, 1),
        (9 * 1440 + 60, 1),
    ]


@given(st.lists(st.integers(0, 40 * 24), min_size=1, max_size=12, unique=True))
def test_there_is_never_more_than_was_promised(hours: list[int]) -> None:
    sent = sent_over({hour * 60: cart(hour * 60) for hour in hours}, until_days=60)
    times = [minute for minute, _ in sent]
    for earlier, later in itertools.pairwise(times):
        assert later - earlier >= 1440
    for index, (minute, number) in enumerate(sent):
        assert number <= SHIPPED.most_messages
        if number == 1 and index:
            assert minute - times[index - 1] >= 7 * 1440
    for minute, _ in sent:
        assert not any(minute - 60 < hour * 60 < minute for hour in hours)


def test_the_held_out_are_always_the_same_share_of_people() -> None:
    tenth = replace(SHIPPED, hold_out_percent=10)
    pids = [number.to_bytes(16, "big") for number in range(5_000)]
    out = {pid for pid in pids if is_held_out(tenth, pid)}
    assert 400 < len(out) < 600
    assert out == {pid for pid in pids if is_held_out(tenth, pid)}
    assert out < {pid for pid in pids if is_held_out(replace(tenth, hold_out_percent=50), pid)}
    assert not any(is_held_out(SHIPPED, pid) for pid in pids)


def test_a_message_has_one_id_and_another_has_another() -> None:
    due = Due(1, at(0), at(60))
    told = {
        message_id_of(journey, pid, each)
        for journey in (SHIPPED, replace(SHIPPED, id="other"))
        for pid in (b"p" * 16, b"q" * 16)
        for each in (due, due._replace(number=2), due._replace(anchor_at_ms=at(1)))
    }
    assert len(told) == 12
    assert message_id_of(SHIPPED, b"p" * 16, due) == message_id_of(SHIPPED, b"p" * 16, due)


def test_a_refusal_hides_what_was_in_the_cart_before_it() -> None:
    refused = Consent("purpose/analytics", "withdrawn", at(5), None, at(9))
    granted = Consent("purpose/analytics", "granted", at(20), None, at(20))
    other = Consent("email/newsletter", "unsubscribed", at(50), None, at(50))
    assert unseen_until_ms([[refused, granted, other]], INTEREST, at(60)) == at(9)
    assert unseen_until_ms([[granted, other]], INTEREST, at(60)) == -1
    assert unseen_until_ms([[granted], [refused]], INTEREST, at(60)) == at(9)


def yes(about: str, from_minute: int, to_minute: int | None, said: int | None = None) -> Consent:
    ends_ms = None if to_minute is None else at(to_minute)
    recorded_ms = at(from_minute if said is None else said)
    return Consent(f"purpose/{about}", "granted", at(from_minute), ends_ms, recorded_ms)


def test_a_yes_that_ended_hides_what_was_in_the_cart_before_its_end() -> None:
    """What was ordered then was withheld, whatever was allowed later."""
    for about in ("analytics", "personalisation"):
        ended, again = yes(about, 0, 10), yes(about, 20, None)
        assert unseen_until_ms([[ended]], CONSENT, at(60)) == at(10)
        assert unseen_until_ms([[ended, again]], CONSENT, at(60)) == at(10)
        assert unseen_until_ms([[ended]], CONSENT, at(10)) == at(10)
        assert unseen_until_ms([[ended]], CONSENT, at(10) - 1) == -1
        twice = [ended, again, yes(about, 30, 40), yes(about, 5, 33)]
        assert unseen_until_ms([twice[:1], twice[1:]], CONSENT, at(60)) == -1
        assert unseen_until_ms([[ended, yes(about, 20, 40)]], CONSENT, at(60)) == at(40)


def test_a_yes_that_ended_hides_nothing_where_all_was_seen_after_it() -> None:
    ended = yes("analytics", 0, 10)
    assert unseen_until_ms([[ended]], INTEREST, at(60)) == -1  # allowed until objected
    assert unseen_until_ms([[ended, yes("analytics", 10, None)]], CONSENT, at(60)) == -1
    assert unseen_until_ms([[ended], [yes("analytics", 5, None)]], CONSENT, at(60)) == -1
    # Said later, from then on: what happened meanwhile waited for it, or did not.
    renewed = [ended, yes("analytics", 10, None, said=14)]
    assert unseen_until_ms([renewed], CONSENT, at(60)) == at(10)
    patient = Gate(counts=False, profiles=False, late_grant_ms=5 * MINUTE_MS)
    assert unseen_until_ms([renewed], patient, at(60)) == -1
    of_others = [yes("advertising", 0, 10)]
    assert unseen_until_ms([of_others], CONSENT, at(60)) == -1


@pytest.mark.parametrize(
    ("times", "messages"),
    [
        ([(0, None)], 1),
        ([(0, 90)], 1),
        ([(0, 10)], 0),  # nothing is allowed when it is due
        ([(0, 10), (20, None)], 0),  # nor is known what was ordered meanwhile
        ([(0, 10), (10, None)], 1),
        ([(0, 4), (4, None)], 1),
    ],
)
def test_a_cart_from_before_a_yes_that_ended_is_mentioned_to_nobody(
    times: list[tuple[int, int | None]], messages: int
) -> None:
    """It was left behind at minute 5, and its message is due at 65."""
    basis = {name: Purpose(basis="consent") for name in ("analytics", "personalisation")}
    journeys = (JourneySettings(id="cart", topic="carts"),)
    settings = Settings(journeys=journeys, purposes=basis, time=Time(late_grant_minutes=0))
    person = Person(b"p" * 16)
    person.cart = (CartChange(at(5), b"t" * 8, ADD, [LINE]),)
    person.consents = [yes(about, *each) for each in times for about in basis]
    lane: Any = Outputs()
    lane.settings, lane.p, lane.seq, lane.index = lane_settings(settings, lambda: 0), 0, 1, 0
    lane.known, lane.producer = Known(dict), Sent([])
    lane.known.until_ms[person.pid] = at(65)
    settle_journeys(lane, person, at(65))
    assert len(lane.producer.topics) == messages


@dataclass(frozen=True)
class Sent:
    """A lane's producer that sends to nobody."""

    topics: list[str]

    def send(self, topic: str, _value: bytes, _key: bytes, _partition: int) -> None:
        self.topics.append(topic)


def test_nobody_is_known_who_changed_since_the_question() -> None:
    ends = {"events": 7}
    known = Known(lambda: ends)

    async def at_once(work: object) -> object:
        assert callable(work)
        return work()

    known.wanted |= dict.fromkeys((b"a", b"b", b"c"))
    asyncio.run(known.ask(at(60), at_once))
    assert known.answered({"events": 6}, ()) == []
    known.note([b"a"])
    assert known.answered({"events": 7}, [b"b"]) == [b"c"]
    assert known.until_ms == {b"c": at(60)}
    known.forget()
    assert known.answered({"events": 9}, ()) == []


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('topic = "t"\nwait_minuts = 3', "did you mean wait_minutes?"),
        ('topic = "t"\ntrigger = "cart_abandonned"', "cart_abandoned"),
        ("", "topic"),
        ('topic = "t"\nfollow_ups_hours = [200]', "expires_days: expected longer"),
        ('topic = "t"\n[[journeys]]\nid = "cart"\ntopic = "t"', "id of two journeys"),
    ],
)
def test_a_journey_that_is_wrong_is_said_to_be(tmp_path: Path, written: str, said: str) -> None:
    file = tmp_path / "headwater.toml"
    file.write_text(f'[[journeys]]\nid = "cart"\n{written}\n')
    with pytest.raises(SettingInvalid, match="journeys") as error:
        load_settings(file, {})
    assert said in str(error.value)
