"""What was sent, and what was it answered: the one truth that the checker goes by.

A history is a file of JSON lines. Its first line names the run; every other one is an input whose
fate is known: acknowledged by the collector (200), set aside on purpose (a broken call or a record
that no lane can use), or unknown, when the sender gave up without an answer. The sender repeats what
is not acknowledged, under the same messageId, as an SDK does.
"""

import base64
import json
import random
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults import explanations
from tests.faults.asking import ask
from tests.faults.desk import Desk
from tests.faults.loads import Call, Load, make_calls
from tests.faults.poison import Poisoner
from tests.faults.rig import Rig
from tests.waiting import eventually

AGAIN_AFTER_S = 0.1


@dataclass
class History:
    """The file, written line by line from several threads."""

    path: Path
    acknowledged: int = 0
    """Calls answered by 200."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._file = self.path.open("w", encoding="utf-8")

    def write(self, *lines: dict[str, Any]) -> None:
        """Add inputs whose fate is known."""
        with self._lock:
            for line in lines:
                self._file.write(json.dumps(line) + "\n")
            self._file.flush()
            self.acknowledged += sum(
                line.get("via") == "collector" and line["outcome"] == "acknowledged"
                for line in lines
            )

    def close(self) -> None:
        self._file.close()


@dataclass
class Sender:
    """Sends a load through the collector, and poison onto the log, until told to stop."""

    rig: Rig
    load: Load
    seed: int
    run: str
    """Unique on this rig: campaigns, people and messages begin with it."""
    history: History
    sent: int = 0
    """Calls in requests, those sent again included."""
    injected: int = 0
    """Copies, broken calls and poison: what the load itself injects."""
    failure: BaseException | None = None
    _stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._lock = threading.Lock()
        self._key = base64.b64encode(f"{self.rig.settings.http.keys['write']}:".encode()).decode()
        self._batches = make_calls(self.load, self.run, self._chance)
        self._claims: list[list[str]] = []  # what acknowledged calls said of who is who
        self._poisoner = Poisoner(self.rig.settings, random.Random(self.seed + 1))
        line: dict[str, Any] = {"run": self.run, "seed": self.seed, "load": self.load.name}
        self.history.write(line | {"explained_from": explanations.ends(self.rig.kafka_address)})

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Send while the block runs; what is under way at its end is sent to its end."""
        jobs = [threading.Thread(target=self._guarded, args=(self._send_all,)) for _ in range(2)]
        if self.load.poison:
            jobs.append(threading.Thread(target=self._guarded, args=(self._poison,)))
        if self.load.begin is not None:
            desk = Desk(self.rig, self.run, self.seed, self.history.write)
            is_over = self._stopping.is_set
            for work in (
                partial(desk.decide, self._claims, is_over),
                partial(desk.define, is_over),
            ):
                jobs.append(threading.Thread(target=self._guarded, args=(work,)))
        for job in jobs:
            job.start()
        try:
            yield
        finally:
            self._stopping.set()
            for job in jobs:
                job.join()
            self._poisoner.close()
        if self.failure is not None:
            raise self.failure

    def wait_acknowledged(self, more: int, within_s: float = 60) -> None:
        """Return once so many more calls are acknowledged."""
        goal = self.history.acknowledged + more

        def is_there() -> bool:
            if self.failure is not None:
                raise self.failure
            return self.history.acknowledged >= goal

        eventually(is_there, within_s=within_s)

    def wait_s(self, seconds: float) -> None:
        """Let it send for so long."""
        self._stopping.wait(seconds)

    def _guarded(self, job: Any) -> None:
        try:
            job()
        except BaseException as error:
            self.failure = error

    def _send_all(self) -> None:
        pause_s = 2 * self.load.calls_a_request / self.load.rate_per_s
        while not self._stopping.is_set():
            began = time.monotonic()
            with self._lock:
                calls, is_copy = next(self._batches)
            attempts = self._send_until_acknowledged(calls)
            # Of a copy only what is set aside counts again: each sending of it is explained.
            known = [call.line(attempts) for call in calls if call.is_broken or not is_copy]
            if self.load.begin is not None:
                _note_answered(known, time.time_ns() // 1_000_000)
            self.history.write(*known)
            if attempts > 0:
                self._claims += [line["one_person"] for line in known if "one_person" in line]
            with self._lock:
                self.sent += len(calls) * abs(attempts)
                self.injected += sum(is_copy or call.is_broken for call in calls)
            self._stopping.wait(max(0.0, pause_s - (time.monotonic() - began)))

    def _send_until_acknowledged(self, calls: Sequence[Call]) -> int:
        """How many requests it took; negative when none was acknowledged."""
        body = json.dumps({"batch": [call.body for call in calls]}).encode()
        request = urllib.request.Request(
            f"{self.rig.collector_url}/v1/batch",
            body,
            {"Authorization": f"Basic {self._key}", "Content-Type": "application/json"},
        )
        return ask(request, AGAIN_AFTER_S)

    def _poison(self) -> None:
        while not self._stopping.is_set():
            lines = self._poisoner.put()
            self.history.write(*lines)
            self.injected += len(lines)
            self._stopping.wait(1 / self.load.poison)


def _note_answered(lines: Iterable[dict[str, Any]], at_ms: int) -> None:
    for line in lines:
        line["answered_at_ms"] = at_ms
