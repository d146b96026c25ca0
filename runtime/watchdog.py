"""Who ends a process whose work has stopped, though nothing failed?

A thread of its own looks every few seconds at the partitions that the process owns, whatever its
event loop or consumer does. One that lags and makes no progress for `[time] stuck_after_s` ends the
process by runtime/crash.py, for its supervisor to start it again from what is committed (ADR 0007).
The same looks keep the lag in the metrics true, also of partitions where nothing moves.
"""

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from confluent_kafka.admin import AdminClient, OffsetSpec

from runtime.crash import EXIT_CRASHED, crash
from runtime.log_ends import offsets_of
from runtime.logs import get_logger
from runtime.metrics import GaugeName, gauge
from runtime.stalls import LogRange, Place, Stall, Standing, beyond, stuck, watch_on

LOOKS_A_LIMIT = 12
LONGEST_PAUSE_S = 5.0
SHORTEST_ANSWER_S = 1.0
LAST_WORDS_WITHIN_S = 5.0

Look = Callable[[], Mapping[Place, Standing]]
"""Where the partitions of this process stand; called by the watchdog's thread."""

Watch = Callable[[Look], None]
AskRanges = Callable[[Mapping[Place, Standing]], Mapping[Place, LogRange]]


def nobody_watches(_: Look) -> None:
    """For whoever runs a role inside a process that must not end."""


class Watchdog:
    """Looks from a thread of its own. `now_s` is any steady clock.

    `lag_gauge` and `labels_of` say where a place's lag is shown.
    """

    def __init__(
        self,
        look: Look,
        ask_ranges: AskRanges,
        *,
        limit_s: float,
        lag_gauge: GaugeName,
        labels_of: Callable[[Place], tuple[str, ...]],
        end: Callable[..., object] = crash,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._ask_ranges = ask_ranges
        self._limit_s = limit_s
        self._lag_gauge = lag_gauge
        self._labels_of = labels_of
        self._end = end
        self._now_s = now_s
        self.pause_s = min(LONGEST_PAUSE_S, limit_s / LOOKS_A_LIMIT)
        self._stalls: dict[Place, Stall] = {}
        self._logs: dict[Place, LogRange] = {}
        self._looked_at_s = now_s()
        self._beyond: set[Place] = set()

    def start(self) -> None:
        """Look from now on, as long as the process lives."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(self.pause_s)
            try:
                self.look()
            except Exception as error:
                # A watchdog that fell silent would be missed by nobody.
                get_logger().error("watchdog_failed", error=type(error).__name__)

    def look(self) -> None:
        """Look once; ends the process when it is stuck."""
        standings = self._look()
        # Known ends stand when Kafka does not tell them: they can only have grown.
        told = self._ask_ranges(standings)
        self._logs |= told
        self._judge_ends(standings, told)
        self._logs = {place: log for place, log in self._logs.items() if place in standings}
        now_s = self._now_s()
        # A process that slept (SIGSTOP, a suspended machine) was not seen to be stuck meanwhile.
        longest_s = 2 * (self.pause_s + 2 * answer_within_s(self.pause_s))
        elapsed_s = min(now_s - self._looked_at_s, longest_s)
        self._looked_at_s = now_s
        before = self._stalls
        self._stalls = watch_on(before, standings, self._logs, elapsed_s=elapsed_s)
        self._show(before.keys() - self._stalls.keys())
        place = stuck(self._stalls, limit_s=self._limit_s)
        if place is not None:
            self._bark(place, self._stalls[place])

    def _judge_ends(
        self, standings: Mapping[Place, Standing], told: Mapping[Place, LogRange]
    ) -> None:
        """End the process when a log ends before what was read of it, for two answers on end.

        Its own client may believe no leader that is older than one it has known, and wait for ever;
        whoever starts anew asks for the end and refuses to go on. A new leader may for a moment
        not know how far its followers are.
        """
        found = beyond(standings, told)
        for topic, partition in sorted(found & self._beyond):
            self._end(
                "the log went back; ending, to refuse at the start",
                topic=topic,
                partition=partition,
                position=standings[topic, partition].position,
                end=told[topic, partition].end,
            )
        # A look that Kafka did not answer says nothing of either.
        self._beyond = found | {at for at in self._beyond - told.keys() if at in standings}

    def _show(self, gone: Iterable[Place]) -> None:
        lag, stalled = gauge(self._lag_gauge), gauge("headwater_stuck_seconds")
        for topic, partition in gone:
            lag.remove(*self._labels_of((topic, partition)))
            stalled.remove(topic, str(partition))
        for (topic, partition), stall in self._stalls.items():
            lag.labels(*self._labels_of((topic, partition))).set(stall.lag)
            stalled.labels(topic, str(partition)).set(stall.for_s)

    def _bark(self, place: Place, stall: Stall) -> None:
        # Whoever is stuck may hold the lock of the log, or nobody may read it.
        last = threading.Timer(LAST_WORDS_WITHIN_S, os._exit, (EXIT_CRASHED,))
        last.daemon = True
        last.start()
        self._end(
            "no progress; ending, to start again from what is committed",
            topic=place[0],
            partition=place[1],
            position=stall.standing.position,
            end=stall.end,
            for_s=round(stall.for_s, 1),
            at=_main_thread_is_at(),
        )
        last.cancel()


class KafkaRanges:
    """Asks Kafka where logs begin and end, for committed readers; for one thread.

    As a stranger each time: a client that remembers a leader believes none that is older, as that
    of a log that went back is, and would hear nothing of it for ever.
    """

    def __init__(self, bootstrap_servers: str, answer_within_s: float) -> None:
        self._config = {"bootstrap.servers": bootstrap_servers, "log_level": 2}
        self._answer_within_s = answer_within_s

    def __call__(self, standings: Mapping[Place, Standing]) -> dict[Place, LogRange]:
        """The range of each place, `first` only where it matters; those without answer left out."""
        if not standings:
            return {}
        ask = partial(offsets_of, AdminClient(self._config), within_s=self._answer_within_s)
        ends = ask(standings, OffsetSpec.latest())
        unknown = [place for place in ends if standings[place].position is None]
        firsts = ask(unknown, OffsetSpec.earliest())
        return {
            place: LogRange(firsts.get(place, 0), end)
            for place, end in ends.items()
            if place in firsts or standings[place].position is not None
        }


def answer_within_s(pause_s: float) -> float:
    """How long a watchdog that pauses so long waits for Kafka."""
    return max(SHORTEST_ANSWER_S, pause_s)


def start_watchdog(
    look: Look,
    *,
    bootstrap_servers: str,
    limit_s: float,
    lag_gauge: GaugeName,
    labels_of: Callable[[Place], tuple[str, ...]],
) -> None:
    """Watch `look` for as long as this process lives; see Watchdog."""
    pause_s = min(LONGEST_PAUSE_S, limit_s / LOOKS_A_LIMIT)
    ranges = KafkaRanges(bootstrap_servers, answer_within_s(pause_s))
    Watchdog(look, ranges, limit_s=limit_s, lag_gauge=lag_gauge, labels_of=labels_of).start()


def _main_thread_is_at() -> str:
    """Files and lines of the innermost calls of the main thread: where it may be stuck."""
    main = threading.main_thread().ident
    frame = sys._current_frames().get(main) if main is not None else None
    if frame is None:
        return ""
    calls = traceback.extract_stack(frame)[-4:]
    return " < ".join(f"{call.filename}:{call.lineno}" for call in reversed(calls))
