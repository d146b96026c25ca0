"""What does this process do that no position shows?

Rebuilding a lane's memory moves no offset for minutes, and neither does a store that is away or
slow: whoever is at that gives signs of life meanwhile, and the watchdog (watchdog.py) takes them
for progress. Written by the threads that work, read by the one that watches.
"""

from collections import defaultdict

STORE = "store"
"""Given by runtime/retry.py: a store refused once more to answer, or took its time to."""

_given: defaultdict[str, int] = defaultdict(int)


def rebuild_of(partition: int) -> str:
    """Given for each record that is read to rebuild the memory of lane `partition`."""
    return f"rebuild {partition}"


def give_sign(of: str, times: int = 1) -> None:
    """One more sign of life; one thread at a time for each `of`."""
    _given[of] += times


def signs_of(of: str) -> int:
    """How many signs there were: another number than before means life."""
    return _given.get(of, 0)
