"""Does the ledger hear of a batch exactly when the collector has acknowledged it?"""

import orjson
import pytest

from producers.shop import Ledger, Pace, send_shop, shop_calls

START_MS = 1_790_000_000_000


def test_every_call_is_posted_in_order_and_noted_once() -> None:
    posted: list[bytes] = []
    progress: list[int] = []
    ledger = Ledger()
    sent = send_shop(
        shop_calls(1, 1234, START_MS), posted.append, ledger, on_progress=progress.append
    )
    ids = [call["messageId"] for body in posted for call in orjson.loads(body)["batch"]]
    assert ids == [call.body["messageId"] for call in shop_calls(1, 1234, START_MS)]
    assert sent == sum(progress) == ledger.sent == 1234


def test_a_batch_that_was_not_acknowledged_is_not_noted() -> None:
    ledger = Ledger()
    posts = 0

    def post(body: bytes) -> None:
        nonlocal posts
        posts += 1
        if posts == 3:
            raise ConnectionError

    with pytest.raises(ConnectionError):
        send_shop(shop_calls(1, 1000, START_MS), post, ledger)
    assert ledger.sent == 200


def test_an_endless_shop_stops_when_asked_and_its_ledger_is_whole() -> None:
    ledger = Ledger()
    calls = shop_calls(1, None, START_MS, lambda: START_MS)
    send_shop(calls, lambda body: None, ledger, should_stop=lambda: ledger.sent >= 500)
    same = Ledger()
    for call in shop_calls(1, None, START_MS, lambda: START_MS):
        if same.sent == ledger.sent:
            break
        same.note(call.note)
    assert ledger.expected() == same.expected()


def test_a_pace_holds_its_rate_and_does_not_catch_up_in_a_burst() -> None:
    now_s = 100.0
    slept_s: list[float] = []

    def sleep(for_s: float) -> None:
        nonlocal now_s
        now_s += for_s
        slept_s.append(for_s)

    pace = Pace(50, lambda: now_s, sleep)
    assert pace.calls_in_batch == 5
    send_shop(shop_calls(1, 50, START_MS), lambda body: None, Ledger(), pace=pace)
    assert now_s - 100 == pytest.approx(0.9)  # ten batches, no wait before the first
    now_s += 60
    slept_s.clear()
    pace.wait(5)
    pace.wait(5)
    assert slept_s == [pytest.approx(0.1)]
