"""How do lanes live inside Faust's consumer: fenced, rebuilt, sought, fetched for?

Positions are the lanes', never the group's. Each assignment fences and rebuilds its lanes, then
every input is sought to its lane's cursor, and only then does anything flow. Each batch carries
[from, to), which must join the one before without a gap. Everything is done by subclassing
(ADR 0001); tests/contracts/test_faust_names.py fails when a private name that we use moves.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Protocol

from runtime.crash import crash
from runtime.guarded_faust import (
    TP,
    ConsumerMessage,
    KafkaError,
    RangePartitionAssignor,
    driver,
)
from runtime.lanes import Batch, LaneLike, OpenLane
from runtime.plain_records import PlainConsumer
from runtime.transactions import fault_name
from schemas.errors import StoreRefused

SEEK_WITHIN_S = 20.0  # below broker_request_timeout, which would look like a finished recovery


class LaneOwner(Protocol):
    """What the consumer needs of the app, beside what Faust's own consumer needs."""

    input_topics: tuple[str, ...]
    partitions: int
    open_lane: OpenLane
    on_lanes_open: Callable[[list[int]], None]
    flow_control: Any
    should_stop: bool
    rebalancing: bool
    consumer_generation_id: int


class _Fetched(list[Any]):
    """Records of one partition with the fetch positions around them, and if the log has more."""

    __slots__ = ("from_offset", "is_behind", "to_offset")

    def __init__(
        self, records: Iterable[Any], from_offset: int, to_offset: int, is_behind: bool
    ) -> None:
        super().__init__(records)
        self.from_offset = from_offset
        self.to_offset = to_offset
        self.is_behind = is_behind


class LaneThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, reading committed records only and telling fetch positions."""

    consumer: "LaneConsumer"
    _sought: tuple[Any, Mapping[Any, int]] = (None, {})

    def _create_worker_consumer(self, transport: Any) -> Any:
        conf = self.app.conf
        # Range keeps partition p of all inputs together; round robin can split a lane.
        self._assignor = RangePartitionAssignor
        return PlainConsumer(
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            bootstrap_servers=driver.server_list(transport.url, transport.default_port),
            partition_assignment_strategy=[RangePartitionAssignor],
            enable_auto_commit=False,
            auto_offset_reset="none",  # 'earliest' would hide a log that was cut off
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=300_000,
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_wait_ms=100,
            check_crcs=False,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            isolation_level="read_committed",  # stock Faust hard-codes read_uncommitted
        )

    async def _seek_wait(self, consumer: Any, partitions: Mapping[Any, int]) -> None:
        await super()._seek_wait(consumer, partitions)
        self._sought = (_assignment(consumer), dict(partitions))

    async def _fetch_records(
        self,
        consumer: Any,
        active_partitions: Any,
        timeout: float | None = None,  # noqa: ASYNC109  Faust's signature
        max_records: int | None = None,
    ) -> Mapping[Any, _Fetched]:
        """As Faust's, with the positions before and after; control-only fetches are not lost."""
        if not self.consumer.flow_active:
            return {}
        held = _assignment(consumer)
        before = _positions(held)
        try:
            fetched = await super()._fetch_records(
                consumer, active_partitions, timeout, max_records
            )
        except KafkaError:
            if not self.consumer.is_sought:
                return {}  # reset 'none' complains once, before the lanes' positions are sought
            raise
        if _assignment(consumer) is not held:
            # The call outlived its assignment and took records of the next one: put them back.
            if self._sought[0] is _assignment(consumer):
                for tp in fetched:
                    consumer.seek(tp, self._sought[1][tp])
            return {}
        spans = dict(fetched)
        after = _positions(held)
        for tp, from_offset in before.items():
            if tp not in spans and after.get(tp, from_offset) != from_offset:
                spans[tp] = ()
        return {
            tp: _Fetched(records, before[tp], after[tp], _is_behind(held.state_value(tp)))
            for tp, records in spans.items()
            if tp in before and tp in after
        }


def _assignment(consumer: Any) -> Any:
    subscription = consumer._subscription.subscription
    return subscription and subscription.assignment


def _positions(assignment: Any) -> dict[Any, int]:
    if not assignment:
        return {}
    states = {tp: assignment.state_value(tp) for tp in assignment.tps}
    return {tp: state.position for tp, state in states.items() if state.has_valid_position}


def _is_behind(state: Any) -> bool:
    """True if the broker had more committed records, in its last answer, than were taken yet."""
    return state.lso is not None and state.position < state.lso


class LaneConsumer(driver.Consumer):
    """Faust's consumer, owning lanes instead of acknowledging messages."""

    app: "LaneOwner"

    def __init__(self, *args: Any, **options: Any) -> None:
        self.lanes: dict[int, LaneLike] = {}
        self.epoch = 0  # of our own: raised by every revocation and assignment
        self._sought_epoch = -1
        super().__init__(*args, **options)

    @property
    def is_sought(self) -> bool:
        """True once every input of this assignment stands where its lane left off."""
        return self._sought_epoch == self.epoch

    def _new_consumer_thread(self) -> Any:
        return LaneThread(self, loop=self.loop, beacon=self.beacon)

    # -- assignment: fence, rebuild, seek, then flow

    async def on_partitions_revoked(self, revoked: Any) -> None:
        await super().on_partitions_revoked(revoked)  # stops the flow and drains the streams
        await self._close_lanes()

    async def on_partitions_assigned(self, assigned: Any, generation_id: int = 0) -> None:
        # Short: aiokafka sends no heartbeat until this returns. A worker that held nothing before
        # never stopped its flow, so it is stopped here.
        self.epoch += 1
        self.stop_flow()
        self.app.flow_control.suspend()
        inputs = set(self.app.input_topics)
        for p in {tp.partition for tp in assigned if tp.topic in inputs}:
            if {tp.topic for tp in assigned if tp.partition == p and tp.topic in inputs} != inputs:
                crash("a lane is split over workers", lane=p)
        await super().on_partitions_assigned(assigned, generation_id)

    async def open_lanes(self) -> None:
        """Every assigned lane is fenced, rebuilt and knows its positions.

        Called before Faust seeks and resumes, which waits for it without a limit while heartbeats
        go on.
        """
        epoch = self.epoch
        tps = {tp for tp in self.assignment() if tp.topic in self.app.input_topics}
        if self.lanes or not tps:
            return
        self._check_partition_counts()
        lanes = {p: self.app.open_lane(p) for p in sorted({tp.partition for tp in tps})}
        await asyncio.gather(*(asyncio.to_thread(lane.open) for lane in lanes.values()))
        first, end = await self.earliest_offsets(*tps), await self.highwaters(*tps)
        if epoch != self.epoch:
            return  # rebalanced meanwhile: the next round fences and opens its own
        for tp in tps:
            lanes[tp.partition].start_at(tp.topic, first[tp], end[tp])
        gc.collect()
        gc.freeze()  # what was rebuilt stays: keep the collector from walking it again and again
        self.lanes = lanes
        for lane in lanes.values():
            self.add_future(self._guarded(lane))
        self.app.on_lanes_open(sorted(lanes))

    def _check_partition_counts(self) -> None:
        # With another count every key would seem misplaced, and every event be set aside.
        for topic in self.app.input_topics:
            found = self.topic_partitions(topic)
            if found not in (None, self.app.partitions):
                raise StoreRefused(
                    f"{topic} has {found} partitions, [kafka] partitions says "
                    f"{self.app.partitions}; set it to {found}, or begin a new generation"
                )

    async def _guarded(self, lane: LaneLike) -> None:
        try:
            await lane.run()
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            crash("a lane failed", error=fault_name(error), where=last_line(error))

    async def _close_lanes(self) -> None:
        self.epoch += 1
        lanes, self.lanes = self.lanes, {}
        await asyncio.gather(*(lane.close() for lane in lanes.values()))

    async def perform_seek(self) -> None:
        """The one seek Faust does before the flow resumes: to the cursors, not to group offsets."""
        epoch = self.epoch
        wanted = {
            TP(topic, p): offset
            for p, lane in self.lanes.items()
            for topic, offset in lane.next_offsets.items()
        }
        if not wanted:
            return
        try:
            await asyncio.wait_for(self.seek_wait(wanted), SEEK_WITHIN_S)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if epoch == self.epoch:
                crash("cannot seek to the cursors", error=type(error).__name__)
            return
        if epoch == self.epoch:
            self._sought_epoch = epoch

    # -- fetching

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                await self._deliver_one_fetch()
        except (asyncio.CancelledError, *self.consumer_stopped_errors):
            if self.app.should_stop or fetcher._stopped.is_set():
                return
            raise
        except BaseException as error:
            crash("fetching failed", error=type(error).__name__, where=last_line(error))

    async def _deliver_one_fetch(self) -> None:
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        epoch = self.epoch  # after the wait, else the first fetch of an assignment is dropped
        fetched, _active = await self._wait_next_records(1.0)
        await asyncio.sleep(0)
        if not fetched or self.should_stop:
            return
        for aiokafka_tp, records in fetched.items():
            if not (self.flow_active and epoch == self.epoch == self._sought_epoch):
                return
            topic, p = aiokafka_tp.topic, aiokafka_tp.partition
            batch = Batch(
                topic, p, records, records.from_offset, records.to_offset, epoch, records.is_behind
            )
            message = ConsumerMessage(
                topic, p, batch.to_offset - 1, time.time(), 0, None, None, batch, None, 0,
                len(records), TP(topic, p), generation_id=self.app.consumer_generation_id,
            )  # fmt: skip
            await self.wait_first(self.callback(message), self.suspend_flow.wait())

    # -- group offsets: for lag tools only, always behind the transactions

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> list[Any]:
        return [TP(topic, p) for p, lane in self.lanes.items() for topic in lane.committed_offsets]

    def _new_offset(self, tp: Any) -> int | None:
        lane = self.lanes.get(tp.partition)
        return None if lane is None else lane.committed_offsets.get(tp.topic)

    async def _commit(self, offsets: Any) -> bool:
        return False if self.app.rebalancing else bool(await super()._commit(offsets))

    def ack(self, message: Any) -> bool:
        message.acked = True
        self._unacked_messages.discard(message)
        return True

    async def on_stop(self) -> None:
        self.stop_flow()
        await self._close_lanes()
        await super().on_stop()


def last_line(error: BaseException) -> str:
    """File and line where `error` was raised: never its text, which may hold a person's value."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return "" if at is None else f"{at.tb_frame.f_code.co_filename}:{at.tb_lineno}"


class LaneTransport(driver.Transport):
    Consumer: ClassVar[type] = LaneConsumer
