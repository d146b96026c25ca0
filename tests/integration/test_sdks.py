"""Segment's own SDKs, with nothing changed but their host."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import orjson
import pytest
from segment.analytics.client import Client as SegmentClient

from schemas.events import Collected
from tests.collecting import WRITE_KEY, Running, collect_settings, running_collector
from tests.node_sdk import install_node_sdk, run_node

_NODE_SCRIPT = """
const { Analytics } = require('@segment/analytics-node');
const [host, writeKey] = process.argv.slice(2);
const analytics = new Analytics({ writeKey, host, flushAt: 3 });
analytics.on('error', (fault) => { console.error(fault); process.exit(1); });
const timestamp = new Date('2026-01-31T12:00:00.123Z');
const campaign = { name: 'spring' };
analytics.identify({ userId: '42', traits: { email: 'ada@example.org', plan: 'gold' } });
analytics.track({
  userId: '42', event: 'Order Completed', timestamp, context: { campaign },
  properties: { order_id: 'o-1', total: 27.5, currency: 'EUR', note: 'مرحبا 🧦' },
});
analytics.page({ anonymousId: 'a-1', name: 'Home', timestamp, context: { campaign } });
analytics.screen({ userId: '42', name: 'Cart' });
analytics.group({ userId: '42', groupId: 'g', traits: { size: 3 } });
analytics.alias({ userId: '42', previousId: 'a-1' });
analytics.closeAndFlush().then(() => console.log('sent'));
"""


@pytest.fixture
def collector(kafka: str, redis_url: str, tmp_path: Path) -> Iterator[Running]:
    settings = collect_settings(tmp_path, kafka, redis_url, f"s{uuid4().hex[:8]}")
    with running_collector(settings) as running:
        yield running


def check_arrived(collector: Running) -> None:
    """Six calls, whole: the types, the order's money, campaign and time, and who it was."""
    found: dict[str, Collected] = {event.type: event for event in collector.collected()}
    assert sorted(found) == ["alias", "group", "identify", "page", "screen", "track"]
    assert collector.rejected() == []
    order = found["track"]
    assert order.event == "Order Completed"
    assert order.flags == 0
    assert order.occurred_at_ms == 1_769_860_800_123
    assert orjson.loads(order.clear) == {
        "properties": {"order_id": "o-1", "total": 27.5, "currency": "EUR"},
        "context": {"campaign": {"name": "spring"}},
    }
    assert collector.opened(order)["properties"] == {"note": "مرحبا 🧦"}
    assert collector.opened(found["page"])["ids"] == {"anonymous": "a-1"}
    assert collector.opened(found["page"])["call"]["name"] == "Home"
    known = {found[kind].pid for kind in ("track", "identify", "screen", "group", "alias")}
    assert len(known) == 1
    assert found["page"].pid not in known
    identify = found["identify"]
    person = collector.person(identify)
    traits = dict(orjson.loads(person.unseal(t.sealed, identify.event_id)) for t in identify.traits)
    assert traits == {"email": "ada@example.org", "plan": "gold"}


@pytest.mark.parametrize("gzip", [False, True])
def test_segments_python_sdk_arrives(collector: Running, gzip: bool) -> None:
    faults: list[object] = []
    client = SegmentClient(
        WRITE_KEY,
        host=collector.url,
        gzip=gzip,
        on_error=lambda fault, _: faults.append(fault),
        max_retries=3,
    )
    at = datetime(2026, 1, 31, 12, 0, 0, 123_000, tzinfo=UTC)
    spring = {"campaign": {"name": "spring"}}
    client.identify(user_id="42", traits={"email": "ada@example.org", "plan": "gold"})
    order = {"order_id": "o-1", "total": 27.5, "currency": "EUR", "note": "مرحبا 🧦"}
    client.track("42", "Order Completed", order, context=spring, timestamp=at)
    client.page(anonymous_id="a-1", name="Home", context=spring, timestamp=at)
    client.screen(user_id="42", name="Cart")
    client.group(user_id="42", group_id="g", traits={"size": 3})
    client.alias(previous_id="a-1", user_id="42")
    client.shutdown()
    assert faults == []
    check_arrived(collector)


@pytest.mark.node
def test_segments_node_sdk_arrives(collector: Running, tmp_path: Path) -> None:
    install_node_sdk(tmp_path)
    run_node(tmp_path, _NODE_SCRIPT, collector.url, WRITE_KEY)
    check_arrived(collector)
