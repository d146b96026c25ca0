"""Do all faults so often that each was survived N times, and say what it cost.

    python -m tests.faults.run [--fault NAME]... [--runs N] [--seconds S] [--report] [--list]

Resumable: what the ledger has is not done again. Faults that want the same servers share a rig,
one after another; one that fails gets its rig thrown away, and its history and logs kept.
"""

import argparse
import itertools
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.faults import ledger
from tests.faults.fault import Fault, lacking
from tests.faults.faults import FAULTS, named
from tests.faults.one_run import Outcome, addresses_of, run_once, settle
from tests.faults.rig import Plan, Rig

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- ledger -->", "<!-- end of ledger -->"
RUNS_A_RIG = 40
"""Then a fresh one: logs and answers of the API grow."""


@dataclass
class Stage:
    """The rig in use, if any; made when a fault wants another one."""

    root: Path
    plan: Plan | None = None
    rig: Rig | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def rig_for(self, plan: Plan) -> Rig:
        if self.rig is not None and (self.plan != plan or len(self.outcomes) >= RUNS_A_RIG):
            self.leave()
        if self.rig is None:
            directory = self.root / f"rig-{next(self.numbers)}"
            directory.mkdir()
            self.plan, self.rig = plan, Rig(directory, plan).__enter__()
        return self.rig

    def leave(self, *, keep: bool = False) -> list[Outcome]:
        """End the rig; the outcomes whose histories no longer hold at its end."""
        spoilt = []
        if self.rig is not None:
            for outcome in self.outcomes:
                if not keep and not outcome.violations:
                    again = settle(addresses_of(self.rig), outcome.history, 0.0)
                    if again:
                        spoilt.append(outcome)
                        say(f"LATER {outcome.fault} seed {outcome.seed}: {again[0]}")
            self.rig.stop()
            if keep or spoilt:
                say(f"kept: {self.rig.directory}")
            else:
                shutil.rmtree(self.rig.directory, ignore_errors=True)
        self.rig, self.plan, self.outcomes = None, None, []
        return spoilt


def say(line: str) -> None:
    print(line, flush=True)


def run_all(faults: Sequence[Fault], runs: int, until_s: float, root: Path) -> bool:
    """Bring each fault to `runs` runs; True when none violated anything."""
    stage, is_well = Stage(root), True
    todo = _todo(faults, runs)
    done = 0
    try:
        for fault in todo:
            if time.monotonic() > until_s:
                say("time is over; the same command goes on from here")
                break
            is_well &= _run(stage, fault, f"r{done}")
            done += 1
    finally:
        is_well &= not stage.leave()
    return is_well


def _todo(faults: Sequence[Fault], runs: int) -> Iterator[Fault]:
    """Plan by plan, and within a plan round by round, those first that were done least."""
    rows = ledger.read()
    missing = {
        fault.name: runs - len(ledger.runs_of(fault.name, fault.revision, rows))
        for fault in faults
        if not _is_left_out(fault)
    }
    plans = list(dict.fromkeys(f.plan for f in faults if missing.get(f.name, 0) > 0))
    for plan in plans:
        of_plan = [fault for fault in faults if fault.plan == plan and fault.name in missing]
        for still in range(runs, 0, -1):
            yield from (fault for fault in of_plan if missing[fault.name] >= still)


def _is_left_out(fault: Fault) -> bool:
    if why := lacking(fault):
        say(f"left out: {fault.name} ({why})")
    return bool(why)


def _run(stage: Stage, fault: Fault, run: str) -> bool:
    seed = random.SystemRandom().randrange(10**6)
    began = time.monotonic()
    rig = stage.rig_for(fault.plan)
    try:
        outcome = run_once(rig, fault, seed, f"{run}-{seed}")
    except Exception as error:
        # Not a verdict on the product yet: somebody has to look.
        say(f"TROUBLE {fault.name}, seed {seed}: {type(error).__name__}: {error}")
        stage.leave(keep=True)
        return False
    stage.outcomes.append(outcome)
    took_s = time.monotonic() - began
    _write_down(outcome)
    recovery = "never" if outcome.recovery_s is None else f"{outcome.recovery_s:.1f} s"
    say(
        f"{'ok  ' if not outcome.violations else 'FAIL'} {fault.name}, seed {seed}: "
        f"{outcome.acknowledged} acknowledged, {outcome.injected} injected, "
        f"recovery {recovery}, took {took_s:.0f} s"
    )
    if outcome.repeats:
        say(f"     tripwire: {outcome.repeats} repeated outputs or more were dropped")
    for violation in outcome.violations[:8]:
        say(f"     {violation}")
    if outcome.violations:
        stage.leave(keep=True)
    elif not fault.leaves_sound:
        stage.leave()
    return not outcome.violations


def _write_down(outcome: Outcome) -> None:
    ledger.append(
        ledger.Row(
            datetime.now(UTC).date().isoformat(),
            FAULTS[outcome.fault].revision,
            _commit(),
            outcome.fault,
            outcome.seed,
            outcome.sent,
            outcome.acknowledged,
            outcome.injected,
            "" if outcome.recovery_s is None else f"{outcome.recovery_s:.2f}",
            "ok" if not outcome.violations else "violated",
            "; ".join(_told(outcome)),
        )
    )


def _told(outcome: Outcome) -> list[str]:
    told = [str(violation)[:120] for violation in outcome.violations[:3]]
    return [*told, f"tripwire dropped {outcome.repeats}"] if outcome.repeats else told


def _commit() -> str:
    asked = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(asked, capture_output=True, text=True).stdout.strip() or "unknown"


def write_report() -> None:
    """The table in docs/reliability.md is that of the ledger."""
    text = DOCUMENT.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "\n".join(ledger.report(ledger.read(), _revisions()))
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", "utf-8")


def _revisions() -> dict[str, int]:
    return {name: fault.revision for name, fault in FAULTS.items()}


def main() -> int:
    """0 when nothing was violated."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fault", action="append", default=[], help="name, or part of names")
    parser.add_argument("--runs", type=int, default=5, help="of each fault, the ledger's included")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no run after so long")
    parser.add_argument("--report", action="store_true", help="write the table and do nothing else")
    parser.add_argument("--list", action="store_true", help="name the faults and do nothing else")
    chosen = parser.parse_args()
    if chosen.list:
        print("\n".join(FAULTS))
        return 0
    if chosen.report:
        write_report()
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    root = Path(tempfile.mkdtemp(prefix="headwater-faults-"))
    is_well = run_all(named(chosen.fault), chosen.runs, time.monotonic() + chosen.seconds, root)
    print("\n".join(ledger.report(ledger.read(), _revisions())))
    if is_well:
        shutil.rmtree(root, ignore_errors=True)
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
