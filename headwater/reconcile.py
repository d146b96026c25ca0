"""Is live = verified now, and when was it last?

The reconciler compares counters with facts (verify.py) again and again, while everything runs. What
it finds goes to the metrics, to ClickHouse, where the API and the page read it, and to whoever
listens for changes. A difference counts when two looks in a row have it: what a batch in flight
might look like has passed by then.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from headwater.process_life import show_metrics, stop_on_signal
from headwater.recount import Difference
from headwater.verify import Verdict, verify
from runtime.clickhouse import answering, connect
from runtime.clock import ClockMs, real_ms
from runtime.logs import configure_logs, get_logger
from runtime.metrics import gauge
from runtime.retry import Stopped, retry_in_place
from runtime.settings import Settings

CONFIRMED_AFTER_S = 1.0
SHARE_OF_TIME = 0.1
"""Comparing reads every fact: it takes this share of the time at most, whatever [time]
verify_every_s says. An interval that is asked for by hand is kept."""
CORES = 1
"""Of ClickHouse, for a look: the sinks and the page are served beside it."""
LATE_BY_S = 60.0
"""Longer than announced, a look must take until its answer counts as overdue."""
TOLD = 10

T = TypeVar("T")
Tell = Callable[[Verdict], None]
_COLUMNS = ("topic", "checked_at", "differences", "counters", "facts", "took_ms", "next_by")


def reconcile(
    settings: Settings,
    stop: threading.Event,
    *,
    every_s: float | None = None,
    tell: Tell | None = None,
    on_ready: Callable[[], None] = lambda: None,
    clock: ClockMs = real_ms,
) -> None:
    """Compare, with pauses of `every_s` (by default [time] verify_every_s or more), until `stop`.

    `tell` is given the first verdict and each that says something else than the one before; by
    default it is logged. Waits for stores that are away. Raises StoreRefused.
    """
    told: tuple[bool, int] | None = None
    on_ready()
    try:
        _retry(lambda: _show_last_verified(settings), "look up the last verdict", stop)
        while not stop.is_set():
            verdict, wait_s = _retry(
                lambda: _look_and_keep(settings, stop, clock, every_s), "compare counters", stop
            )
            if told != (told := (verdict.is_verified, verdict.difference_count)):
                (tell or _log)(verdict)
            stop.wait(wait_s)
    except Stopped:
        get_logger().info("stopped_while_waiting", doing="verify")


def watch_verdicts(
    settings: Settings, *, every_s: float | None, say: Callable[[str], None], as_json: bool
) -> None:
    """Reconcile in the foreground until Ctrl-C or SIGTERM; `say` is given a line a change.

    Numbers are shown on [metrics] port, if one is set. Raises as `reconcile` does.
    """
    configure_logs(role="verify", as_json=not sys.stderr.isatty())
    show_metrics(settings)

    def tell(verdict: Verdict) -> None:
        say(json.dumps(verdict.to_json()) if as_json else verdict_line(verdict))

    reconcile(settings, stop_on_signal(), every_s=every_s, tell=tell)


def verdict_line(verdict: Verdict) -> str:
    """A verdict in one line, beginning with its moment in UTC."""
    at = _moment(verdict.checked_at_ms).strftime("%Y-%m-%dT%H:%M:%SZ")
    first = f"; the first: {verdict.differences[0].line}" if verdict.differences else ""
    return f"{at} {verdict.lines()[0]}{first}"


def _look_and_keep(
    settings: Settings, stop: threading.Event, clock: ClockMs, every_s: float | None
) -> tuple[Verdict, float]:
    """One verdict, shown and kept, and the seconds to wait before the next."""
    began_s = time.monotonic()
    verdict = _look(settings, stop, clock)
    took_s = time.monotonic() - began_s
    sparing_s = max(settings.time.verify_every_s, took_s * (1 / SHARE_OF_TIME - 1))
    wait_s = sparing_s if every_s is None else every_s
    _show(verdict, took_s)
    _keep(settings, verdict, took_s, wait_s)
    return verdict, wait_s


def _look(settings: Settings, stop: threading.Event, clock: ClockMs) -> Verdict:
    # Links are left to who asks once: each look at them would read the whole log.
    verdict = verify(settings, clock=clock, max_threads=CORES, with_links=False)
    if verdict.is_verified:
        return verdict
    stop.wait(CONFIRMED_AFTER_S)
    again = verify(settings, clock=clock, max_threads=CORES, with_links=False)
    known = {_what(difference) for difference in verdict.differences}
    confirmed = tuple(each for each in again.differences if _what(each) in known)
    return replace(again, differences=confirmed)


def _what(difference: Difference) -> tuple[str | None, ...]:
    """What differs, without by how much: that may move between two looks."""
    each = difference
    return each.kind, each.campaign_id, each.metric, each.currency, each.minute


def _show(verdict: Verdict, took_s: float) -> None:
    gauge("headwater_verify_differences").set(verdict.difference_count)
    gauge("headwater_verify_checked_at_seconds").set(verdict.checked_at_ms / 1000)
    gauge("headwater_verify_look_seconds").set(took_s)
    if verdict.is_verified:
        gauge("headwater_verify_verified_at_seconds").set(verdict.checked_at_ms / 1000)


def _show_last_verified(settings: Settings) -> None:
    """The metric says what an earlier reconciler found, until there is news."""
    sql = (
        "SELECT toUnixTimestamp64Milli(max(checked_at)) FROM verdicts "
        "WHERE topic = {topic:String} AND differences = 0"
    )
    with connect(settings) as client, answering("when live was verified last"):
        ((at_ms,),) = client.query(sql, {"topic": settings.topic_names.accepted}).result_rows
    gauge("headwater_verify_verified_at_seconds").set(max(0, at_ms) / 1000)


def _keep(settings: Settings, verdict: Verdict, took_s: float, wait_s: float) -> None:
    next_by_ms = verdict.checked_at_ms + round((wait_s + 2 * took_s + LATE_BY_S) * 1000)
    row = (
        settings.topic_names.accepted,
        _moment(verdict.checked_at_ms),
        verdict.difference_count,
        verdict.counters,
        verdict.facts,
        round(took_s * 1000),
        _moment(next_by_ms),
    )
    with connect(settings) as client, answering("an insert of a verdict"):
        client.insert("verdicts", [row], column_names=_COLUMNS)


def _retry(action: Callable[[], T], doing: str, stop: threading.Event) -> T:
    return retry_in_place(action, what=doing, wait=stop.wait, stopped=stop.is_set)


def _log(verdict: Verdict) -> None:
    if verdict.is_verified:
        get_logger().info("live_is_verified", counters=verdict.counters, facts=verdict.facts)
        return
    for difference in verdict.differences[:TOLD]:
        get_logger().error("live_differs", kind=difference.kind, said=difference.line)
    get_logger().error("live_is_not_verified", differences=verdict.difference_count)


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
