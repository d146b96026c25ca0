"""Does what real files and real clients send come out of a running Headwater as it went in?

69,659 purchases of 23,570 customers by the tutorial's command, and Segment's SDKs with nothing
changed but their host; found again through the HTTP API of one `headwater up`.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from segment.analytics.client import Client as SegmentClient

from tests.cdnow import add_up, cdnow_file, expect_counters, expect_people, expect_profiles, replay
from tests.node_sdk import install_node_sdk, run_node
from tests.up import MARKERS, Up, wait_for_what_is_under_way
from tests.waiting import eventually

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
_NODE_SCRIPT = """
const { Analytics } = require('@segment/analytics-node');
const [host, writeKey, userId, name] = process.argv.slice(2);
const analytics = new Analytics({ writeKey, host });
analytics.on('error', (fault) => { console.error(fault); process.exit(1); });
const at = (minutes) => new Date(Date.parse('2026-01-31T12:00:00Z') + minutes * 60000);
const context = { campaign: { name } };
const currency = 'EUR';
const email = `${userId}@example.org`;
analytics.identify({ userId, traits: { email, plan: 'gold' }, context, timestamp: at(3) });
analytics.identify({ userId, traits: { plan: 'basic', vip: true }, context, timestamp: at(1) });
analytics.page({ userId, name: 'Home', context, timestamp: at(0) });
analytics.page({ anonymousId: `${userId}-a`, name: 'Home', context, timestamp: at(0) });
for (const [event, minutes, properties] of [
  ['Product Viewed', 1, { product_id: 'p-1', note: 'مرحبا 🧦' }],
  ['Order Completed', 2, { order_id: 'o-1', total: 27.5, currency }],
  ['Order Completed', 45, { order_id: 'o-2', total: 12.25, currency }],
  ['Order Refunded', 46, { order_id: 'o-2', total: 2.25, currency }],
]) analytics.track({ userId, event, properties, context, timestamp: at(minutes) });
analytics.closeAndFlush().then(() => console.log('sent'));
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    directory = tmp_path_factory.mktemp("up")
    config = directory / "headwater.toml"
    config.write_text("")
    house = Up(directory / "data", config)
    house.start()
    yield house
    house.end()


def test_real_purchases_come_out_as_they_went_in_and_once_when_sent_twice(up: Up) -> None:
    file = cdnow_file()
    truth = add_up(file)
    assert (truth.orders, len(truth.by_customer)) == (69_659, 23_570)

    assert replay(up, file) == {"sent": 69_659, "bad": 0, "bad_rows": []}
    expect_counters(up, truth)
    expect_people(up, truth)
    expect_profiles(up, truth, list(truth.by_customer)[::10])

    assert replay(up, file) == {"sent": 69_659, "bad": 0, "bad_rows": []}
    wait_for_what_is_under_way(up)
    expect_counters(up, truth)
    assert recognised(up) >= 69_659
    expect_people(up, truth, who_paid_nothing=MARKERS)
    expect_profiles(up, truth, list(truth.by_customer)[5::50])
    assert up.get("/v1/events/rejected")["rejected"] == []
    assert up.verdict()["verified"] is True


def recognised(up: Up) -> int:
    """How many events the lanes took for copies of others."""
    named = 'headwater_applied_events_total{outcome="duplicate"'
    lines = [line for line in up.metrics().splitlines() if line.startswith(named)]
    return sum(int(float(line.split()[-1])) for line in lines)


def check_told(up: Up, user: str, campaign: str) -> None:
    """The campaign's counters and the person's profile are what the client's calls mean."""

    def got(path: str, role: str = "admin") -> Any:
        try:
            return up.get(path, role)
        except OSError as missing:  # such as a profile whose sink is behind the counters'
            raise AssertionError(f"{path}: {missing}") from missing

    def is_counted() -> bool:
        found = {each["campaign_id"]: each for each in got("/v1/campaigns")["campaigns"]}
        assert campaign in found
        shown = found[campaign]
        assert {name: count for name, count in shown["counters"].items() if count} == {
            "page_views": 2,
            "product_views": 1,
            "orders": 2,
            "refunds": 1,
            "buyers": 1,
            "visitors": 2,
            "visits": 3,  # of the customer before and after a pause of 42 minutes, of the stranger
        }
        assert shown["revenue"] == [{"currency": "EUR", "amount": "39.75"}]
        assert shown["refunded"] == [{"currency": "EUR", "amount": "2.25"}]
        assert shown["rates"]["aov"] == [{"currency": "EUR", "amount": "19.875"}]
        return True

    def is_known() -> bool:
        profile = got(f"/v1/profiles/user:{user}", "activation")
        # What follows from the day on which the test runs is held by tests/rules/test_traits.py.
        computed = profile.pop("computed")
        summed = {
            "events": 7,
            "visits": 2,
            "orders": 2,
            "refunds": 1,
            "spent": [{"currency": "EUR", "amount": "39.75"}],
            "refunded": [{"currency": "EUR", "amount": "2.25"}],
            "average_order_value": [{"currency": "EUR", "amount": "19.875"}],
        }
        assert summed.items() <= computed.items()
        assert computed["rfm"]["frequency"] == 2
        assert computed["rfm"]["monetary"] == [{"currency": "EUR", "score": 1}]
        assert profile == {
            "subject": f"user:{user}",
            "first_seen": "2026-01-31T12:00:00.000Z",
            "last_seen": "2026-01-31T12:46:00.000Z",
            "traits": {"email": f"{user}@example.org", "plan": "gold", "vip": True},
            "segments": ["repeat_buyers"],
            "consents": [],
        }
        stranger = got(f"/v1/profiles/anonymous:{user}-a", "activation")["computed"]
        assert (stranger["events"], stranger["visits"], stranger["orders"]) == (1, 1, 0)
        return True

    eventually(is_counted)
    eventually(is_known)
    assert up.get("/v1/events/rejected")["rejected"] == []


def test_segments_python_sdk_is_counted_and_known(up: Up) -> None:
    user, campaign = "python-42", "python-spring"
    faults: list[object] = []
    client = SegmentClient(
        up.ready["keys"]["write"],
        host=up.ready["url"],
        on_error=lambda fault, _: faults.append(fault),
    )
    context = {"campaign": {"name": campaign}}

    def at(minutes: int) -> datetime:
        return NOON + timedelta(minutes=minutes)

    traits = {"email": f"{user}@example.org", "plan": "gold"}
    earlier = {"plan": "basic", "vip": True}
    client.identify(user, traits, context=context, timestamp=at(3))
    client.identify(user, earlier, context=context, timestamp=at(1))
    client.page(user, name="Home", context=context, timestamp=at(0))
    client.page(anonymous_id=f"{user}-a", name="Home", context=context, timestamp=at(0))
    for event, minutes, properties in (
        ("Product Viewed", 1, {"product_id": "p-1", "note": "مرحبا 🧦"}),
        ("Order Completed", 2, {"order_id": "o-1", "total": 27.5, "currency": "EUR"}),
        ("Order Completed", 45, {"order_id": "o-2", "total": 12.25, "currency": "EUR"}),
        ("Order Refunded", 46, {"order_id": "o-2", "total": 2.25, "currency": "EUR"}),
    ):
        client.track(user, event, properties, context=context, timestamp=at(minutes))
    client.shutdown()
    assert faults == []
    check_told(up, user, campaign)


@pytest.mark.node
def test_segments_node_sdk_is_counted_and_known(up: Up, tmp_path: Path) -> None:
    user, campaign = "node-42", "node-spring"
    install_node_sdk(tmp_path)
    run_node(tmp_path, _NODE_SCRIPT, up.ready["url"], up.ready["keys"]["write"], user, campaign)
    check_told(up, user, campaign)
