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
    # Transactions a lane committed.
    "headwater_lane_commits_total",
    # Rows a sink wrote, by sink and table.
    "headwater_sink_rows_total",
    # Records that a sink had already seen by coordinate: expected to stay zero.
    "headwater_sink_tripwire_total",
    # HTTP answers, by route and status.
    "headwater_http_answers_total",
]
GaugeName = Literal[
    # Records between a sink's position and the end of the log, by sink and partition.
    "headwater_sink_lag_records",
    # Unix seconds of the last commit of a lane.
    "headwater_lane_committed_at_seconds",
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
    "headwater_lane_commits_total": ("lane",),
    "headwater_sink_rows_total": ("sink", "table"),
    "headwater_sink_tripwire_total": ("sink",),
    "headwater_http_answers_total": ("route", "status"),
    "headwater_sink_lag_records": ("sink", "partition"),
    "headwater_lane_committed_at_seconds": ("lane",),
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
