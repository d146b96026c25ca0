"""What reaches the lanes' inputs, and what must have become of it?

Arrivals of every kind, by chance: new calls, calls sent again within and after the deduplication
window, another call under a used message id, orders told twice, records that are none or lie in the
wrong partition, consents, erasures, offsets without a record. `recount` says what the lanes should
have made of them, in a few lines that know nothing of the product's rules.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

import msgspec

from schemas.codec import CLAIMED, COLLECTED, CONSENT_CHANGED, ERASURE_REQUESTED
from schemas.events import Accepted, Collected
from schemas.moves import Claimed
from schemas.partitioning import partition_of
from schemas.requests import ConsentChanged, ErasureRequested
from schemas.subjects import PID_BYTES
from tests.lane_log import TOPICS
from tests.model.memory_kafka import MemoryKafka
from tests.model.merging import ERASABLE, disputes, make_claim
from tests.stream_log import GAP_MS, ORDER, START_MS, make_event

WINDOW_MS = 1_000_000
KINDS = {"new": 10.0, "again": 4.0, "reused": 0.7, "bad": 0.7, "misplaced": 0.7, "gap": 1.0,
         "aborted": 0.7, "consent": 2.0, "overtaken": 4.0, "erasure": 0.5}  # fmt: skip
MERGING = {"again": 2.0, "claim": 12.0, "overtaken": 1.0, "erasure": 2.0}
Call = TypeVar("Call", Collected, Accepted)
Place = tuple[str, int, int]
"""(topic, partition, offset)"""


@cache
def pids_of(partition: int, partitions: int, count: int) -> list[bytes]:
    """The first `count` pids, by number, that lie in `partition`."""
    found = (bytes([number]) * PID_BYTES for number in range(256))
    return [pid for pid in found if partition_of(pid, partitions) == partition][:count]


@dataclass
class Truth:
    """What a recount of the inputs finds."""

    counted: list[Collected] = field(default_factory=list)
    set_aside: Counter[Place] = field(default_factory=Counter)


class Arrivals:
    """The inputs of one schedule."""

    def __init__(
        self,
        chance: random.Random,
        kafka: MemoryKafka,
        *,
        has_expiry: bool,
        has_merges: bool = False,
    ) -> None:
        self._chance = chance
        self._kafka = kafka
        self._has_expiry = has_expiry
        many, erasable = (3 + ERASABLE, ERASABLE) if has_merges else (4, 1)
        self.pids = {p: pids_of(p, kafka.partitions, many) for p in range(kafka.partitions)}
        self.erasable = {pid for pids in self.pids.values() for pid in pids[-erasable:]}
        self.has_merges = has_merges
        self._kinds = KINDS | MERGING if has_merges else KINDS
        self.claims: list[tuple[Place, Claimed]] = []
        self.calls: list[tuple[Place, Collected]] = []
        self.ever_sent: set[bytes] = set()
        self.bad: Counter[Place] = Counter()
        self.consents: list[tuple[Place, ConsentChanged]] = []
        self.decided: set[bytes] = set()  # something on analytics
        self.erased: set[bytes] = set()
        self.was_cut = False
        self._number = 0

    def arrive(self, now_ms: int) -> int:
        """One more record on an input; the time it is then."""
        chance = self._chance
        now_ms += chance.randrange(10_000)
        if self._has_expiry and chance.random() < 0.1:
            now_ms += chance.randrange(2 * WINDOW_MS)
        self._number += 1
        p = chance.randrange(self._kafka.partitions)
        kind = chance.choices(list(self._kinds), list(self._kinds.values()))[0]
        getattr(self, f"_{kind}")(p, now_ms)
        return now_ms

    def cut(self) -> bool:
        """An input loses its end; False where there is none to lose."""
        at = self._chance.choice([*self._kafka.logs])
        log = self._kafka.logs[at]
        if at[0] not in TOPICS.inputs or not log.entries:
            return False
        end = self._chance.randrange(len(log.entries))
        log.cut(end)
        lost = {(*at, offset) for offset in range(end, end + 10_000)}
        self.calls = [each for each in self.calls if each[0] not in lost]
        self.consents = [each for each in self.consents if each[0] not in lost]
        self.claims = [each for each in self.claims if each[0] not in lost]
        self.was_cut = True
        return True

    def recount(self) -> Truth:
        """What counts, in the order of each log, if no log was ever cut."""
        truth = Truth(set_aside=Counter(self.bad))
        known: dict[bytes, Collected] = {}
        for place, call in self.calls:
            before = known.get(call.event_id)
            if before is None or call.received_at_ms - before.received_at_ms > WINDOW_MS:
                known[call.event_id] = call
                truth.counted.append(call)
            elif before.body_digest != call.body_digest:
                truth.set_aside[place] += 1
        for at, (place, claim) in enumerate(self.claims):
            earlier = [each for _, each in self.claims[:at] if each.pid == claim.pid]
            if claim.pid not in self.erasable and claim not in earlier:
                shown = disputes([*earlier, claim]) - disputes(earlier)
                truth.set_aside[place] += len(shown)
        truth.set_aside = +truth.set_aside
        return truth

    # -- kinds

    def _put(self, topic: str, p: int, key: bytes | None, value: bytes | None) -> Place:
        return topic, p, self._kafka.logs[topic, p].append((key, value))

    def _call(self, p: int, call: Collected) -> None:
        place = self._put(TOPICS.collected, p, call.pid, COLLECTED.encode(call))
        self.calls.append((place, call))
        self.ever_sent.add(call.event_id)

    def _new(self, p: int, now_ms: int) -> None:
        chance = self._chance
        pid = chance.choice(self.pids[p])
        is_order = chance.random() < 0.3
        campaign = chance.choice("ab")
        properties = {"campaign_id": campaign} if self._number % 2 else {}
        if is_order:
            order = f"{pid.hex()}{chance.randrange(4)}"
            properties |= {"order_id": order, "total": str(chance.randrange(99)), "currency": "EUR"}
        call = make_event(
            event_id=chance.randbytes(16),
            pid=pid,
            event=ORDER if is_order else "",
            occurred_at_ms=START_MS + chance.randrange(5) * GAP_MS // 2,
            received_at_ms=now_ms,
            clear={"properties": properties},
        )
        self._call(p, call)

    def _again(self, p: int, now_ms: int) -> None:
        before = [call for (_, at, _), call in self.calls if at == p]
        if before:
            call = self._chance.choice(before)
            self._call(p, msgspec.structs.replace(call, received_at_ms=now_ms))

    def _reused(self, p: int, now_ms: int) -> None:
        before = [call for (_, at, _), call in self.calls if at == p]
        if before:
            call = self._chance.choice(before)
            other = msgspec.structs.replace(
                call, received_at_ms=now_ms, body_digest=call.body_digest + 1
            )
            self._call(p, other)

    def _bad(self, p: int, _now_ms: int) -> None:
        topic = self._chance.choice(TOPICS.inputs)
        value = self._chance.choice((b"no record of ours", b"", None))
        self.bad[self._put(topic, p, b"k", value)] += 1

    def _misplaced(self, p: int, now_ms: int) -> None:
        """Under a key that is not its own, or where its pid does not belong."""
        strange = make_event(pid=b"\xff" * PID_BYTES, received_at_ms=now_ms)
        key = b"other" if partition_of(strange.pid, self._kafka.partitions) == p else strange.pid
        self.bad[self._put(TOPICS.collected, p, key, COLLECTED.encode(strange))] += 1

    def _gap(self, p: int, _now_ms: int) -> None:
        self._kafka.logs[self._chance.choice(TOPICS.inputs), p].append(None)

    def _aborted(self, p: int, now_ms: int) -> None:
        """A record that its producer took back: nobody may see it."""
        at = (TOPICS.collected, p)
        call = make_event(pid=self.pids[p][0], received_at_ms=now_ms)
        epoch = self._kafka.fence("other")
        self._kafka.write("other", epoch, at, (call.pid, COLLECTED.encode(call)))
        self._kafka.fence("other")

    def _consent(self, p: int, now_ms: int) -> None:
        """A decision, recorded now; a withdrawal may have been under way for long."""
        chance = self._chance
        purpose = chance.choice(("sale", "analytics", "analytics", "analytics"))
        is_grant = chance.random() < 0.4
        recorded_at_ms = now_ms if is_grant else now_ms - chance.choice((0, 1, 20_000, 100_000))
        begins_ms = START_MS + chance.randrange(-1, 5) * GAP_MS // 2
        pid = chance.choice(self.pids[p])
        self._decide(p, pid, purpose, is_grant, begins_ms + self._number, recorded_at_ms)

    def _overtaken(self, p: int, now_ms: int) -> None:
        """A grant that an event was faster than, which it allows."""
        before = [call for (_, at, _), call in self.calls if at == p][-3:]
        if before:
            call = self._chance.choice(before)
            self._decide(p, call.pid, "analytics", True, call.occurred_at_ms, now_ms)

    def _decide(
        self, p: int, pid: bytes, purpose: str, is_grant: bool, begins_ms: int, recorded_at_ms: int
    ) -> None:
        change = ConsentChanged(
            self._number.to_bytes(16, "big"), pid, purpose, None, None, "consent",
            "granted" if is_grant else "withdrawn", begins_ms, None, recorded_at_ms, "form",
        )  # fmt: skip
        if purpose == "analytics":
            self.decided.add(change.pid)
        place = self._put(TOPICS.consents, p, change.pid, CONSENT_CHANGED.encode(change))
        self.consents.append((place, change))

    def _erasure(self, p: int, _now_ms: int) -> None:
        pid = max(self.erasable & set(self.pids[p]))
        if self.has_merges:
            pid = self._chance.choice(sorted(self.erasable & set(self.pids[p])))
        request = ErasureRequested(bytes(16), pid, START_MS, "withdrawn")
        self._put(TOPICS.erasures, p, pid, ERASURE_REQUESTED.encode(request))
        self.erased.add(pid)

    def _claim(self, p: int, now_ms: int) -> None:
        """A claim on a pid of the partition, or one of those made before once more."""
        chance = self._chance
        before = [claim for (_, at, _), claim in self.claims if at == p]
        pids = sorted(pid for pids in self.pids.values() for pid in pids)
        pid = chance.choice(self.pids[p])
        claim = (
            chance.choice(before)
            if before and chance.random() < 0.2
            else make_claim(chance, pid, pids, self.erasable, now_ms)
        )
        if claim is not None:
            place = self._put(TOPICS.moves, p, claim.pid, CLAIMED.encode(claim))
            self.claims.append((place, claim))


def by_pid(calls: Sequence[Call]) -> dict[bytes, list[Call]]:
    """The calls of each person."""
    found: dict[bytes, list[Call]] = defaultdict(list)
    for call in calls:
        found[call.pid].append(call)
    return found
