"""Workers that sleep past their session and wake as zombies; workers that come and go."""

import random
import time

from tests.faults.fault import Fault
from tests.faults.rig import SINKS, Rig
from tests.waiting import eventually

SESSION_S = 10.0
"""broker_session_timeout of the streams, session.timeout.ms of the sinks."""
JOINS_A_RUN = 3


def _sleep_past_session(role: str) -> Fault:
    def do(rig: Rig, chance: random.Random) -> int:
        victim = chance.choice([part for part in rig.roles.values() if part.role == role])
        time.sleep(chance.uniform(0.1, 1.0))
        victim.is_held_down = True
        victim.pause()
        try:
            # Long enough for its group to give its partitions away and the other to take them.
            time.sleep(SESSION_S + chance.uniform(1.0, 5.0))
        finally:
            victim.go_on()
            victim.is_held_down = False
        return 1

    return Fault(f"SIGSTOP {role} past its session, then SIGCONT", do)


OPENING = ("streams.after-fence", "streams.within-rebuild", "streams.before-flow")


def _stop_while_opening(rig: Rig, chance: random.Random) -> int:
    """Asleep between fencing, rebuild and flow; replaced; awake."""
    point = chance.choice(OPENING)
    rig.arm(point, "stop")
    eventually(chance.choice(rig.streams).kill, within_s=20)
    _sleep_where_stopped(rig, point, chance)
    return 1


def _stop_in_commit(rig: Rig, chance: random.Random) -> int:
    """Asleep with a commit under way; replaced; awake."""
    rig.arm("streams.within-commit", f"{chance.uniform(0, 0.01):.4f} stop")
    _sleep_where_stopped(rig, "streams.within-commit", chance)
    return 1


def _sleep_where_stopped(rig: Rig, point: str, chance: random.Random) -> None:
    pid = rig.wait_hit(point, 60)
    (victim,) = [part for part in rig.streams if part.pid == pid]
    time.sleep(SESSION_S + chance.uniform(2.0, 6.0))
    victim.go_on()


def _pause_collector(rig: Rig, chance: random.Random) -> int:
    """Its connections to Kafka and the vault grow old meanwhile; senders give up and come again."""
    time.sleep(chance.uniform(0.1, 1.0))
    rig.roles["collector"].pause()
    time.sleep(chance.uniform(5.0, 15.0))
    rig.roles["collector"].go_on()
    return 1


def _second_sink(role: str) -> Fault:
    """A second member of the sink's group: it takes partitions, and gives them back."""

    def do(rig: Rig, chance: random.Random) -> int:
        extra = rig.add_role(role)
        time.sleep(chance.uniform(3.0, 6.0))
        extra.pause()
        time.sleep(SESSION_S + chance.uniform(1.0, 3.0))
        extra.go_on()
        time.sleep(chance.uniform(0.5, 2.0))
        rig.remove(extra)
        return 2

    return Fault(f"second {role} joins, sleeps past its session, wakes and leaves", do)


def _come_and_go(rig: Rig, chance: random.Random) -> int:
    """Every few seconds a worker joins or leaves, and each time lanes change hands."""
    extra = []
    for _ in range(JOINS_A_RUN):
        extra.append(rig.add_streams(is_named=False))
        time.sleep(chance.uniform(1.0, 4.0))
        if chance.random() < 0.5:
            leaving = extra.pop(chance.randrange(len(extra)))
            leaving.kill() if chance.random() < 0.3 else leaving.terminate()
            rig.remove(leaving)
            time.sleep(chance.uniform(0.5, 2.0))
    for worker in extra:
        rig.remove(worker)
    return 2 * JOINS_A_RUN


FAULTS = [
    *(_sleep_past_session(role) for role in ("streams", *SINKS)),
    Fault("SIGSTOP streams in a commit past its session, then SIGCONT", _stop_in_commit),
    Fault("SIGSTOP streams between fencing, rebuild and flow, then SIGCONT", _stop_while_opening),
    Fault("SIGSTOP collector for 5 to 15 s, then SIGCONT", _pause_collector),
    *(_second_sink(role) for role in SINKS),
    Fault("stream workers join and leave every few seconds", _come_and_go),
]
