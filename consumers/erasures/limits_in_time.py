"""What ends by itself when its time is over, and who sees to it?

Kafka and ClickHouse delete what is past the limit of a topic or table. Two things need more than a
clock: people of whom nothing was heard (idle_to_erasures.py), and facts, from which counters are
verified (fact_ages.py). A thread of the role `erasure` looks for both once an hour.
"""

import asyncio
import threading
from collections.abc import Callable

from consumers.erasures.fact_ages import drop_old_facts
from consumers.erasures.idle_to_erasures import ask_to_forget
from runtime.clock import ClockMs, now_ms
from runtime.logs import get_logger
from runtime.settings import Settings
from schemas.errors import StoreUnavailable

LOOK_EVERY_S = 3600.0
LOOK_AGAIN_S = 30.0


def keep_limits(
    settings: Settings, stop: threading.Event, clock: ClockMs = now_ms
) -> Callable[[], None]:
    """From now until `stop`, a thread looks each hour for what is over.

    Answers what waits for its end. Does nothing where no limit is configured.
    """

    def watch() -> None:
        wait_s = 0.0
        while not stop.wait(wait_s):
            try:
                look_once(settings, clock())
                wait_s = LOOK_EVERY_S
            except StoreUnavailable as fault:
                get_logger().warning("limits_not_looked_after", fault=str(fault))
                wait_s = LOOK_AGAIN_S

    thread = threading.Thread(target=watch, name="limits in time", daemon=True)
    if settings.profiles.idle_days or settings.tables.facts.retention_days:
        thread.start()
        return thread.join
    return lambda: None


def look_once(settings: Settings, at_ms: int) -> None:
    """Idle people's erasure is asked for, and facts past their limit are gone.

    People first: their facts tell who is idle. Raises StoreUnavailable or StoreRefused.
    """
    if settings.profiles.idle_days:
        asked = asyncio.run(ask_to_forget(settings, at_ms))
        if asked:
            get_logger().info("idle_people_end", people=asked)
    rows = drop_old_facts(settings, at_ms)
    if rows:
        get_logger().info("old_facts_deleted", rows=rows)
