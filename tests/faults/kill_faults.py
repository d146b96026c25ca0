"""Ending roles: at random moments, and at named points of what they do."""

import random
import time

from tests.faults.fault import Fault
from tests.faults.parts import Part
from tests.faults.points import POINTS
from tests.faults.rig import SINKS, Rig
from tests.waiting import eventually

STARTING = ("fence", "rebuild", "flow", "start")
BLOWS_A_RUN = 3
PASSED_WITHIN_S = 25
TRIES = 4


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


GROUPS = {
    "streams between fencing, rebuild and flow": (
        *("streams.before-fence", "streams.after-fence", "streams.within-rebuild"),
        *("streams.after-rebuild", "streams.before-flow", "streams.after-flow"),
    ),
    "streams before, in and after a commit": (
        *("streams.after-apply", "streams.before-commit", "streams.within-commit"),
        *("streams.after-commit", "streams.before-close", "streams.after-close"),
    ),
    "accepted-to-clickhouse between facts, counters and progress": (
        *("accepted-to-clickhouse.after-start", "accepted-to-clickhouse.before-facts"),
        *("accepted-to-clickhouse.within-facts", "accepted-to-clickhouse.after-facts"),
        *("accepted-to-clickhouse.within-counters", "accepted-to-clickhouse.after-counters"),
        *("accepted-to-clickhouse.within-progress", "accepted-to-clickhouse.after-progress"),
    ),
    "subjects-to-redis between profiles, cursors and sync": (
        *("subjects-to-redis.after-start", "subjects-to-redis.before-profiles"),
        *("subjects-to-redis.within-profiles", "subjects-to-redis.after-profiles"),
        *("subjects-to-redis.within-cursors", "subjects-to-redis.after-cursors"),
        *("subjects-to-redis.within-sync", "subjects-to-redis.after-sync"),
    ),
    "collector between vault, log and answer": (
        *("collector.after-people", "collector.before-send"),
        *("collector.within-send", "collector.after-send"),
    ),
}
"""Where roles die by name; each run of such a fault passes every point of its group once."""

BLOWS = {"kill -9": "kill", "SIGTERM": "term"}


def end_at_points(group: str, blow: str = "kill -9", count: int | None = None) -> Fault:
    """A role ends at each point of a group (or `count` of them), in any order, one after another."""

    def do(rig: Rig, chance: random.Random) -> int:
        points = chance.sample(GROUPS[group], count or len(GROUPS[group]))
        for name in points:
            delay_s = chance.uniform(0, 0.02)
            when = f"{delay_s:.4f} " if POINTS[name].moment == "within" else ""
            rig.arm(name, when + BLOWS[blow])
            _have_passed(rig, name, chance)
        return len(points)

    return Fault(f"{blow} {group}", do)


def _have_passed(rig: Rig, point: str, chance: random.Random) -> None:
    """Some role has passed the armed point; one that lies at a start or an end is provoked."""
    role, _, at = point.partition(".")
    for _ in range(TRIES):
        if at.endswith(STARTING):
            eventually(chance.choice(_victims(rig, role)).kill, within_s=30)
        elif at.endswith("close"):
            # One that has lanes: it closes them when it is asked to end.
            eventually(lambda: any(part.is_ready() for part in _victims(rig, role)), within_s=60)
            for part in _victims(rig, role):
                part.terminate()
        try:
            rig.wait_hit(point, PASSED_WITHIN_S)
        except AssertionError:
            continue  # it had no lanes, or was ended before it came there
        return
    raise AssertionError(f"nobody passed {point}")


def _end_everything(rig: Rig, chance: random.Random) -> int:
    time.sleep(chance.uniform(0.2, 2.0))
    parts = list(rig.roles.values())
    for part in chance.sample(parts, len(parts)):
        part.kill()
    return len(parts)


FAULTS = [
    *(_end_at_random(role, blow) for blow in ("kill -9", "SIGTERM")
      for role in ("collector", "streams", *SINKS, "api")),
    *(end_at_points(group, blow) for blow in BLOWS for group in GROUPS),
    Fault("kill -9 every role at once", _end_everything),
]  # fmt: skip
