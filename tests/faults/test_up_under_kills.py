"""Are the counters exact when every process of a running Headwater is killed under load?

The sender keeps its own book of what was acknowledged, and sends again what was not, as an SDK
does. Victims and moments come from a seed, which the test prints; HEADWATER_TEST_SEED repeats one.
On Apache Kafka the signal is SIGKILL, for the broker too. Trial mode promises exactness over clean
stops only: there it is SIGTERM, for the broker too, which refuses it and goes on: noida-db and its
keeper both get it, as by a `kill` of their process group, and both are the same afterwards.
"""

import json
import os
import random
import signal
import threading
import urllib.error
import urllib.request
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import Say
from tests.up import Up
from tests.waiting import eventually

KILLS = int(os.environ.get("HEADWATER_TEST_KILLS", "10"))
CAMPAIGNS = ("spring", "summer", "autumn")
CALLS_A_BATCH = 40
PRICE_CENTS = 1999


@dataclass
class Sender:
    """Sends batches one after another and books what was acknowledged, until told to stop."""

    up: Up
    seed: int
    acknowledged: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    pause: threading.Event = field(default_factory=threading.Event)  # never set
    views: Counter[str] = field(default_factory=Counter)
    orders: Counter[str] = field(default_factory=Counter)
    sent_again: int = 0
    failure: BaseException | None = None

    def run(self) -> None:
        try:
            chance = random.Random(self.seed)
            while not self.stopping.is_set():
                self._send(self._batch(chance))
        except BaseException as error:
            self.failure = error

    def _batch(self, chance: random.Random) -> list[dict[str, object]]:
        calls: list[dict[str, object]] = []
        for _ in range(CALLS_A_BATCH):
            person = f"person-{chance.randrange(500)}"
            campaign = chance.choice(CAMPAIGNS)
            call: dict[str, object] = {
                "type": "track",
                "messageId": f"m-{chance.getrandbits(64):016x}",
                "userId": person,
                "event": "Product Viewed",
                "properties": {"product_id": "p1"},
                "context": {"campaign": {"name": campaign}},
            }
            if chance.random() < 0.3:
                call["event"] = "Order Completed"
                call["properties"] = {
                    "order_id": f"o-{chance.getrandbits(64):016x}",
                    "total": PRICE_CENTS / 100,
                    "currency": "EUR",
                }
            calls.append(call)
        return calls

    def _send(self, calls: list[dict[str, object]]) -> None:
        body = json.dumps({"batch": calls}).encode()
        while not self._is_acknowledged(body):
            self.sent_again += 1
            self.pause.wait(0.05)
        for call in calls:
            context = call["context"]
            assert isinstance(context, dict)
            book = self.views if call["event"] == "Product Viewed" else self.orders
            book[context["campaign"]["name"]] += 1
        self.acknowledged += len(calls)

    def _is_acknowledged(self, body: bytes) -> bool:
        ready = self.up.ready
        key = b64encode(f"{ready['keys']['write']}:".encode()).decode()
        request = urllib.request.Request(
            f"{ready['url']}/v1/batch",
            body,
            {"Authorization": f"Basic {key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as error:
            if error.code in (429, 503):
                return False
            raise
        except OSError:
            return False


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    config = tmp_path / "headwater.toml"
    config.write_text("[kafka]\npartitions = 2\n")
    house = Up(tmp_path / "data", config)
    house.start()
    yield house
    if house.process is not None and house.process.poll() is None:
        house.end()


def test_counters_equal_what_was_acknowledged_after_every_process_was_killed(
    up: Up, broker_kind: str, say: Say
) -> None:
    seed = int(os.environ.get("HEADWATER_TEST_SEED", random.SystemRandom().randrange(10**6)))
    blow = signal.SIGKILL if broker_kind == "apache" else signal.SIGTERM
    chance = random.Random(seed)
    names = [*sorted(up.children()), "up"]
    victims = chance.sample(names, len(names))
    victims += [chance.choice(names) for _ in range(KILLS)]
    victims = victims[:KILLS]
    say(f"seed {seed}, {blow.name}: {' '.join(victims)}")
    trial_broker_pid = up.children().get("noida-db")
    sender = Sender(up, seed)
    thread = threading.Thread(target=sender.run)
    thread.start()
    try:
        for victim in victims:
            goal = sender.acknowledged + chance.randrange(1, 1500)

            def is_under_load(goal: int = goal) -> bool:
                assert sender.failure is None, sender.failure
                return sender.acknowledged >= goal

            eventually(is_under_load, within_s=120)
            assert up.children().get("noida-db") == trial_broker_pid
            if victim == "up":
                assert up.process is not None
                up.process.send_signal(blow)
                up.process.wait(60)
                up.start()
                trial_broker_pid = up.children().get("noida-db")
            else:
                os.killpg(up.await_child(victim), blow)
    finally:
        sender.stopping.set()
        thread.join(150)
    assert sender.failure is None
    assert not thread.is_alive()

    def counted() -> tuple[dict[str, int], dict[str, int], dict[str, str]]:
        found = {each["campaign_id"]: each for each in up.get("/v1/campaigns")["campaigns"]}
        return (
            {name: each["counters"]["product_views"] for name, each in found.items()},
            {name: each["counters"]["orders"] for name, each in found.items()},
            {name: each["revenue"][0]["amount"] for name, each in found.items() if each["revenue"]},
        )

    cents = {name: count * PRICE_CENTS for name, count in sender.orders.items()}
    revenue = {
        name: f"{cent // 100}.{cent % 100:02d}".rstrip("0").rstrip(".")
        for name, cent in cents.items()
    }

    def is_exact() -> bool:
        try:
            found = counted()
        except OSError:
            return False
        assert found == (dict(sender.views), dict(sender.orders), revenue)
        return True

    eventually(is_exact, within_s=120, every_s=0.5)
    assert up.verdict()["verified"] is True
    assert up.children().get("noida-db") == trial_broker_pid
    say(
        f"{sender.acknowledged} calls acknowledged, {sender.sent_again} requests sent again, "
        f"{len(victims)} processes ended: equal, live = verified"
    )
