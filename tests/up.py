"""A `headwater up` of a test's own, from outside: started, asked, sent signals, ended."""

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from headwater.roles import PROCESSES
from runtime.processes import is_running
from tests.waiting import eventually

READY_WITHIN_S = 150
STOPS_WITHIN_S = 60
ROOT = Path(__file__).parents[1]


@dataclass
class Up:
    """A `headwater up` on one directory, started and ended as the test wants."""

    data_dir: Path
    config: Path
    process: "subprocess.Popen[bytes] | None" = None
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> str:
        return (self.data_dir.parent / "up.log").read_text("utf-8")

    @property
    def is_running(self) -> bool:
        """True from `begin` until its process ends."""
        return self.process is not None and self.process.poll() is None

    def begin(self, *arguments: str) -> None:
        """Start it without waiting."""
        self.ready_file.unlink(missing_ok=True)
        command = [sys.executable, "-m", "headwater", "up", "--config", str(self.config)]
        command += ["--data-dir", str(self.data_dir), "--ready-file", str(self.ready_file)]
        broker = os.environ.get("HEADWATER_TEST_BROKER", "auto")
        with (self.data_dir.parent / "up.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--port", "0", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "HEADWATER_KAFKA_EMBEDDED": broker},
            )

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        self.begin()
        eventually(self._is_ready, within_s=READY_WITHIN_S)

    def _is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"up ended with {self.process.returncode}:\n{self.output}")
        if not self.ready_file.exists():
            return False
        self.ready = json.loads(self.ready_file.read_text())
        return True

    @property
    def ready_file(self) -> Path:
        return self.data_dir.parent / "ready.json"

    def children(self) -> dict[str, int]:
        """Name -> process id of every part, as written down under run/."""
        found = {}
        for file in (self.data_dir / "run").glob("*.pid"):
            try:
                pid = json.loads(file.read_text() or "{}").get("pid")
            except FileNotFoundError:
                continue  # it ended between the two looks
            if pid and is_running(pid):
                found[file.stem] = pid
        return found

    def is_whole(self) -> bool:
        """True if every role that runs has said so since it was started last."""
        children = self.children()

        def has_said(name: str) -> bool:
            try:
                said = (self.data_dir / "run" / f"{name}.ready").read_text().strip()
            except FileNotFoundError:
                return False
            return said == str(children.get(name))

        return all(map(has_said, PROCESSES))

    def await_child(self, name: str, *, after: int | None = None) -> int:
        """The process id of a part, once it runs: of another process than `after`."""

        def found() -> int | None:
            pid = self.children().get(name)
            return None if pid == after else pid

        return eventually(found)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the signal and wait for the end; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(STOPS_WITHIN_S)

    def send(self, message_id: str, **properties: object) -> None:
        """Send one order and have it acknowledged, after retries if need be."""
        body = {
            "messageId": message_id,
            "userId": f"customer-{message_id}",
            "event": "Order Completed",
            "properties": {"order_id": message_id, "campaign_id": "spring", **properties},
        }
        secret = base64.b64encode(f"{self.ready['keys']['write']}:".encode()).decode()
        headers = {"Authorization": f"Basic {secret}", "Content-Type": "application/json"}

        def is_taken() -> bool:
            request = urllib.request.Request(
                f"{self.ready['url']}/v1/track", json.dumps(body).encode(), headers
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return bool(response.status == 200)
            except urllib.error.HTTPError as error:
                if error.code == 503:
                    return False
                raise
            except OSError:
                return False

        eventually(is_taken, within_s=60)

    def get(self, path: str, role: str = "admin") -> Any:
        """The JSON at `path`. Raises OSError when there is no answer of 200."""
        request = urllib.request.Request(
            f"{self.ready['url']}{path}",
            headers={"Authorization": f"Bearer {self.ready['keys'][role]}"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def metrics(self) -> str:
        """What Prometheus would be told."""
        request = urllib.request.Request(
            f"{self.ready['url']}/metrics",
            headers={"Authorization": f"Bearer {self.ready['keys']['operator']}"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return str(response.read().decode())

    def orders(self) -> int:
        """Orders of the campaign, as the API shows them."""
        try:
            campaigns = self.get("/v1/campaigns", "viewer")["campaigns"]
        except OSError:
            return -1
        return next((c["counters"]["orders"] for c in campaigns if c["campaign_id"] == "spring"), 0)

    def expect_orders(self, count: int) -> None:
        """Fail unless the API shows so many orders before long."""
        eventually(lambda: self.orders() == count, within_s=60)

    def verdict(self) -> Mapping[str, Any]:
        """What `headwater verify --json` says of it."""
        command = [sys.executable, "-m", "headwater", "verify", "--json"]
        ended = subprocess.run(
            [*command, "--data-dir", str(self.data_dir)],
            capture_output=True,
            timeout=60,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert ended.returncode in (0, 1), ended.stderr
        answer: Mapping[str, Any] = json.loads(ended.stdout)
        return answer


MARKERS = 64


def wait_for_what_is_under_way(up: Up) -> None:
    """Send orders of so many new people that each lane gets some, and wait until they are in every
    store: what was sent before them is then there too, or never will be."""
    names = [f"marker-{number}" for number in range(MARKERS)]
    already = up.orders()
    for name in names:
        up.send(name)
    up.expect_orders(already + MARKERS)

    def is_known(name: str) -> bool:
        try:
            return bool(up.get(f"/v1/profiles/user:customer-{name}"))
        except OSError:
            return False

    for name in names:
        eventually(partial(is_known, name), within_s=60)


def none_runs(pids: Mapping[str, int]) -> Callable[[], bool]:
    return lambda: not [name for name, pid in pids.items() if is_running(pid)]
