"""Are links, facts, counters and progress what a recount of the log says, but for who was erased?"""

from collections import Counter, defaultdict
from itertools import islice
from typing import Any

from runtime.settings import Settings
from schemas.codec import ACCEPTED, ERASED, LINKED, REATTRIBUTED, RETRACTED
from schemas.consent import Basis, allows
from schemas.counters import ERASED_RECORDS, NO_CAMPAIGN_AT_ALL
from schemas.events import (
    EMAIL_EVENTS,
    Accepted,
    CampaignOfEvent,
    CampaignSpan,
    Reattributed,
    Retracted,
    VisitChange,
)
from schemas.moves import Linked
from schemas.requests import Erased
from schemas.subjects import Consent
from schemas.topics import Topics
from sinks.accepted_to_clickhouse import AcceptedToClickHouse
from sinks.group_sink import GroupSink
from tests.model.campaigns import campaigns_said
from tests.model.memory_clickhouse import MemoryClickHouse, MemoryCounterStore
from tests.model.sink_world import SinkWorld, never_stopped

METRICS = {"Order Completed": "orders", "Email Opened": "opened", "Product Viewed": "product_views"}
MINUTE_MS = 60_000
GAP_MS = 30 * MINUTE_MS
Place = tuple[int, int, int]
"""(generation, partition, offset)"""
Said = Accepted | Retracted | Reattributed | Erased | Linked


class CounterWorld(SinkWorld):
    """One schedule of accepted_to_clickhouse."""

    topic = Topics().accepted
    server: MemoryClickHouse

    def __init__(self, seed: int) -> None:
        super().__init__(seed, MemoryClickHouse)
        self.kept: dict[Place, Accepted] = {}
        self.retractions = 0
        self._links: list[tuple[Place, Linked]] = []
        self.erased: set[bytes] = set()
        self._silent: set[bytes] = set()  # of whom a lane says nothing more
        self._of_person: defaultdict[bytes, list[tuple[Place, Accepted | Retracted | Reattributed]]]
        self._of_person = defaultdict(list)
        self.repeats = 0
        # A new generation begins with an empty tripwire.
        self.may_repeat = not self.may_raise
        self._at: Counter[int] = Counter()  # of each lane its seq
        self._highest: dict[tuple[int, int], tuple[int, int, int]] = {}

    def arrive(self) -> None:
        chance = self.chance
        if chance.random() < 0.3:
            every = chance.randint(1, 3)
            self.server.apply(lambda: self.server.delete_erased(every))
        lane, p = chance.randrange(2), chance.randrange(self.partitions)
        # Sometimes what a lane wrote comes again: of a lane whose own log went back.
        repeats = self.may_repeat and chance.random() < 0.05
        self._at[lane] += 1 if not repeats else -min(2, self._at[lane] - 1)
        events: list[Said] = []
        index = 0
        makes = (
            self._event, self._retracted, self._reattributed, self._erasure, self._linked,
        )  # fmt: skip
        for _ in range(chance.choice((1, 1, 2, 3, 5))):
            index += chance.randint(1, 3)
            (make,) = chance.choices(makes, (72, 13, 10, 5, 20))
            events.append(make(p, lane, self._at[lane], index))
        how = "commit" if chance.random() > 0.15 else "abort"
        offsets = self.write(p, [(each.pid, _encode(each)) for each in events], how)
        if how == "abort":
            self._at[lane] -= 1
            return
        for offset, event in zip(offsets, events, strict=True):
            coordinate = (event.generation, event.seq, event.index)
            if coordinate <= self._highest.get((p, lane), (0, 0, 0)):
                self.repeats += 1
                continue
            self._highest[p, lane] = coordinate
            place = (event.generation, p, offset)
            if isinstance(event, Erased):
                self.erased.add(event.pid)
                continue
            if isinstance(event, Linked):
                self._links.append((place, event))
                continue
            if isinstance(event, Accepted):
                self.kept[place] = event
            self._of_person[event.pid].append((place, event))

    def _retracted(self, p: int, lane: int, seq: int, index: int) -> Retracted:
        chance = self.chance
        self.said["retraction"] += 1
        decisions = [
            Consent(
                "purpose/analytics",
                chance.choice(("granted", "withdrawn", "withdrawn")),
                chance.randrange(4) * GAP_MS,
                None,
                chance.randrange(4) * GAP_MS,
            )
            for _ in range(chance.randint(1, 3))
        ]
        basis: Basis = chance.choice(("consent", "legitimate_interest"))
        return Retracted(
            self._pid(p), "analytics", basis, decisions, self.generation, lane, seq, "c", lane, 0,
            index, index % 2 * GAP_MS // 1_000,
        )  # fmt: skip

    def _reattributed(self, p: int, lane: int, seq: int, index: int) -> Reattributed:
        chance = self.chance
        self.said["reattribution"] += 1
        pid = self._pid(p)
        times = [n * GAP_MS + m * MINUTE_MS for n in range(5) for m in range(3)]
        bounds = [sorted(chance.sample(times, 2)) for _ in range(chance.randint(0, 2))]
        spans = [CampaignSpan(begin, end, chance.choice("abc")) for begin, end in bounds]
        ids = [each.event_id for _, each in self._of_person[pid] if isinstance(each, Accepted)]
        events = [CampaignOfEvent(chance.choice(ids)[:8], chance.choice("abc"))] if ids else []
        return Reattributed(
            pid, spans, events if chance.random() < 0.3 else [], self._visits(), self.generation,
            lane, seq, "c", lane, 0, index,
        )  # fmt: skip

    def _visits(self) -> list[VisitChange]:
        chance = self.chance
        return [
            VisitChange(
                chance.choice("ab"), chance.randrange(3) * MINUTE_MS, chance.choice((-1, 1))
            )
            for _ in range(chance.choice((0, 0, 1, 2)))
        ]

    def _erasure(self, p: int, lane: int, seq: int, index: int) -> Erased:
        self.said["erasure"] += 1
        pid = self._pid(p)
        self._silent.add(pid)
        salt = self.chance.randbytes(16)
        return Erased(pid, pid, 0, salt, self.generation, lane, seq, "c", lane, 0, index)

    def _linked(self, p: int, lane: int, seq: int, index: int) -> Linked:
        chance = self.chance
        self.said["link"] += 1
        root, pid = self._pid(p), self._pid(chance.randrange(self.partitions))
        return Linked(
            pid, root, chance.random() < 0.7, self.generation, lane, seq,
            chance.choice((Topics().moves, Topics().erasures)), lane, 0, index, chance.randbytes(16),
        )  # fmt: skip

    def _pid(self, p: int) -> bytes:
        """One of three who were not erased; whoever comes back is somebody new."""
        numbers = (n for n in range(256) if bytes([p, n]) * 8 not in self._silent)
        return bytes([p, self.chance.choice(list(islice(numbers, 3)))]) * 8

    def _event(self, p: int, lane: int, seq: int, index: int) -> Accepted:
        chance = self.chance
        at_ms = chance.randrange(4) * GAP_MS + chance.randrange(3) * MINUTE_MS
        name = chance.choice(list(METRICS))
        return Accepted(
            event_id=chance.randbytes(16),
            pid=self._pid(p),
            source="s",
            type="track",
            event=name,
            occurred_at_ms=at_ms,
            sent_at_ms=None,
            received_at_ms=chance.randrange(4) * GAP_MS,
            flags=0,
            body_digest=0,
            clear=b"{}",
            traits=[],
            key_version=1,
            sealed=b"",
            generation=self.generation,
            lane=lane,
            seq=seq,
            source_topic="c",
            source_partition=lane,
            source_offset=0,
            index=index,
            campaign_id=chance.choice("ab"),
            is_repeat_order=chance.random() < 0.1,
            amount_micro=chance.choice((None, 5, 7_000_000)),
            currency="EUR",
            visit_changes=self._visits(),
            attributed_by=chance.choice((1, 2, 2)),
        )

    def make_sink(self, settings: Settings) -> GroupSink:
        store = MemoryCounterStore(self.server, self.generation)
        return AcceptedToClickHouse(settings, store, never_stopped(), lambda: 0)

    def positions(self) -> dict[int, int]:
        return {
            kp: row.next_offset
            for (kp, generation), row in self.server.progress.items()
            if generation == self.generation
        }

    def cut(self) -> None:
        p = self.chance.randrange(self.partitions)
        log = self.kafka.logs[self.topic, p]
        log.cut(self.chance.randint(0, len(log.entries)))

    def broken_promises(self) -> set[str]:
        found = set()
        server = self.server
        erased = server.erased()
        if erased != self.erased:
            found.add("others erased than asked to be")
        facts = {
            (row[2], row[3], row[4])
            for row in server.facts.values()
            if row[5] == 0 and row[6] not in erased
        }
        if facts != {place for place, event in self.kept.items() if event.pid not in erased}:
            found.add("facts differ from the log")
        counted = {(*key, kp): row.value for (key, kp), row in server.counters.items() if row.value}
        recounted = self._recount()
        live = dict(counted)
        if self.retractions:
            # What is taken back or moved counts in the generation in which that was said.
            live, recounted = _without_generations(live), _without_generations(recounted)
        if _nonzero(live) != _nonzero(recounted):
            found.add("counters differ from the log")
        totals: Counter[Any] = Counter()
        for key, row in server.facts.items():
            if row[10] and row[0] != NO_CAMPAIGN_AT_ALL and row[6] not in erased:
                place = (row[0], row[10], "", row[8] // MINUTE_MS * 60)
                totals[*place, row[2], row[3]] += row[11]
                if key in server.retracted:
                    totals[*place, server.retracted[key][0], row[3]] -= row[11]
        plain = {key: value for key, value in counted.items() if not key[2]}
        if plain != {key: value for key, value in totals.items() if value}:
            found.add("counters differ from facts")
        stood_for = Counter(at[:2] for at, event in self.kept.items() if event.pid in erased)
        if stood_for != self._records_stood_for():
            found.add("stand-ins for other records")
        if not self._are_people_right():
            found.add("people counted otherwise")
        if sum(row.records for row in server.progress.values()) != len(self.kept):
            found.add("records counted otherwise")
        if bool(self.repeats) != bool(self.said["tripwire"]):
            found.add("tripwire silent" if self.repeats else "tripwire rang without a reason")
        return found

    def _are_people_right(self) -> bool:
        """Whether each count of people is that of the persons of the log.

        Of erased ones only how many at least and at most: what joined them may have come too late.
        """
        server, erased, persons = self.server, self.erased, self.server.persons()
        shown: defaultdict[tuple[str, str], set[bytes]] = defaultdict(set)
        for key, row in server.facts.items():
            if row[0] == NO_CAMPAIGN_AT_ALL or row[6] in erased or key in server.retracted:
                continue
            for metric in _counts_of_people(row[10], is_visitor=bool(row[14])):
                shown[row[0], metric].add(persons.get(row[6], row[6]))
        newest: dict[tuple[bytes, bytes], bool] = {}
        for _, link in sorted(self._links, key=lambda each: (each[0][0], each[0][2])):
            newest[link.pid, link.root] = link.is_linked
        gone = set().union(*(_taken_back(of_person) for of_person in self._of_person.values()))
        belongs: dict[Place, str] = {}
        for of_person in self._of_person.values():
            belongs |= _campaigns(of_person)
        alive: defaultdict[tuple[str, str], set[bytes]] = defaultdict(set)
        of_erased: defaultdict[tuple[str, str], set[bytes]] = defaultdict(set)
        for place, event in self.kept.items():
            if place in gone:
                continue
            is_orders = event.event == "Order Completed"
            metric = "" if is_orders and event.is_repeat_order else METRICS[event.event]
            roots = [root for (pid, root), is_in in newest.items() if is_in and pid == event.pid]
            for count in _counts_of_people(metric, is_visitor=event.event not in EMAIL_EVENTS):
                if event.pid in erased:
                    of_erased[belongs[place], count].add(event.pid)
                else:
                    alive[belongs[place], count].add(min(roots, default=event.pid))
        return all(
            len(alive[count]) + bool(of_erased[count])
            <= len(shown[count])
            <= len(alive[count]) + len(of_erased[count])
            for count in {*shown, *alive, *of_erased}
        )

    def _records_stood_for(self) -> Counter[tuple[int, int]]:
        """(generation, partition) -> how many events' facts have stand-ins."""
        found: Counter[tuple[int, int]] = Counter()
        for row in self.server.facts.values():
            if row[10] == ERASED_RECORDS:
                found[row[2], row[3]] += row[11]
        return found

    def _recount(self) -> Counter[Any]:
        """(campaign, metric, currency, minute, generation, partition) -> sum, from what was sent."""
        totals: Counter[Any] = Counter()
        gone: set[Place] = set()
        campaigns: dict[Place, str] = {}
        for of_person in self._of_person.values():
            taken = _taken_back(of_person)
            belongs = _campaigns(of_person)
            may_move = any(isinstance(each, Reattributed) for _, each in of_person)
            self.retractions += bool(taken) or may_move
            gone |= taken
            campaigns |= belongs
            if taken:
                left = [(at, event) for at, event in _events(of_person) if at not in taken]
                _add_visits(totals, left, belongs)
                continue
            for (generation, p, _), each in of_person:
                if isinstance(each, Retracted):
                    continue
                for change in each.visit_changes:
                    at = (change.started_at_ms // 1000, generation, p)
                    totals[change.campaign_id, "visits", "", *at] += change.delta
        for place, event in self.kept.items():
            generation, p, _ = place
            if place in gone:
                continue
            if event.event == "Order Completed" and event.is_repeat_order:
                continue
            at = (event.occurred_at_ms // 1000, generation, p)
            totals[campaigns[place], METRICS[event.event], "", *at] += 1
            if event.event == "Order Completed" and event.amount_micro:
                totals[campaigns[place], "revenue", "EUR", *at] += event.amount_micro
        return totals


def _counts_of_people(metric: str, *, is_visitor: bool) -> list[str]:
    return [each for each in ("orders", "opened") if each == metric] + ["visitor"] * is_visitor


def _encode(record: Said) -> bytes:
    if isinstance(record, Linked):
        return LINKED.encode(record)
    if isinstance(record, Erased):
        return ERASED.encode(record)
    if isinstance(record, Reattributed):
        return REATTRIBUTED.encode(record)
    return ACCEPTED.encode(record) if isinstance(record, Accepted) else RETRACTED.encode(record)


OfPerson = list[tuple[Place, Accepted | Retracted | Reattributed]]


def _events(records: OfPerson) -> list[tuple[Place, Accepted]]:
    return [(at, each) for at, each in records if isinstance(each, Accepted)]


def _campaigns(records: OfPerson) -> dict[Place, str]:
    """Where each event of one person belongs in the end."""
    found = campaigns_said([each for _, each in records])
    return {records[number][0]: campaign for number, campaign in found.items()}


def _taken_back(records: OfPerson) -> set[Place]:
    """Which events of one person a later record takes back."""
    return {
        place
        for number, (place, event) in enumerate(records)
        if isinstance(event, Accepted)
        and any(
            isinstance(later, Retracted)
            and not allows(
                "consent" if later.basis == "consent" else "legitimate_interest",
                later.decisions,
                event.occurred_at_ms,
                event.received_at_ms,
                1_000 * later.late_grant_s,
            )
            for _, later in records[number:]
        )
    }


def _add_visits(
    totals: Counter[Any], events: list[tuple[Place, Accepted]], campaigns: dict[Place, str]
) -> None:
    """The visits of one person by going once through the events in the order of (time, id)."""
    ended_at_ms = -GAP_MS
    by_time = sorted(events, key=lambda each: (each[1].occurred_at_ms, each[1].event_id))
    for (generation, p, offset), event in by_time:
        if event.event == "Email Opened":
            continue
        if event.occurred_at_ms - ended_at_ms >= GAP_MS:
            at = (event.occurred_at_ms // 1000, generation, p)
            totals[campaigns[generation, p, offset], "visits", "", *at] += 1
        ended_at_ms = event.occurred_at_ms


def _without_generations(totals: dict[Any, int]) -> Counter[Any]:
    merged: Counter[Any] = Counter()
    for key, value in totals.items():
        merged[*key[:4], key[5]] += value
    return merged


def _nonzero(totals: dict[Any, int]) -> dict[Any, int]:
    return {key: value for key, value in totals.items() if value}
