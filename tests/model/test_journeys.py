"""Do people get the messages about their carts that they should, and no other?

A month of a shop on real lanes (tests/model/shop_world.py) with real automation, which writes to a
real mail server (tests/model/shop_post.py), against a reference that knows what happened
(tests/model/cart_story.py): disorder, copies, late orders, withdrawals, erasures, and lanes and
automation that die. `make test` runs small shops; HEADWATER_TEST_PEOPLE=10000 HEADWATER_TEST_SEED=1 a
large one.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from runtime.settings import Settings
from schemas.partitioning import partition_of
from tests.conftest import FreshName, Say
from tests.mailing import mail_server
from tests.model import runners
from tests.model.cart_story import ARRIVE_MS, DAY_MS, SLOT_MS, Fact, Kind, Story
from tests.model.shop_post import shop_settings
from tests.stream_log import START_MS

PEOPLE = int(os.environ.get("HEADWATER_TEST_PEOPLE", "60"))
DEATHS = 0.05 if PEOPLE < 1000 else 0.01
"""The chance of automation to die, at each of some seven steps of a message."""
SEEDS = [int(os.environ["HEADWATER_TEST_SEED"])] if "HEADWATER_TEST_SEED" in os.environ else [1, 2]


@pytest.fixture
def quick_redis_url(redis_url: str, redis_client: "redis.Redis") -> Iterator[str]:
    """A server that writes to disk once a second: no power cut is played here."""
    before: Any = redis_client.config_get("appendfsync")
    redis_client.config_set("appendfsync", "everysec")
    yield redis_url
    redis_client.config_set("appendfsync", before["appendfsync"])


def test_mails_received_are_those_of_who_knows_what_happened(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    quick_redis_url: str,
    fresh_name: FreshName,
    say: Say,
) -> None:
    met: Counter[str] = Counter()
    with mail_server() as (mailbox, port):

        def settings_of(name: str) -> Settings:
            return shop_settings(tmp_path, quick_redis_url, fresh_name(name), port)

        run = runners.journeys_sent(monkeypatch, settings_of, mailbox, PEOPLE, deaths=DEATHS)
        for seed in SEEDS:
            began_s = time.monotonic()
            broken, world = run(seed)
            took_s = time.monotonic() - began_s
            say(f"shop of {PEOPLE}, seed {seed}, {took_s:.0f} s: {dict(sorted(world.met.items()))}")
            assert not broken, f"seed {seed} of {PEOPLE} people broke: {sorted(broken)[:5]}"
            met.update(world.met)
    # They are about something: of each kind there was some.
    wanted = {"message 1", "message 2", "message 3", "people with none", "ordered in time",
              "withdrew in time", "order came too late", "lanes opened again", "sent", "held",
              "not sent", "mails", "automation died", "claims left behind", "interrupted, and came",
              "interrupted, and did not come", "read again from before", "held by store_unavailable",
              "held by channel_unavailable"}  # fmt: skip
    assert {each for each in wanted if met[each]} == wanted


@pytest.mark.parametrize("order", ["", "anonymous", "user"])
def test_the_cart_of_two_pids_is_one_once_they_are_one_person(
    monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """What the browser put in, and the customer after they signed in: messages to the customer, and
    none once either of them ordered. Their lanes are two."""
    run = runners.shop(monkeypatch)
    first_ms = START_MS // SLOT_MS * SLOT_MS
    pids = (bytes([number]) * 16 for number in range(256))
    anonymous, user = (next(pid for pid in pids if partition_of(pid, 2) == p) for p in (0, 1))

    def fact(kind: Kind, slot: int, *products: str) -> Fact:
        at_ms = first_ms + slot * SLOT_MS
        return Fact(kind, at_ms, at_ms + ARRIVE_MS, f"{kind}{slot}".encode().ljust(16), products)

    browser = Story(anonymous, [fact("add", 0, "tea"), fact("claim", 3, user.hex())])
    customer = Story(user, [fact("add", 3, "cup")])
    if order:
        (browser if order == "anonymous" else customer).facts.append(fact("order", 5))
    due = run(1, [browser, customer], first_ms + 20 * DAY_MS).due()
    expected = [] if order else [(user, 1), (user, 2)]
    assert [(each.pid, each.step) for each in due] == expected
    for each in due:
        assert sorted(line.product_id for line in each.lines) == ["cup", "tea"]
        assert each.anchor_at_ms == first_ms + 3 * SLOT_MS
