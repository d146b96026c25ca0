"""Apache Kafka itself: killed, stopped, asleep; and one of three lost.

The newest revision of what hurts a broker, here and in other modules, runs on 4.2.1: the runs before
it were on 4.3.1, which forgot commits (ADR 0008).
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.fault import Fault
from tests.faults.parts import Part
from tests.faults.rig import Plan, Rig

THREE = Plan(brokers=3)


def _broker(rig: Rig) -> Part:
    return rig.servers["kafka"]


def _kill(rig: Rig, chance: random.Random) -> int:
    time.sleep(chance.uniform(0.1, 2.0))
    with _coming_back([_broker(rig)]):
        _broker(rig).kill()
    return 1


def _terminate(rig: Rig, chance: random.Random) -> int:
    time.sleep(chance.uniform(0.1, 2.0))
    with _coming_back([_broker(rig)]):
        _broker(rig).terminate()
    return 1


@contextmanager
def _coming_back(servers: list[Part]) -> Iterator[None]:
    """Servers that end inside work again afterwards: how long they need to start is not ours to
    answer for."""
    starts = [part.starts for part in servers]
    yield
    for part, before in zip(servers, starts, strict=True):
        while part.starts == before:
            time.sleep(0.05)
        part.wait_ready()


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

    return Fault(f"one of three brokers {how}", do, plan=THREE, revision=2)


def _two_of_three(rig: Rig, chance: random.Random) -> int:
    """Nothing can be acknowledged until one of them is back; what was, is there."""
    victims = chance.sample([part for name, part in rig.servers.items() if "kafka" in name], 2)
    for victim in victims:
        victim.is_held_down = True
    for victim in victims:
        victim.kill()
        time.sleep(chance.uniform(0.0, 0.5))
    time.sleep(chance.uniform(2.0, 8.0))
    for victim in victims:
        victim.is_held_down = False
    for victim in victims:
        victim.wait_ready()
    return 2


def _rolling_restart(rig: Rig, chance: random.Random) -> int:
    """As for a new version: one after another, each taking part again before the next."""
    brokers = [part for name, part in rig.servers.items() if "kafka" in name]
    for broker in chance.sample(brokers, len(brokers)):
        broker.terminate()
        broker.wait_ended(60)
        broker.wait_ready()
    return len(brokers)


def _everything(rig: Rig, chance: random.Random) -> int:
    """Every process of the machine but the sender's: servers and roles."""
    time.sleep(chance.uniform(0.2, 2.0))
    parts = list(rig.parts.values())
    with _coming_back(list(rig.servers.values())):
        for part in chance.sample(parts, len(parts)):
            part.kill()
    return len(parts)


FAULTS = [
    Fault("broker killed and restarted", _kill, revision=3),
    Fault("broker stopped by SIGTERM and restarted", _terminate, revision=3),
    Fault("broker asleep for 3 to 14 s", _pause, revision=2),
    Fault("kill -9 every server and every role at once", _everything, revision=3),
    *(_one_of_three(how) for how in ("killed", "stopped", "paused")),
    Fault("two of three brokers killed and restarted", _two_of_three, plan=THREE, revision=2),
    # Revision 3: lanes that asked for decisions through a client that had gone blind stood still.
    Fault("rolling restart of three brokers", _rolling_restart, plan=THREE, revision=3),
]
