"""The same trouble while people are joined and parted, change segments, and leave carts behind.

One or more of each kind of fault, with loads in which one person has several identifiers, in
several lanes (tests/faults/people_loads.py).
"""

from collections.abc import Iterable
from dataclasses import replace

from tests.faults.fault import Fault
from tests.faults.loads import Load
from tests.faults.people_loads import PEOPLE, PEOPLE_REVERSED, PEOPLE_STORM
from tests.faults.rig import Plan

NAMES = (
    *("kill -9 streams", "SIGTERM streams", "kill -9 api"),
    "kill -9 streams between fencing, rebuild and flow",
    "kill -9 streams before, in and after a commit",
    "kill -9 accepted-to-clickhouse between facts, counters and progress",
    "kill -9 subjects-to-redis between profiles, cursors and sync",
    "kill -9 collector between vault, log and answer",
    "kill -9 every role at once",
    "SIGSTOP streams past its session, then SIGCONT",
    "SIGSTOP streams in a commit past its session, then SIGCONT",
    "SIGSTOP accepted-to-clickhouse past its session, then SIGCONT",
    "stream workers join and leave every few seconds",
    "broker killed and restarted",
    "broker asleep for 3 to 14 s",
    "kill -9 every server and every role at once",
    "ClickHouse killed in the middle of inserts",
    "ClickHouse rolled back by a suffix of its writes, sink running",
    *("Redis killed and restarted", "profiles lost"),
    "answer lost of a commit to Kafka that was applied",
    "answer lost of a produce to Kafka that was applied",
    "answer lost of a script of Redis that was applied",
    "answer lost of an insert into progress that was applied",
    *("kafka cut off, both ways", "redis cut off, both ways", "clickhouse cut off, both ways"),
    "connections reset at random",
    *("one of three brokers killed", "two of three brokers killed and restarted"),
)
"""Faults of other modules that hurt such people, too."""

LOADS: dict[str, Load] = {
    "tenfold duplicate storm, kill -9 streams": PEOPLE_STORM,
    "reversed order, kill -9 streams": PEOPLE_REVERSED,
}

IN_TRIAL = ("SIGTERM streams", "SIGTERM accepted-to-clickhouse", "SIGTERM subjects-to-redis")
"""What noida-db is promised for: clean stops (docs/trial-mode.md)."""
TRIAL = Plan(streams=1, is_trial=True)

MENDED = ("reversed order, kill -9 streams",)
"""What they found was mended since: lanes took for silence what an open transaction hid."""


def of_people(faults: Iterable[Fault]) -> list[Fault]:
    """Those of `faults` that are named here, each with such a load, as a fault of its own."""
    known = {fault.name: fault for fault in faults}
    loads = dict.fromkeys(NAMES, PEOPLE) | LOADS
    found = [
        replace(known[name], name=f"people: {name}", load=load, revision=2 if name in MENDED else 1)
        for name, load in loads.items()
    ]
    for name in IN_TRIAL:
        named = replace(known[name], name=f"people, in trial mode: {name}", revision=1)
        found.append(replace(named, load=PEOPLE, plan=TRIAL, needs=("trial",)))
    return found
