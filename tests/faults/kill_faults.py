"""Ending roles: at random moments, and at named points of what they do."""

import random
import time

from tests.faults.fault import Fault
from tests.faults.parts import Part
from tests.faults.points import POINTS
from tests.faults.rig import SINKS, Rig
from tests.waiting import eventually

SUPERVISED = ("collector", "api", *SINKS)
BLOWS_A_RUN = 3
POINTS_A_RUN = 3
PASSED_WITHIN_S = 45


def _victims(rig: Rig, role: str) -> list[Part]:
    return [part for part in rig.roles.values() if part.role == role]


def _end_at_random(role: str, blow: str) -> Fault:
    def do(rig: Rig, chance: random.Random) -> int:
        for _ in range(BLOWS_A_RUN):
            # Also while it starts: joining, fencing, rebuilding.
            time.sleep(chance.uniform(0.1, 3.0))
            victim = chance.choice(_victims(rig, role))
            eventually(victim.kill if blow == "kill -9" else victim.terminate, within_s=20)
        return BLOWS_A_RUN

    return Fault(f"{blow} {role}", do)


def end_at_points(role: str, count: int = POINTS_A_RUN) -> Fault:
    """A role dies at `count` of its points, one after another; of several workers any."""
    names = sorted(name for name, point in POINTS.items() if point.role == role)

    def do(rig: Rig, chance: random.Random) -> int:
        for name in chance.sample(names, count):
            delay_s = chance.uniform(0, 0.02)
            rig.arm(name, f"{delay_s:.4f} kill" if POINTS[name].moment == "within" else "kill")
            provoke(rig, name, chance)
            rig.wait_hit(name, PASSED_WITHIN_S)
        return count

    return Fault(f"kill -9 {role} at named points", do)


STARTING = ("fence", "rebuild", "flow", "start")


def provoke(rig: Rig, point: str, chance: random.Random) -> None:
    """Have some role pass a point that it passes only when it starts or ends."""
    role, _, at = point.partition(".")
    victim = chance.choice(_victims(rig, role))
    if at.endswith(STARTING):
        eventually(victim.kill, within_s=20)
    elif at.endswith("close"):
        eventually(victim.is_ready, within_s=60)
        victim.terminate()


def _end_everything(rig: Rig, chance: random.Random) -> int:
    time.sleep(chance.uniform(0.2, 2.0))
    parts = list(rig.roles.values())
    for part in chance.sample(parts, len(parts)):
        part.kill()
    return len(parts)


FAULTS = [
    *(_end_at_random(role, blow) for blow in ("kill -9", "SIGTERM")
      for role in ("collector", "streams", *SINKS, "api")),
    *(end_at_points(role) for role in ("collector", "streams", *SINKS)),
    Fault("kill -9 every role at once", _end_everything),
]  # fmt: skip
