"""When has the work on a partition stopped?

When the log has more than was done, and nothing was done about it for a while. Pure: what is seen
and how much time passed come from watchdog.py. A position is one of work that is done for good
(committed, durable), so that work which goes in circles counts as none.
"""

from collections.abc import Mapping
from dataclasses import dataclass

Place = tuple[str, int]
"""(topic, partition)."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What was seen of one partition: the next offset to be done, and signs of other progress.

    `position` is None while it is not known yet: the memory behind it is being read. Any change of
    either is progress.
    """

    position: int | None
    signs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LogRange:
    """First offset of a partition, and the end of what may be read: its last stable offset.

    What a dead producer left open lies beyond that end, and is nobody's lag.
    """

    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Stall:
    """How a partition stands, its lag in offsets, and the seconds it lags without progress."""

    standing: Standing
    lag: int
    end: int
    for_s: float


def lag_of(standing: Standing, log: LogRange) -> int:
    """Offsets that are there and not done. Of an unknown position: all of the log."""
    position = log.first if standing.position is None else max(log.first, standing.position)
    return max(0, log.end - position)


def watch_on(
    before: Mapping[Place, Stall],
    standings: Mapping[Place, Standing],
    logs: Mapping[Place, LogRange],
    *,
    elapsed_s: float,
) -> dict[Place, Stall]:
    """The stalls after one more look, `elapsed_s` after the one that gave `before`.

    Partitions that are no longer ours are forgotten; of those whose log is not known nothing is
    said.
    """
    after = {}
    for place, standing in standings.items():
        log = logs.get(place)
        if log is None:
            continue
        lag, known = lag_of(standing, log), before.get(place)
        goes_on = known is not None and known.lag and lag and known.standing == standing
        for_s = known.for_s + elapsed_s if known is not None and goes_on else 0.0
        after[place] = Stall(standing, lag, log.end, for_s)
    return after


def beyond(standings: Mapping[Place, Standing], logs: Mapping[Place, LogRange]) -> set[Place]:
    """Partitions whose position lies beyond the end that was told after it: the log went back."""
    return {
        place
        for place, standing in standings.items()
        if place in logs and standing.position is not None and standing.position > logs[place].end
    }


def stuck(stalls: Mapping[Place, Stall], *, limit_s: float) -> Place | None:
    """The partition that has been without progress for longest, if that is `limit_s` or more."""
    place = max(stalls, key=lambda at: stalls[at].for_s, default=None)
    return place if place is not None and stalls[place].for_s >= limit_s else None
