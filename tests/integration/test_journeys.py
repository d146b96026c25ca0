"""Is a message about a cart due once, on a real broker, also when its lane dies meanwhile?"""

import random
import signal
from pathlib import Path
from typing import Any

from runtime.clock import now_ms
from runtime.settings import Journey
from schemas.codec import JOURNEY_DUE
from schemas.events import Collected
from schemas.journeys import JourneyDue
from schemas.subjects import PID_BYTES, Money
from tests.stream_log import Log, make_event, new_log
from tests.stream_worker import Worker
from tests.waiting import eventually

PARTITIONS = 2
MINUTE_MS = 60_000
SOON_MS = 4_000


def said(pid: bytes, event: str, occurred_at_ms: int, **properties: Any) -> Collected:
    return make_event(
        event=event,
        event_id=random.randbytes(16),
        pid=pid,
        occurred_at_ms=occurred_at_ms,
        received_at_ms=now_ms(),
        clear={"properties": properties},
    )


def due(log: Log) -> list[JourneyDue]:
    return [JOURNEY_DUE.decode(value) for _, _, value in log.read(log.topics.journeys)]


def test_message_is_due_once_and_none_after_an_order(
    kafka: str, fresh_name: Any, tmp_path: Path
) -> None:
    log = new_log(kafka, fresh_name("journeys"), partitions=PARTITIONS)
    journey = Journey(id="cart", topic="cart-reminders", wait_minutes=60, hold_out_percent=100)
    log.settings = log.settings.model_copy(update={"journeys": (journey,)})
    early, late, bought, waiting = (random.randbytes(PID_BYTES) for _ in range(4))
    hour_ago_ms = now_ms() - 60 * MINUTE_MS
    tea = {"product_id": "tea", "name": "Tea", "price": "4.50", "currency": "EUR", "quantity": 2}
    log.send(
        [
            said(early, "Product Added", hour_ago_ms - MINUTE_MS, **tea),
            said(bought, "Product Added", hour_ago_ms - MINUTE_MS, **tea),
            # The lane reads it long after the cart, and asks for it before it takes it for silence.
            *(said(bought, "Product Viewed", hour_ago_ms) for _ in range(5_000)),
            said(bought, "Order Completed", hour_ago_ms, total="9", currency="EUR", order_id=1),
            # Due soon after the lanes are open: by a timer that nobody but the record knows.
            said(late, "Product Added", hour_ago_ms + SOON_MS, **tea),
            said(waiting, "Product Added", hour_ago_ms + 30 * MINUTE_MS, **tea),
        ]
    )
    with Worker(tmp_path, "w1", log.settings.model_dump_json()) as worker:
        worker.start().wait_open()
        eventually(lambda: early in {each.pid for each in due(log)}, within_s=30)
        worker.end(signal.SIGKILL)
        worker.start().wait_open()
        eventually(lambda: late in {each.pid for each in due(log)}, within_s=30)
        # What the second owner would say again it would have said by now: it commits in order.
        log.send([said(waiting, "Product Viewed", now_ms())])
        # Their lane may still be at the five thousand views.
        eventually(lambda: waiting in log.subjects(), within_s=30)
        eventually(lambda: log.subjects()[waiting].events == 2, within_s=30)
    found = due(log)
    assert sorted(each.pid for each in found) == sorted([early, late])
    assert len({each.message_id for each in found}) == 2
    [first] = [each for each in found if each.pid == early]
    assert (first.journey_id, first.step, first.held_out) == ("cart", 1, True)
    assert first.anchor_at_ms == hour_ago_ms - MINUTE_MS
    assert first.due_at_ms == hour_ago_ms + 59 * MINUTE_MS <= first.decided_at_ms
    assert [(line.name, line.quantity) for line in first.lines] == [("Tea", 2)]
    assert first.totals == [Money("EUR", 9_000_000)]
    assert (first.channel, first.topic, first.campaign_id) == ("email", "cart-reminders", "cart")
    woken = {pid: subject.wake_at_ms for pid, subject in log.subjects().items()}
    assert woken[waiting] == hour_ago_ms + 90 * MINUTE_MS
    assert woken[bought] == 0
