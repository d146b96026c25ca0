"""What does a lane say beside accepted events, in the transaction under way?

Each record has the lane's coordinates (lane, seq, index), and points at the input record behind it.
"""

from functools import lru_cache

from runtime.metrics import counter
from runtime.transactions import LaneProducer
from schemas.codec import REATTRIBUTED, REJECTED, RETRACTED, SEGMENT_CHANGED
from schemas.consent import Basis
from schemas.events import Reattributed, Rejected, Retracted
from schemas.partitioning import partition_of
from schemas.subjects import Consent
from schemas.varints import write_long, write_text, write_time
from streams.known import Known
from streams.lane_settings import LaneSettings
from streams.rules.attribute import without_disallowed
from streams.rules.deduplicate import Memory
from streams.rules.membership import Membership
from streams.rules.outcomes import WRONG_KEY, WRONG_PARTITION, Moved, Refused, Withheld
from streams.rules.parking import Parking
from streams.rules.person import Person
from streams.rules.wakes import Wakes

LONGEST_SOURCE = 64  # as settings allow
_ENTERED, _LEFT = b"\x01", b"\x00"


class Outputs:
    """A lane, as far as it writes."""

    p: int
    settings: LaneSettings
    producer: LaneProducer
    seq: int  # of the transaction under way
    index: int  # outputs written in it
    withheld: dict[Withheld, int]
    people: dict[bytes, Person]
    changed: dict[bytes, Person]  # to be written at the barrier
    memory: Memory
    parking: Parking
    wakes: Wakes
    known: Known
    membership: Membership
    next_offsets: dict[str, int]
    is_touched: bool  # something is applied and not yet committed

    def person(self, pid: bytes) -> Person:
        """The person of this pid, made when new."""
        person = self.people.get(pid)
        if person is None:
            person = self.people[pid] = Person(pid)
        return person

    def misplaced(self, pid: bytes, key: bytes | None) -> Refused | None:
        """Why a record about `pid` under that key is not this lane's; None when it is."""
        if pid != key:
            return WRONG_KEY
        if pid not in self.people and partition_of(pid, self.settings.partitions) != self.p:
            return WRONG_PARTITION
        return None

    def reject(self, refused: Refused, topic: str, offset: int, source: str | None) -> None:
        """Write down why the record at `offset` was set aside, in this transaction.

        A `source` that cannot be a name of ours stays out: it may be a megabyte.
        """
        if source is not None and len(source) > LONGEST_SOURCE:
            source = None
        record = Rejected(
            "streams",
            topic,
            self.p,
            offset,
            source,
            None,
            refused.path,
            refused.reason,
            refused.expected,
            self.settings.clock_ms(),
            self.settings.generation,
            self.p,
            self.seq,
            self.index,
        )
        self.index += 1
        self.producer.send(self.settings.topics.rejected, REJECTED.encode(record), None, self.p)

    def withhold(self, withheld: Withheld) -> None:
        """Count an event that must not be used."""
        self.withheld[withheld] = self.withheld.get(withheld, 0) + 1
        labels = (withheld.purpose, withheld.reason)
        counter("headwater_withheld_events_total").labels(*labels).inc()

    def retract(
        self,
        pid: bytes,
        decisions: list[Consent],
        topic: str,
        offset: int,
        *,
        of_kin: bool = False,
    ) -> None:
        """Accepted events of the person that `decisions` on analytics disallow count no more.

        Said in this transaction, because of the record at `offset` of `topic`. `of_kin` where they
        are some of several pids' decisions: what none of these says, another may allow. Their
        touches decide nothing any more.
        """
        rules = self.settings.rules
        basis: Basis = "legitimate_interest" if of_kin else rules.gate.analytics_basis
        record = Retracted(
            pid,
            "analytics",
            basis,
            decisions,
            self.settings.generation,
            self.p,
            self.seq,
            topic,
            self.p,
            offset,
            self.index,
            self.settings.rules.gate.late_grant_ms // 1_000,
        )
        self.index += 1
        self.producer.send(self.settings.topics.accepted, RETRACTED.encode(record), pid, self.p)
        late_ms, window_ms = rules.gate.late_grant_ms, rules.attribution_ms
        moved = without_disallowed(self.people[pid], decisions, basis, late_ms, window_ms)
        if moved is not None:
            self.reattribute(pid, moved, topic, offset)

    def reattribute(self, pid: bytes, moved: Moved, topic: str, offset: int) -> None:
        """Accepted events of the person belong to other campaigns: see `retract`."""
        record = Reattributed(
            pid,
            moved.spans,
            moved.events,
            moved.visit_changes,
            self.settings.generation,
            self.p,
            self.seq,
            topic,
            self.p,
            offset,
            self.index,
        )
        self.index += 1
        self.producer.send(self.settings.topics.accepted, REATTRIBUTED.encode(record), pid, self.p)

    def put_into(self, person: Person, segments: tuple[str, ...], now_ms: int) -> None:
        """The person is in these `segments`, sorted, and in no others; each change is told."""
        pid, topic, p = person.pid, self.settings.topics.segments_changed, self.p
        send = self.producer.send
        # As SEGMENT_CHANGED writes them: at first, and when a window's event comes, they are many.
        whose = SEGMENT_CHANGED.header + pid
        place = write_long(self.settings.generation) + write_long(p) + write_long(self.seq)
        where = write_time(now_ms) + place
        for change in _changes(person.segments, segments, self.membership.version):
            send(topic, b"".join((whose, change, where, write_long(self.index))), pid, p)
            self.index += 1
        person.segments = segments
        person.settled = None


@lru_cache(maxsize=10_000)  # many people change in the same way
def _changes(known: tuple[str, ...], segments: tuple[str, ...], version: int) -> tuple[bytes, ...]:
    """From the segment's id to how it changed, as SEGMENT_CHANGED writes them; those that are
    entered come first."""
    changes = [(id_, _ENTERED) for id_ in segments if id_ not in known]
    changes += [(id_, _LEFT) for id_ in known if id_ not in segments]
    by = write_long(version)
    return tuple(write_text(id_) + by + how for id_, how in changes)
