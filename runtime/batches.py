"""How does Faust carry whole batches instead of single events?

Stock Faust pays about 100 µs of asyncio for each event. Here one element of a stream is one fetched
batch of one partition; agents, lifecycle, group membership, rebalancing and supervision stay
Faust's (ADR 0001). The fetching side is runtime/lane_transport.py.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from runtime.crash import crash
from runtime.guarded_faust import Event, Topic, driver, faust
from runtime.lane_transport import LaneTransport, last_line
from runtime.lanes import OpenLane
from runtime.signs import rebuild_of, signs_of
from runtime.stalls import Place, Standing
from schemas.errors import StreamError

MOST_RECORDS_A_FETCH = 10_000
BATCHES_IN_A_STREAM = 8


class BatchTopic(Topic):
    """A topic whose stream elements are Batch."""

    async def decode(self, message: Any, *, propagate: bool = False) -> Any:
        return Event(self.app, None, message.value, None, message)


class BatchApp(faust.App):
    """A Faust app whose agents get batches and whose partitions are lanes."""

    def __init__(
        self,
        app_id: str,
        *,
        bootstrap_servers: str,
        input_topics: tuple[str, ...],
        partitions: int,
        open_lane: OpenLane,
        on_lanes_open: Callable[[list[int]], None],
        instance_id: str,
        data_dir: str,
    ) -> None:
        self.input_topics = input_topics
        self.partitions = partitions
        self.open_lane = open_lane
        self.on_lanes_open = on_lanes_open
        super().__init__(
            app_id,
            broker=[f"kafka://{server}" for server in bootstrap_servers.split(",")],
            autodiscover=False,
            store="memory://",
            web_enabled=False,  # it would serve state on 0.0.0.0 without asking who is there
            datadir=data_dir,
            topic_disable_leader=True,
            worker_redirect_stdouts=False,
            consumer_group_instance_id=instance_id or None,
            consumer_max_fetch_size=8 * 1_048_576,
            broker_session_timeout=10.0,
            broker_heartbeat_interval=1.0,
            broker_rebalance_timeout=20.0,
            broker_commit_interval=1.0,
            broker_max_poll_records=MOST_RECORDS_A_FETCH,
        )
        self.on_rebalance_complete.connect(self._on_rebalance_complete)

    def _new_transport(self) -> Any:
        return LaneTransport(self.conf.broker_consumer, self)

    def batch_topic(self, name: str) -> BatchTopic:
        """The topic `name`, in batches of raw records."""
        return BatchTopic(
            self,
            topics=[name],
            maxsize=BATCHES_IN_A_STREAM,
            key_serializer="raw",
            value_serializer="raw",
        )

    async def _on_rebalance_complete(self, *_sender: Any, **_options: Any) -> None:
        try:
            await self.consumer.open_lanes()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            crash("lanes cannot open", error=type(error).__name__, detail=_first_words(error))

    def standings(self) -> dict[Place, Standing]:
        """Where each input of our lanes stands, for the watchdog's thread.

        What is committed counts, not what is applied: a commit that hangs is no progress.
        """
        consumer = self._consumer  # the property would make one
        if consumer is None or self.should_stop:
            return {}
        try:
            assigned = consumer.assignment()
        except driver.ConsumerNotStarted:
            return {}
        lanes, epoch = consumer.lanes, consumer.epoch
        found = {}
        for topic, p in assigned:
            if topic in self.input_topics:
                position = lanes[p].committed_offsets.get(topic) if p in lanes else None
                found[topic, p] = Standing(position, (epoch, signs_of(rebuild_of(p))))
        return found

    async def crash(self, reason: BaseException) -> None:
        """Faust's last resort is ours: end the process."""
        crash("Faust crashed", error=type(reason).__name__, where=last_line(reason))

    async def route(self, batch: Any) -> None:
        """Hand a batch to its lane; one of an older assignment is dropped, its owner reads it."""
        consumer = self.consumer
        lane = consumer.lanes.get(batch.partition)
        if lane is not None and batch.epoch == consumer.epoch:
            await lane.put(batch)


def run_until_stopped(app: BatchApp) -> None:
    """Work until SIGTERM or SIGINT, then stop the app and leave by SystemExit."""
    worker = faust.Worker(
        app, loglevel=logging.WARNING, quiet=True, redirect_stdouts=False, override_logging=False
    )
    worker.spinner = None  # it draws on the terminal even when quiet
    worker.execute_from_commandline()


def _first_words(error: BaseException) -> str:
    """What our own faults say (they hold no personal value); nothing of other exceptions."""
    return str(error) if isinstance(error, StreamError) else last_line(error)
