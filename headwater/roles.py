"""What runs under the name of a role, and when is it ready?

A role is one arrow of the flow, or a door of it. Each runs in a process of its own, but for the
collector and the API, which share one port. A role never leaves by an exception that nobody reads:
a store that is away is waited for inside, everything else ends the process, and whoever supervises
it (`headwater up`, a container) starts it again.
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

from headwater.process_life import leave_with_parent, show_metrics, stop_on_signal
from runtime.clock import follow
from runtime.logs import configure_logs
from runtime.metrics import GaugeName
from runtime.retry import retry_in_place
from runtime.settings import Settings
from runtime.stalls import Place
from runtime.watchdog import Watch, start_watchdog
from schemas.errors import SettingInvalid

PROCESSES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "http": ("collector", "api"),
        "streams": ("streams",),
        "subjects-to-redis": ("subjects-to-redis",),
        "accepted-to-clickhouse": ("accepted-to-clickhouse",),
        "reconciler": ("reconciler",),
        "erasure": ("erasure",),
        "automation": ("automation",),
    }
)
"""Process -> its roles, in the order in which they stop."""

ROLE_NAMES = tuple(role for roles in PROCESSES.values() for role in roles)
_TETHER = Path(__file__).parent.parent / "runtime" / "tether.py"

Ready = Callable[[], None]


def prepare_stores(settings: Settings) -> list[str]:
    """Topics and tables are there, fit, and keep what they hold as long as configured; what was
    made or changed now, one line each.

    Raises StoreUnavailable when a server does not answer, StoreRefused when what is there does not
    fit the settings.
    """
    from runtime.clickhouse import connect
    from runtime.topics_admin import align_topics, ensure_topics
    from sinks.migrations.apply import apply_migrations
    from sinks.migrations.limits import align_tables

    made = ensure_topics(settings)
    changed = align_topics(settings, made)
    client = connect(settings, database="")
    try:
        applied = apply_migrations(client, settings.clickhouse.database)
        changed += align_tables(client, settings.clickhouse.database, settings.tables)
    finally:
        client.close()
    return [
        *(f"topic {name}" for name in made),
        *(f"table change {name}" for name in applied),
        *(f"change of {line}" for line in changed),
    ]


def plan_processes(roles: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Process -> those of `roles` that run in it. Raises SettingInvalid for an unknown role."""
    for role in roles:
        if role not in ROLE_NAMES:
            raise SettingInvalid(f"{role} is not a role; there are {', '.join(ROLE_NAMES)}")
    shared = {name: tuple(r for r in known if r in roles) for name, known in PROCESSES.items()}
    return {name: wanted for name, wanted in shared.items() if wanted}


def run_process(
    name: str,
    roles: tuple[str, ...],
    settings: Settings,
    on_ready: Ready,
    *,
    metrics_file: Path | None = None,
    is_supervised: bool = False,
) -> None:
    """Do the work of one process until SIGTERM or Ctrl-C; returns, or leaves by SystemExit.

    Its numbers are shown on [metrics] port, or on a free one that is written to `metrics_file`.
    `is_supervised` ties its life to the process that started it. Raises SettingInvalid when the
    port is taken.
    """
    configure_logs(role=name, as_json=not sys.stderr.isatty())
    follow(settings.time.clock_file)
    if is_supervised:
        leave_with_parent()
    if name != "http":
        show_metrics(settings, metrics_file)
    # A process that died is replaced at once, not after its group has missed it.
    member = settings.kafka.instance_id or None
    watch_sink = _watchdog(settings, "headwater_sink_lag_records", lambda at: (name, str(at[1])))
    if name == "http":
        from headwater.http import serve

        serve(settings, roles, on_ready, _metrics_of_others(metrics_file))
    elif name == "streams":
        # Faust reads options of its own from the command line when it is imported.
        sys.argv = sys.argv[:1]
        from runtime.trial import admit_streams_worker
        from streams.app import group_of, run_streams

        group = group_of(settings.topic_names)
        settings = retry_in_place(
            lambda: admit_streams_worker(settings, group),
            what="asking the broker who it is",
            wait=time.sleep,
            stopped=lambda: False,
        )
        watch = _watchdog(settings, "headwater_lane_lag_records", lambda at: (at[0], str(at[1])))
        run_streams(settings, on_ready=on_ready, watch=watch)
    elif name == "subjects-to-redis":
        from sinks.subjects_to_redis import run_subjects_to_redis

        run_subjects_to_redis(
            settings, stop_on_signal(), member=member, on_ready=on_ready, watch=watch_sink
        )
    elif name == "accepted-to-clickhouse":
        from sinks.accepted_to_clickhouse import run_accepted_to_clickhouse

        run_accepted_to_clickhouse(
            settings, stop_on_signal(), member=member, on_ready=on_ready, watch=watch_sink
        )
    elif name == "erasure":
        from consumers.erasures.erasures_to_certificates import run_erasures
        from consumers.erasures.limits_in_time import keep_limits

        # Unwatched: ClickHouse may take minutes to rewrite parts, and an end would begin it anew.
        stop = stop_on_signal()
        await_end = keep_limits(settings, stop)
        run_erasures(settings, stop, member=member, on_ready=on_ready)
        stop.set()
        await_end()
    elif name == "automation":
        from headwater.automation import run_automation

        run_automation(settings, stop_on_signal(), member=member, on_ready=on_ready)
    else:
        from headwater.reconcile import reconcile
        from sinks.consents_to_ledger import start_ledger

        stop = stop_on_signal()
        start_ledger(settings, stop)
        reconcile(settings, stop, on_ready=on_ready)


def _metrics_of_others(ours: Path | None) -> dict[str, Path]:
    """Process -> where it says where its numbers are; only under a `headwater up`."""
    if ours is None:
        return {}
    return {name: ours.with_name(f"{name}.metrics") for name in PROCESSES if name != "http"}


def _watchdog(
    settings: Settings, lag_gauge: GaugeName, labels_of: Callable[[Place], tuple[str, ...]]
) -> Watch:
    return partial(
        start_watchdog,
        bootstrap_servers=settings.kafka.bootstrap_servers,
        limit_s=settings.time.stuck_after_s,
        lag_gauge=lag_gauge,
        labels_of=labels_of,
    )


def run_side_by_side(
    names: Sequence[str], arguments: Sequence[str], *, metrics_port: int = 0
) -> int:
    """Run several processes of roles as children; when one ends, end the others.

    `metrics_port` is that of the first one beside collector and API; the others take those after
    it. Answers the first exit code that is not 0. Restarting is the business of whoever started us.
    """
    plan = plan_processes(names)
    stopping = stop_on_signal()
    tether = [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), "SIGTERM"]
    ports = itertools.count(metrics_port)
    children = [
        subprocess.Popen(
            [*tether, sys.executable, "-m", "headwater", "run", *roles, *arguments],
            start_new_session=True,
            env={**os.environ, "HEADWATER_METRICS_PORT": str(next(ports))}
            if metrics_port and name != "http"
            else None,
        )
        for name, roles in plan.items()
    ]
    while not stopping.wait(0.1) and all(child.poll() is None for child in children):
        pass
    for child in children:
        child.terminate()
        child.wait()
    return next((1 for child in children if child.returncode not in (0, -signal.SIGTERM)), 0)
