"""Do real lanes find those messages due that somebody who knows the truth finds?

Lanes on a Kafka in memory, with a clock that jumps from one moment at which something happens to the
next: a month of a shop takes seconds. Everything that a moment's arrivals cause is applied, committed
and settled before the next one; meanwhile lanes die at commits, before, after and in doubt of them,
and are opened again from what was committed.
"""

import asyncio
import heapq
import random
from collections import Counter
from collections.abc import Iterable
from typing import Any, NoReturn, Protocol

import msgspec

from runtime.lanes import Batch
from schemas.codec import CLAIMED, COLLECTED, CONSENT_CHANGED, ERASURE_REQUESTED, JOURNEY_DUE
from schemas.identity import RANK
from schemas.journeys import JourneyDue
from schemas.moves import Claimed
from schemas.partitioning import partition_of
from schemas.requests import ConsentChanged, ErasureRequested
from streams.app import arrows
from streams.lane import Lane, LaneSettings
from streams.rules.admit import Rules
from streams.rules.gate import Gate
from streams.rules.journeys import Journey
from tests.lane_log import TOPICS, Fetched
from tests.model.cart_story import (
    ARRIVE_MS,
    DAY_MS,
    DECISIONS,
    EXPIRES_MS,
    MOST,
    NEXT_MS,
    REST_MS,
    WAIT_MS,
    Fact,
    Story,
    look_after,
)
from tests.model.memory_kafka import Died, MemoryKafka
from tests.model.shop_sending import zone_name_of
from tests.model.virtual_loop import Call, VirtualLoop
from tests.stream_log import GAP_MS, make_event

BARRIER_S = 0.1
PARTITIONS = 2
MOST_ROUNDS = 20_000
LANES_ARE_BEHIND = 0.3
COMMIT_FATES = ("dies early", "dies sending", "dies late", "unanswered", "answer lost")
JOURNEY = Journey(
    "cart", WAIT_MS, (NEXT_MS,), MOST, REST_MS, EXPIRES_MS, 0.0, topic="cart", template="cart"
)
EVENTS = {"add": "Product Added", "remove": "Product Removed", "list": "Cart Viewed",
          "order": "Order Completed"}  # fmt: skip


class Automation(Protocol):
    """Whoever sends what comes due, by the shop's clock (UTC ms)."""

    def decided(self, pid: bytes, fact: Fact, now_ms: int) -> None:
        """Somebody withdrew, allowed or was erased."""

    def next_ms(self) -> int | None:
        """When there is work again; None until something comes due."""

    def work(self, now_ms: int) -> None:
        """Everything is done that is due by then."""


class ShopWorld:
    """One shop. `slot_start_ms` of its first slot is a multiple of a slot."""

    def __init__(
        self,
        seed: int,
        loop: VirtualLoop,
        kafka: MemoryKafka,
        crashes: float = 0.01,
        automation: Automation | None = None,
    ) -> None:
        self._automation = automation
        self.chance = random.Random(seed)
        self.kafka = kafka
        self.crashes = crashes
        self.now_ms = 0
        self.met: Counter[str] = Counter()
        self._lanes: dict[int, Lane] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._puts: dict[int, asyncio.Task[None]] = {}
        self._read_to: dict[tuple[str, int], int] = {}
        self._calls: list[Call] = []
        self._loop = loop
        loop.clock = kafka.clock
        loop.handed_over = lambda call, _task: self._calls.append(call)
        kafka.fate = self._fate
        kafka.take = lambda most: 1 + int(self.chance.random() * most)

    def crash(self, why: str, **_where: object) -> NoReturn:
        """Stands for runtime.crash.crash."""
        self.met[why.split(":")[0]] += 1
        raise Died(why)

    def _fate(self, call: str) -> str:
        if call == "poll":
            return "sends" if self.chance.random() < 0.5 else ""
        if call == "commit" and self.chance.random() < self.crashes:
            fate = self.chance.choice(COMMIT_FATES)
            self.met[fate] += 1
            return fate
        return ""

    async def run(self, stories: Iterable[Story], until_ms: int) -> None:
        """Everything that arrives by `until_ms` has had its effect, and so has time."""
        arriving = [
            (at_ms, number, story.pid, fact)
            for number, (story, fact) in enumerate((s, f) for s in stories for f in s.facts)
            for at_ms in (fact.arrives_at_ms, *fact.copies_at_ms)
        ]
        self.chance.shuffle(arriving)
        arriving.sort(key=lambda each: each[0])
        arrivals = [(each[0], at) for at, each in enumerate(arriving)]
        heapq.heapify(arrivals)
        self.now_ms = arriving[0][0] - ARRIVE_MS
        for p in range(PARTITIONS):
            self._open(p)
        while True:
            moments = [lane.wakes.next_ms() for lane in self._lanes.values()]
            moment = min(
                (look_after(at_ms) for at_ms in moments if at_ms is not None), default=None
            )
            if arrivals and (moment is None or arrivals[0][0] <= moment):
                moment = arrivals[0][0]
            automation = self._automation
            work_ms = automation.next_ms() if automation is not None else None
            if work_ms is not None and work_ms < min(moment or work_ms + 1, until_ms + 1):
                assert automation is not None
                self.now_ms = max(self.now_ms, work_ms)
                automation.work(self.now_ms)
                continue
            if moment is None or moment > until_ms:
                break
            self.now_ms = max(self.now_ms, moment)
            while arrivals and arrivals[0][0] <= self.now_ms:
                _, at = heapq.heappop(arrivals)
                self._arrive(arriving[at][2], arriving[at][3])
            if automation is not None and self.chance.random() < LANES_ARE_BEHIND:
                self._work_before_lanes(automation, arrivals[0][0] if arrivals else until_ms)
            await self._settle()
            if automation is not None:
                self.kafka.settle()  # what was committed can be read
                automation.work(self.now_ms)
        for task in (*self._tasks.values(), *self._puts.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), *self._puts.values(), return_exceptions=True)

    def _work_before_lanes(self, automation: Automation, before_ms: int) -> None:
        """Lanes were away with what has just come, until automation has looked at what waits."""
        work_ms = automation.next_ms()
        if work_ms is not None and work_ms < before_ms:
            self.met["worked before lanes"] += 1
            automation.work(max(self.now_ms, work_ms))

    def _arrive(self, pid: bytes, fact: Fact) -> None:
        p = partition_of(pid, PARTITIONS)
        if self._automation is not None and fact.kind in DECISIONS:
            self._automation.decided(pid, fact, self.now_ms)
        if fact.kind == "erase":
            request = ErasureRequested(fact.event_id, pid, self.now_ms, "withdrawn")
            self._put(TOPICS.erasures, p, pid, ERASURE_REQUESTED.encode(request))
        elif fact.kind == "claim":
            claimant = bytes.fromhex(fact.products[0])
            claimed = Claimed(
                pid, claimant, RANK["user"], fact.occurred_at_ms, fact.event_id, "identify",
                self.now_ms,
            )  # fmt: skip
            self._put(TOPICS.moves, p, pid, CLAIMED.encode(claimed))
        elif fact.kind in ("withdraw", "grant"):
            status = "granted" if fact.kind == "grant" else "withdrawn"
            change = ConsentChanged(
                fact.event_id, pid, "personalisation", None, None, "consent", status,
                fact.arrives_at_ms, None, fact.arrives_at_ms, "form",
            )  # fmt: skip
            self._put(TOPICS.consents, p, pid, CONSENT_CHANGED.encode(change))
            # An order must be seen to end a journey: without analytics none is.
            other = msgspec.structs.replace(change, purpose="analytics")
            self._put(TOPICS.consents, p, pid, CONSENT_CHANGED.encode(other))
        elif fact.kind not in ("subscribe", "unsubscribe"):  # which lanes need not know
            properties: dict[str, Any] = {"product_id": fact.products[0]} if fact.products else {}
            if fact.kind == "list":
                properties = {"products": [{"product_id": each} for each in fact.products]}
            elif fact.kind != "order":
                properties["quantity"] = 1
            event = make_event(
                event_id=fact.event_id,
                pid=pid,
                event=EVENTS[fact.kind],
                occurred_at_ms=fact.occurred_at_ms,
                received_at_ms=self.now_ms,
                clear={"properties": properties, "context": {"timezone": zone_name_of(pid)}},
            )
            self._put(TOPICS.collected, p, pid, COLLECTED.encode(event))

    def _put(self, topic: str, p: int, key: bytes, value: bytes) -> None:
        self.kafka.logs[topic, p].append((key, value))

    # -- lanes

    def _open(self, p: int) -> None:
        settings = LaneSettings(
            bootstrap_servers="",
            topics=TOPICS,
            partitions=PARTITIONS,
            generation=1,
            barrier_s=BARRIER_S,
            deduplication_ms=40 * DAY_MS,
            rules=Rules(Gate(counts=True, profiles=True), GAP_MS, 60 * DAY_MS, journeys=(JOURNEY,)),
            is_trial=False,
            clock_ms=lambda: self.now_ms,
        )
        lane = Lane(p, settings, arrows(TOPICS))
        lane.open()
        for topic in TOPICS.inputs:
            log = self.kafka.logs[topic, p]
            lane.start_at(topic, log.first, len(log.entries))
        self._lanes[p] = lane
        self._read_to |= {(topic, p): lane.next_offsets[topic] for topic in TOPICS.inputs}
        self._puts.pop(p, None)
        self._tasks[p] = self._loop.create_task(lane.run())

    async def _settle(self) -> None:
        """All that is on the log is applied and committed, and whoever is due now was settled."""
        for _ in range(MOST_ROUNDS):
            for p in range(PARTITIONS):
                if self._tasks[p].done():
                    error = self._tasks[p].exception()
                    if not isinstance(error, Died):
                        raise RuntimeError("a lane ended") from error
                    self.kafka.settle()
                    self.met["lanes opened again"] += 1
                    self._open(p)
                self._feed(p)
            self.kafka.settle()
            self.kafka.clock.now_s += 0.001  # a loop whose time stands may turn for ever
            while self._calls:
                try:
                    self._calls.pop(0).run()
                except Died:
                    continue
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            if self._calls or not self._loop.is_idle():
                continue  # a commit may have been handed over meanwhile
            if all(self._is_settled(p) for p in range(PARTITIONS)):
                return
            await asyncio.sleep(BARRIER_S)
        raise RuntimeError("a lane does not come to rest")

    def _is_settled(self, p: int) -> bool:
        lane = self._lanes[p]
        ends = {topic: len(self.kafka.logs[topic, p].entries) for topic in TOPICS.inputs}
        at_ms = lane.wakes.next_ms()
        return (
            lane.next_offsets == ends
            and not lane.is_touched
            and not self._tasks[p].done()
            and not (lane.known.wanted or lane.known.is_waiting)
            and (at_ms is None or at_ms > self.now_ms)
        )

    def _feed(self, p: int) -> None:
        put = self._puts.get(p)
        if put is not None and not put.done():
            return
        topics = [t for t in TOPICS.inputs if self._read_to[t, p] < self._end(t, p)]
        if not topics:
            return
        topic = self.chance.choice(topics)
        begin, log = self._read_to[topic, p], self.kafka.logs[topic, p]
        to = min(self._end(topic, p), begin + self.chance.randint(1, 400))
        records = [
            Fetched(key, value, at)  # type: ignore[arg-type]
            for at, key, value in log.read(begin, to, is_committed=True)
        ]
        self._read_to[topic, p] = to
        batch = Batch(topic, p, records, begin, to, 1)
        self._puts[p] = self._loop.create_task(self._lanes[p].put(batch))

    def _end(self, topic: str, p: int) -> int:
        return self.kafka.logs[topic, p].stable_end()

    # -- what came of it

    def due(self) -> list[JourneyDue]:
        """Every committed record of journeys.due, in the order of each partition."""
        found = []
        for p in range(PARTITIONS):
            log = self.kafka.logs[TOPICS.journeys, p]
            for _, _, value in log.read(0, log.stable_end(), is_committed=True):
                found.append(JOURNEY_DUE.decode(value))
        return found
