"""Which numbers do the roles show, in what unit, meaning what?

One typed list; a name that is not in it cannot be counted. Names and labels follow Prometheus's
conventions. No label ever holds a value of a person.
"""

from typing import Literal, TypeVar

from prometheus_client import Counter, Gauge, Histogram

CounterName = Literal[
    # Calls that the collector took, by source and outcome (accepted, rejected).
    "headwater_collected_calls_total",
    # Events a lane applied, by outcome (accepted, duplicate, withheld, rejected, erased).
    "headwater_applied_events_total",
    # Claims of calls that were news, by type of call.
    "headwater_claims_total",
    # Consent decisions that were put on record, by how they came (said, listed, stated, stamped).
    "headwater_consents_recorded_total",
    # Decisions not recorded: a yes of somebody too young to give it alone, by how they came.
    "headwater_consents_without_guardian_total",
    # Sends that were asked for, by answer (allowed, or the rule that forbids it).
    "headwater_sends_asked_total",
    # Decisions over messages, by journey or segment and what they led to (sent, held, dropped ...).
    "headwater_messages_total",
    # Messages that do not go, by the rule that forbids it.
    "headwater_messages_suppressed_total",
    # Events withheld, by purpose ('erased' of an erased person) and reason (unknown, refused).
    "headwater_withheld_events_total",
    # Withheld events that a late grant allows, by outcome (released, rejected; lost: not on the log
    # any more).
    "headwater_parked_events_total",
    # Messages that came due, by journey; those of people who are held out too.
    "headwater_journeys_due_total",
    # Transactions a lane committed.
    "headwater_lane_commits_total",
    # Rows a sink wrote, by sink and table.
    "headwater_sink_rows_total",
    # Records that a sink had already seen by coordinate: expected to stay zero.
    "headwater_sink_tripwire_total",
    # Accepted events that a sink took back, because a withdrawal came later.
    "headwater_sink_retracted_events_total",
    # Accepted events that a sink counted in another campaign than before.
    "headwater_sink_moved_events_total",
    # HTTP answers, by route and status.
    "headwater_http_answers_total",
    # Erasures that got so far, by status (provisional, final).
    "headwater_erasures_total",
]
GaugeName = Literal[
    # Offsets between a sink's position and the end of committed records, by sink and partition.
    "headwater_sink_lag_records",
    # The same of a lane's committed position, by input topic and lane.
    "headwater_lane_lag_records",
    # Seconds in which a partition lagged without progress, by topic and partition: ends the process
    # at [time] stuck_after_s.
    "headwater_stuck_seconds",
    # Seconds for which a role has been waiting for a store that is away, by what it wants to do.
    "headwater_waiting_for_store_seconds",
    # Unix seconds of the last commit of a lane.
    "headwater_lane_committed_at_seconds",
    # Live numbers that are not what the facts say, at the reconciler's last look.
    "headwater_verify_differences",
    # Unix seconds of the reconciler's last look, and of the last that found no difference.
    "headwater_verify_checked_at_seconds",
    "headwater_verify_verified_at_seconds",
    # Seconds that the reconciler's last look took.
    "headwater_verify_look_seconds",
    # Erasures that the role looks at in this round.
    "headwater_erasures_due",
    # Seconds by which the message that has waited longest is overdue.
    "headwater_messages_overdue_seconds",
    # 1 if a process answers with its metrics, by process; only under `headwater up`.
    "headwater_process_answers",
]
HistogramName = Literal[
    # Seconds a lane's transaction took to commit.
    "headwater_lane_commit_seconds",
    # Seconds from a request's arrival to its answer, by route.
    "headwater_http_answer_seconds",
    # Seconds a sink's batch took to be durable, by sink.
    "headwater_sink_batch_seconds",
]

_LABELS: dict[str, tuple[str, ...]] = {
    "headwater_collected_calls_total": ("source", "outcome"),
    "headwater_applied_events_total": ("outcome",),
    "headwater_claims_total": ("cause",),
    "headwater_consents_recorded_total": ("way",),
    "headwater_consents_without_guardian_total": ("way",),
    "headwater_sends_asked_total": ("answer",),
    "headwater_messages_total": ("journey", "outcome"),
    "headwater_messages_suppressed_total": ("reason",),
    "headwater_withheld_events_total": ("purpose", "reason"),
    "headwater_parked_events_total": ("outcome",),
    "headwater_journeys_due_total": ("journey",),
    "headwater_lane_commits_total": ("lane",),
    "headwater_sink_rows_total": ("sink", "table"),
    "headwater_sink_tripwire_total": ("sink",),
    "headwater_sink_retracted_events_total": (),
    "headwater_sink_moved_events_total": (),
    "headwater_http_answers_total": ("route", "status"),
    "headwater_erasures_total": ("status",),
    "headwater_erasures_due": (),
    "headwater_sink_lag_records": ("sink", "partition"),
    "headwater_lane_lag_records": ("topic", "lane"),
    "headwater_stuck_seconds": ("topic", "partition"),
    "headwater_waiting_for_store_seconds": ("doing",),
    "headwater_lane_committed_at_seconds": ("lane",),
    "headwater_verify_differences": (),
    "headwater_verify_checked_at_seconds": (),
    "headwater_verify_verified_at_seconds": (),
    "headwater_verify_look_seconds": (),
    "headwater_messages_overdue_seconds": (),
    "headwater_process_answers": ("process",),
    "headwater_lane_commit_seconds": (),
    "headwater_http_answer_seconds": ("route",),
    "headwater_sink_batch_seconds": ("sink",),
}
M = TypeVar("M", Counter, Gauge, Histogram)
_made: dict[str, Counter | Gauge | Histogram] = {}


def counter(name: CounterName) -> Counter:
    """The counter of that name; the same one at every call."""
    return _the(Counter, name)


def gauge(name: GaugeName) -> Gauge:
    """The gauge of that name; the same one at every call."""
    return _the(Gauge, name)


def histogram(name: HistogramName) -> Histogram:
    """The histogram of that name; the same one at every call."""
    return _the(Histogram, name)


def _the(kind: type[M], name: str) -> M:
    if name not in _made:
        _made[name] = kind(name, name.replace("_", " "), _LABELS[name])
    found = _made[name]
    assert isinstance(found, kind)
    return found
