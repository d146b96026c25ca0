"""The network between roles and servers: answers lost, one way cut, connections refused, slowness.

Made by the proxy (tests/faults/proxy.py), which stands before every server here. Cuts shorter than
a client's timeout are sat out by it; longer ones end connections, sessions and transactions.
"""

import random
import time
from functools import partial

from tests.faults import namespaces
from tests.faults.copies import held_down
from tests.faults.fault import Fault
from tests.faults.proxy import WAYS, Proxy, Request, Way, anything, containing, kafka_request
from tests.faults.rig import Plan, Rig
from tests.faults.standing import stand_before
from tests.waiting import eventually

SERVERS = ("kafka", "redis", "clickhouse")
PROXIED = Plan(between=tuple((name, stand_before) for name in (*SERVERS, "collector")))
"""Every role reaches every server, and the sender the collector, through a proxy."""

# The embedded ClickHouse answers its own machine's loopback alone.
NAMESPACED = Plan(
    between=tuple((name, namespaces.stand_at_our_end) for name in ("kafka", "redis")),
    prepare=namespaces.make,
    clean=namespaces.remove,
)
"""Stream workers and the sink of profiles may run in a network namespace."""

LOSSES_A_RUN = 4
CUT_S = (2.0, 25.0)
"""A lane's transaction may last 10 s and its session as long: shorter and longer than both."""


def insert_into(table: str) -> Request:
    """Inserts into a table of ours; what follows the name is the first column's."""
    return containing(*(f"{table}{quote} (`".encode() for quote in ("`", "")))


ANSWERS: dict[str, tuple[str, Request]] = {
    "an insert into facts": ("clickhouse", insert_into("facts")),
    "an insert into counters": ("clickhouse", insert_into("counters")),
    "an insert into progress": ("clickhouse", insert_into("progress")),
    "a script of Redis": ("redis", containing(b"EVALSHA", b"EVAL")),
    "a sync of Redis": ("redis", containing(b"WAITAOF", b"waitaof")),
    "a produce to Kafka": ("kafka", kafka_request(0)),
    "a commit to Kafka": ("kafka", kafka_request(26)),
    "a fence at Kafka": ("kafka", kafka_request(22)),
    "a call to the collector": ("collector", containing(b"POST /v1/batch")),
}


def proxy_of(rig: Rig, name: str) -> Proxy:
    """The proxy before `name`, in a rig of PROXIED."""
    found = rig.between[name]
    assert isinstance(found, Proxy)
    return found


def _has_lost(proxy: Proxy, answers: int) -> bool:
    return proxy.lost_answers >= answers


def _answer_lost(what: str) -> Fault:
    server, request = ANSWERS[what]

    def do(rig: Rig, chance: random.Random) -> int:
        proxy = proxy_of(rig, server)
        try:
            for _ in range(LOSSES_A_RUN):
                time.sleep(chance.uniform(0.0, 1.5))
                goal = proxy.lost_answers + 1
                proxy.lose_answers(request, times=1, linger_s=chance.choice((0.0, 0.3, 3.0)))
                if what == "a fence at Kafka":
                    # Lanes are fenced when a worker takes them.
                    chance.choice(rig.streams).kill()
                eventually(partial(_has_lost, proxy, goal), within_s=75)
        finally:
            proxy.heal()
        return LOSSES_A_RUN

    revision = 2 if server == "kafka" else 1
    return Fault(f"answer lost of {what} that was applied", do, plan=PROXIED, revision=revision)


def _all_answers_lost(server: str) -> Fault:
    def do(rig: Rig, chance: random.Random) -> int:
        proxy = proxy_of(rig, server)
        before = proxy.lost_answers
        proxy.lose_answers(anything, linger_s=chance.uniform(0.0, 1.0))
        try:
            time.sleep(chance.uniform(1.0, 8.0))
        finally:
            proxy.heal()
        return max(1, proxy.lost_answers - before)

    return Fault(f"every answer of {server} lost for a while", do, plan=PROXIED)


def _cut(server: str, way: str) -> Fault:
    ways = [each for each in WAYS if each == way] or list(WAYS)

    def do(rig: Rig, chance: random.Random) -> int:
        proxy = proxy_of(rig, server)
        proxy.cut(*ways)
        try:
            time.sleep(chance.uniform(*CUT_S))
        finally:
            proxy.heal()
        return 1

    return Fault(f"{server} cut off, {way}", do, plan=PROXIED)


def _refused(rig: Rig, chance: random.Random) -> int:
    for server in chance.sample(SERVERS, len(SERVERS)):
        proxy = proxy_of(rig, server)
        proxy.refuse()
        try:
            time.sleep(chance.uniform(0.5, 4.0))
        finally:
            proxy.heal()
    return len(SERVERS)


def _reset(rig: Rig, chance: random.Random) -> int:
    for _ in range(10):
        time.sleep(chance.uniform(0.05, 0.8))
        proxy_of(rig, chance.choice(SERVERS)).reset()
    return 10


def _slow(server: str, seconds: float) -> Fault:
    def do(rig: Rig, chance: random.Random) -> int:
        proxy = proxy_of(rig, server)
        proxy.delay(seconds, "to client")
        try:
            # Some answers come that late, others are on their way when it is over.
            time.sleep(seconds + chance.uniform(1.0, 6.0))
        finally:
            proxy.heal()
        return 1

    return Fault(f"{server} slow: {seconds:g} s for each answer", do, plan=PROXIED)


def _cut_in_namespace(way: Way) -> Fault:
    def do(rig: Rig, chance: random.Random) -> int:
        part = chance.choice([*rig.streams, rig.roles["subjects-to-redis"]])
        part.prefix = namespaces.COMMAND
        with held_down(part):
            pass
        eventually(part.is_ready, within_s=60)
        namespaces.cut(way)
        try:
            time.sleep(chance.uniform(*CUT_S))
        finally:
            namespaces.heal(way)
            part.prefix = ()  # it comes home when it is started again
        return 1

    needs = ("apache", "namespace")
    return Fault(f"role cut off by its network, {way}", do, plan=NAMESPACED, needs=needs)


FAULTS = [
    *(_answer_lost(what) for what in ANSWERS),
    *(_all_answers_lost(server) for server in (*SERVERS, "collector")),
    *(_cut(server, way) for server in SERVERS for way in (*WAYS, "both ways")),
    *(_cut_in_namespace(way) for way in WAYS),
    Fault("servers refuse connections, one after another", _refused, plan=PROXIED),
    Fault("connections reset at random", _reset, plan=PROXIED),
    _slow("clickhouse", 30),
    _slow("redis", 6),
    _slow("kafka", 3),
]
