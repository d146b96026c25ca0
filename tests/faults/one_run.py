"""One fault, once: what happened, and does everything still follow from what was acknowledged?"""

import random
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults import explanations
from tests.faults.checker import Violation, judge
from tests.faults.desk import pids_of
from tests.faults.fault import Fault
from tests.faults.history import History, Sender
from tests.faults.rig import Rig
from tests.faults.seen import Addresses, look, wait_counted, write_addresses
from tests.faults.truth import read_history

BEFORE_CALLS = 200
"""Acknowledged before the fault begins, and once more after it is over."""
SETTLES_WITHIN_S = 60.0
SOUND_WITHIN_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """One run, as the ledger keeps it."""

    fault: str
    seed: int
    sent: int
    acknowledged: int
    injected: int
    recovery_s: float | None
    violations: tuple[Violation, ...]
    history: Path
    repeats: int = 0
    """Outputs of a lane that the counters' sink met twice and dropped: right, and a reason to look."""


def repeats_dropped(rig: Rig) -> int:
    """How often the sink's tripwire spoke since the rig began; it tells ten of a batch at most."""
    logs = (rig.directory / "logs").glob("accepted-to-clickhouse*.log")
    return sum(log.read_text("utf-8", errors="replace").count('"tripwire"') for log in logs)


def addresses_of(rig: Rig) -> Addresses:
    """Where the checker looks."""
    return Addresses(
        rig.clickhouse_url,
        rig.settings.clickhouse.database,
        rig.api_url,
        rig.settings.http.keys["admin"],
        rig.kafka_address,
        rig.settings.redis.url,
        rig.settings.redis.key_prefix,
    )


def run_once(rig: Rig, fault: Fault, seed: int, run: str) -> Outcome:
    """Hurt a sound rig under load; afterwards it is sound again, or a violation says so.

    `run` is unique on this rig. The history stays in the rig's directory.
    """
    at = addresses_of(rig)
    path = rig.directory / f"{run}.history.jsonl"
    write_addresses(at, rig.directory / "addresses.json")
    history = History(path)
    sender = Sender(rig, fault.load, seed, run, history)
    violations: list[Violation] = []
    repeats = repeats_dropped(rig)
    with sender.flowing():
        sender.wait_acknowledged(BEFORE_CALLS)
        injected = 0
        try:
            injected = fault.do(rig, random.Random(seed))
        except AssertionError as error:
            violations.append(Violation("P", f"not as the fault demands: {error}"))
        over_s = time.monotonic()
        recovery_s = wait_counted(at, read_history(path), over_s)
        try:
            sender.wait_acknowledged(BEFORE_CALLS)
            rig.make_sound(SOUND_WITHIN_S)
        except AssertionError as error:
            violations.append(Violation("P", f"not sound after {SOUND_WITHIN_S:.0f} s: {error}"))
    if fault.load.begin is not None:
        history.write({"pids": pids_of(rig, read_history(path).people)})
    violations += settle(at, path, recovery_s)
    history.write({"explained_to": explanations.ends(rig.kafka_address)})
    history.close()
    return Outcome(
        fault.name,
        seed,
        sender.sent,
        history.acknowledged,
        injected + (sender.injected if fault.load.name not in ("plain", "people") else 0),
        recovery_s,
        tuple(violations),
        path,
        repeats_dropped(rig) - repeats,
    )


def settle(at: Addresses, path: Path, recovery_s: float | None) -> list[Violation]:
    """What is still wrong once everything had time to arrive."""
    truth = read_history(path)
    until_s = time.monotonic() + SETTLES_WITHIN_S
    while True:
        try:
            violations = judge(truth, look(at, truth, recovery_s=recovery_s))
        except OSError as error:
            violations = [Violation("P", f"no answer to the checker: {error}")]
        is_final = all(violation.kind == "P" for violation in violations) and not any(
            "no answer" in violation.text for violation in violations
        )
        if is_final or time.monotonic() > until_s:
            return violations
        time.sleep(0.3)
