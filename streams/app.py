"""Which agents does a worker run, and on which topics?

In flow order. Each agent hands the batches of one topic to their lanes; what a batch does there is
the function beside its topic.
"""

import gc
import tempfile
from collections.abc import AsyncIterable, Callable, Mapping

from runtime.batches import BatchApp, run_until_stopped
from runtime.clock import ClockMs, now_ms
from runtime.lanes import Batch
from runtime.logs import get_logger
from runtime.settings import Journey as JourneySettings
from runtime.settings import Settings
from runtime.watchdog import Watch, nobody_watches
from schemas.topics import DAY_MS, Topics
from streams.collected_to_accepted import apply_collected
from streams.consents_to_subjects import apply_consents
from streams.definitions_to_members import apply_definitions
from streams.erasures_to_tombstones import apply_erasures
from streams.lane import Apply, Lane, LaneSettings
from streams.moves_to_subjects import apply_moves
from streams.rules.admit import Rules
from streams.rules.gate import gate_from_bases
from streams.rules.journeys import Journey

HOUR_MS = 3_600_000
MINUTE_MS = 60_000


def arrows(topics: Topics) -> Mapping[str, Apply]:
    """Input topic -> what its records do."""
    return {
        topics.collected: apply_collected,
        topics.consents: apply_consents,
        topics.erasures: apply_erasures,
        topics.segments_defined: apply_definitions,
        topics.moves: apply_moves,
    }


def group_of(topics: Topics) -> str:
    """The consumer group of all workers."""
    return f"{topics.prefix}headwater.streams"


def lane_settings(settings: Settings, clock_ms: ClockMs) -> LaneSettings:
    """What lanes need of the configuration."""
    bases = {name: purpose.basis for name, purpose in settings.purposes.items()}
    gate = gate_from_bases(dict[str, str](bases), settings.time.late_grant_minutes * MINUTE_MS)
    return LaneSettings(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        topics=settings.topic_names,
        partitions=settings.kafka.partitions,
        generation=settings.kafka.generation,
        barrier_s=settings.kafka.barrier_ms / 1000,
        deduplication_ms=settings.time.deduplication_hours * HOUR_MS,
        rules=Rules(
            gate,
            settings.time.visit_gap_minutes * MINUTE_MS,
            settings.time.history_days * DAY_MS,
            tuple(map(_journey, settings.journeys)),
            attribution_ms=settings.attribution.window_days * DAY_MS,
        ),
        is_trial=settings.kafka.is_trial,
        clock_ms=clock_ms,
        bases=bases,
        measures=settings.measures,
    )


def _journey(chosen: JourneySettings) -> Journey:
    return Journey(
        chosen.id,
        chosen.wait_minutes * MINUTE_MS,
        tuple(hours * HOUR_MS for hours in chosen.follow_ups_hours),
        chosen.most_messages,
        chosen.cool_down_days * DAY_MS,
        chosen.expires_days * DAY_MS,
        chosen.hold_out_percent,
        chosen.in_segment,
        chosen.not_in_segment,
        chosen.channel,
        chosen.topic,
        chosen.template,
        chosen.campaign_id or chosen.id,
    )


def build_app(
    settings: Settings, *, on_ready: Callable[[], None], data_dir: str, clock_ms: ClockMs = now_ms
) -> BatchApp:
    """A Faust app with one agent a topic; `on_ready` is called each time its lanes are open."""
    topics = settings.topic_names
    apply_by_topic = arrows(topics)
    shared = lane_settings(settings, clock_ms)

    def lanes_open(lanes: list[int]) -> None:
        get_logger().info("lanes open", lanes=lanes)
        on_ready()

    app = BatchApp(
        group_of(topics),
        bootstrap_servers=settings.kafka.bootstrap_servers,
        input_topics=tuple(apply_by_topic),
        partitions=settings.kafka.partitions,
        open_lane=lambda p: Lane(p, shared, apply_by_topic),
        on_lanes_open=lanes_open,
        instance_id=settings.kafka.instance_id,
        data_dir=data_dir,
    )
    for name in apply_by_topic:
        app.agent(app.batch_topic(name), name=f"from {name}")(_routing_agent(app))
    return app


def _routing_agent(app: BatchApp) -> Callable[[AsyncIterable[Batch]], object]:
    async def route_batches(stream: AsyncIterable[Batch]) -> None:
        async for batch in stream:
            await app.route(batch)

    return route_batches


def run_streams(
    settings: Settings, *, on_ready: Callable[[], None], watch: Watch = nobody_watches
) -> None:
    """Work until SIGTERM or SIGINT; then commit what is applied and leave by SystemExit.

    Ends the process with exit code 70 on any doubt (runtime/crash.py). `watch` is given what tells
    where the lanes stand.
    """
    # Young garbage only, and rarely: +12-43% together with large fetches (ADR 0001).
    gc.set_threshold(100_000, 20, 100)
    with tempfile.TemporaryDirectory(prefix="headwater-faust-") as data_dir:
        app = build_app(settings, on_ready=on_ready, data_dir=data_dir)
        watch(app.standings)
        run_until_stopped(app)
