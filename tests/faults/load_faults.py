"""Trouble that comes in by the front door: what is sent, and by which clock."""

import random
import time

from tests.faults import loads
from tests.faults.fault import Do, Fault
from tests.faults.rig import Rig

HOUR_S = 3600


def _for(seconds: float) -> Do:
    def do(rig: Rig, chance: random.Random) -> int:
        # The sender injects, and counts what it injected (Sender.injected).
        time.sleep(seconds)
        return 0

    return do


def _step_clocks(rig: Rig, chance: random.Random) -> int:
    """The clocks of the collector and the workers jump by an hour, each on its own."""
    for _ in range(4):
        for part in ("collector", *(worker.name for worker in rig.streams)):
            rig.shift_clock(part, chance.choice((-HOUR_S, 0, HOUR_S)))
        time.sleep(chance.uniform(1.0, 2.0))
    for part in ("collector", *(worker.name for worker in rig.streams)):
        rig.shift_clock(part, 0)
    return 4


def _storm_and_kill(rig: Rig, chance: random.Random) -> int:
    for _ in range(2):
        time.sleep(chance.uniform(0.5, 3.0))
        chance.choice(rig.streams).kill()
    return 2


FAULTS = [
    Fault("tenfold duplicate storm", _for(8), loads.STORM),
    Fault("tenfold duplicate storm, kill -9 streams", _storm_and_kill, loads.STORM),
    Fault("reversed order", _for(8), loads.REVERSED),
    Fault("reversed order, kill -9 streams", _storm_and_kill, loads.REVERSED),
    Fault("hot key with half the traffic", _for(8), loads.HOT),
    Fault("hot key with half the traffic, kill -9 streams", _storm_and_kill, loads.HOT),
    Fault("poison, null and huge records", _for(8), loads.POISON),
    Fault("poison, null and huge records, kill -9 streams", _storm_and_kill, loads.POISON),
    Fault("senders' clocks an hour off", _for(8), loads.CLOCKS),
    Fault("clock steps of an hour in collector and streams", _step_clocks, loads.CLOCKS),
]
