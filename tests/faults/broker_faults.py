"""Apache Kafka itself: killed, stopped, asleep; and one of three lost."""

import random
import time

from tests.faults.fault import Fault
from tests.faults.parts import Part
from tests.faults.rig import Plan, Rig

THREE = Plan(brokers=3)


def _broker(rig: Rig) -> Part:
    return rig.servers["kafka"]


def _kill(rig: Rig, chance: random.Random) -> int:
    time.sleep(chance.uniform(0.1, 2.0))
    _broker(rig).kill()
    return 1


def _terminate(rig: Rig, chance: random.Random) -> int:
    time.sleep(chance.uniform(0.1, 2.0))
    broker = _broker(rig)
    broker.terminate()
    broker.wait_ended(60)
    return 1


def _pause(rig: Rig, chance: random.Random) -> int:
    time.sleep(chance.uniform(0.1, 2.0))
    _broker(rig).pause()
    time.sleep(chance.uniform(3.0, 14.0))
    _broker(rig).go_on()
    return 1


def _one_of_three(how: str) -> Fault:
    def do(rig: Rig, chance: random.Random) -> int:
        victim = chance.choice([part for name, part in rig.servers.items() if "kafka" in name])
        time.sleep(chance.uniform(0.1, 1.0))
        if how == "paused":
            victim.pause()
            time.sleep(chance.uniform(8.0, 14.0))
            victim.go_on()
            return 1
        victim.is_held_down = True
        victim.kill() if how == "killed" else victim.terminate()
        # The others carry on without it: that is what is asked here, not its return.
        return 1

    return Fault(f"one of three brokers {how}", do, plan=THREE)


FAULTS = [
    Fault("broker killed and restarted", _kill),
    Fault("broker stopped by SIGTERM and restarted", _terminate),
    Fault("broker asleep for 3 to 14 s", _pause),
    *(_one_of_three(how) for how in ("killed", "stopped", "paused")),
]
