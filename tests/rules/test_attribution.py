"""Does every event end in the campaign that the whole truth gives it, whatever arrived when?

The lane's rules and the sink's rules together, against a few lines that see all events in order.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.consent import allows
from schemas.events import Accepted, Collected, Reattributed, Retracted
from schemas.subjects import Consent
from sinks.rules.counters import (
    Counter as Row,
)
from sinks.rules.counters import (
    Mark,
    Plan,
    Prefix,
    before,
    people_to_look_up,
    people_to_move,
    plan_write,
    tally,
)
from sinks.rules.reattribute import live_facts
from sinks.rules.retract import KnownFact, person_from, visits_of
from sinks.rules.rows import Fact, is_event
from sinks.rules.take_back import tally_retraction
from streams.rules import touches as touches_module
from streams.rules.admit import Rules, admit
from streams.rules.attribute import without_disallowed
from streams.rules.deduplicate import Memory
from streams.rules.gate import Gate
from streams.rules.outcomes import Admitted
from streams.rules.person import Person, read_person
from streams.rules.written_person import write_person
from tests.stream_log import EMAIL, GAP_MS, ORDER, START_MS, make_event

PID = b"p" * 16
WINDOW_MS = 4 * GAP_MS
RULES = Rules(Gate(counts=True, profiles=True), GAP_MS, attribution_ms=WINDOW_MS)
MINUTE_MS = 60_000
REFUND = "Order Refunded"
Said = Accepted | Reattributed | Retracted


@dataclass
class Lane:
    """What the lane of one person says, by its rules."""

    person: Person = field(default_factory=lambda: Person(PID))
    memory: Memory = field(default_factory=lambda: Memory(10**12))
    said: list[Said] = field(default_factory=list)

    def take(self, event: Collected) -> None:
        """It arrives."""
        outcome = admit(event, self.person, self.memory, RULES)
        if not isinstance(outcome, Admitted):
            return
        told = msgspec.structs.asdict(outcome)
        moved = told.pop("moved")
        self.said.append(Accepted(**msgspec.structs.asdict(event), **self._coordinates(), **told))
        if moved is not None:
            self.said.append(Reattributed(PID, **_fields(moved), **self._coordinates()))

    def refuse(self, begins_ms: int) -> None:
        """What happened from then on may not be used: a late withdrawal."""
        person = self.person
        decision = Consent("purpose/analytics", "withdrawn", begins_ms, None, START_MS)
        person.consents.append(decision)
        person.decided = person.settled = None
        decisions = list(person.consents)
        self.said.append(
            Retracted(
                PID, "analytics", RULES.gate.analytics_basis, decisions, **self._coordinates()
            )
        )
        gate = RULES.gate
        moved = without_disallowed(
            person, decisions, gate.analytics_basis, gate.late_grant_ms, WINDOW_MS
        )
        if moved is not None:
            self.said.append(Reattributed(PID, **_fields(moved), **self._coordinates()))

    def restart(self) -> None:
        """The person is read back from their record."""
        self.person = read_person(write_person(self.person))

    def _coordinates(self) -> dict[str, Any]:
        return {
            "generation": 1, "lane": 0, "seq": 1, "index": len(self.said),
            "source_topic": "c", "source_partition": 0, "source_offset": len(self.said),
        }  # fmt: skip


def _fields(struct: Any) -> dict[str, Any]:
    return {name: getattr(struct, name) for name in struct.__struct_fields__}


class Store:
    """The rows that the sink's rules wrote, as ClickHouse shows them with FINAL."""

    def __init__(self) -> None:
        self.facts: dict[Any, tuple[Fact, tuple[int, int] | None]] = {}
        self.counters: dict[Any, Row] = {}

    def write(self, plan: Plan, chance: random.Random) -> None:
        """All rows, or, after a crash, some of them: not the progress then."""
        for fact in plan.facts:
            self.facts.setdefault(_key(fact), (fact, None))
        marks: list[Mark] = [*plan.marks, *plan.moves]
        for fact, generation, offset in marks:
            self.facts[_key(fact)] = (fact, (generation, offset))
        for row in plan.counters:
            known = self.counters.get(row[:5])
            if known is None or known.last_offset <= row[7]:
                self.counters[row[:5]] = Row(row[6], row[7])

    def known(self) -> list[KnownFact]:
        return [KnownFact(*each) for each in self.facts.values()]

    def events(self) -> dict[bytes, tuple[str, str]]:
        """event_id -> campaign and metric, of what counts."""
        counting = [fact for fact, gone in self.facts.values() if is_event(fact) and gone is None]
        assert len({fact[7] for fact in counting}) == len(counting), "counted in two campaigns"
        return {fact[7]: (fact[0], fact[10]) for fact in counting}

    def sums(self) -> Counter[tuple[str, str, str, int]]:
        found: Counter[tuple[str, str, str, int]] = Counter()
        for key, row in self.counters.items():
            found[key[:4]] += row.value
        return Counter({key: value for key, value in found.items() if value})


def _key(fact: Fact) -> Any:
    return (fact[0], fact[1], fact[3], fact[6], fact[7], fact[2], fact[4], fact[5])


def sink(said: list[Said], chance: random.Random) -> Store:
    """The store after all of it, in batches of any size, some of them written twice."""
    store, prefix = Store(), Prefix(0)
    while prefix.next_offset < len(said):
        first = prefix.next_offset
        until = min(len(said), first + chance.randint(1, 6))
        takes = [at for at in range(first, until) if isinstance(said[at], Retracted)]
        if takes:
            until = max(first + 1, takes[0])
        again = chance.random() < 0.3
        before_it = _copy(prefix)
        store.write(_plan(prefix, said, until, store), chance)
        if again:  # a crash before the progress: the rows are there, and others are read
            prefix = before_it
    return store


def _copy(prefix: Prefix) -> Prefix:
    kept = Prefix(0, prefix.next_offset, prefix.records, dict(prefix.highest))
    kept.marked = dict.fromkeys(prefix.marked)
    return kept


def _plan(prefix: Prefix, said: list[Said], until: int, store: Store) -> Plan:
    prefix.counters = dict(store.counters)
    first = prefix.next_offset
    known = before(prefix, store.known())
    only = said[first]
    if isinstance(only, Retracted):
        return plan_write(prefix, tally_retraction(prefix, only, first, known, GAP_MS))
    batch = [(at, each) for at, each in enumerate(said)][first:until]
    for pid in people_to_look_up(prefix, batch):  # type: ignore[arg-type]
        prefix.marked[pid] = person_from(known, GAP_MS)
    moving = people_to_move(batch)  # type: ignore[arg-type]
    live = live_facts(moving, known if moving else [])
    return plan_write(prefix, tally(prefix, batch, until, live))  # type: ignore[arg-type]


# -- the truth


def campaigns_of(events: list[Collected], arrived: list[Collected]) -> dict[bytes, str]:
    """By event_id the campaign of each that `arrived`, in this order, when only `events` touch."""
    named = {each.event_id: _property(each, "campaign_id") for each in arrived}
    touching = {each.event_id for each in events if named[each.event_id]}
    in_order = sorted(arrived, key=lambda each: (each.occurred_at_ms, each.event_id))
    found: dict[bytes, str] = {}
    for event in in_order:
        own = named[event.event_id]
        touches = [
            each
            for each in in_order
            if each.event_id in touching
            and 0 <= event.occurred_at_ms - each.occurred_at_ms < WINDOW_MS
        ]
        found[event.event_id] = own or (str(named[touches[-1].event_id]) if touches else "(none)")
    orders: dict[str, str] = {}
    for event in arrived:
        if event.event == ORDER:
            orders.setdefault(_property(event, "order_id"), found[event.event_id])
    for event in in_order:
        if event.event == REFUND:
            order_id = _property(event, "order_id")
            found[event.event_id] = orders.get(order_id, found[event.event_id])
    return found


def _property(event: Collected, name: str) -> str:
    return str(msgspec.json.decode(event.clear)["properties"].get(name, ""))


@st.composite
def lives(draw: st.DrawFn, *, has_repeats: bool = False) -> list[Collected]:
    """Events of one person in the order of their arrival: any order at all."""
    made = []
    kinds = st.sampled_from(("", "", "Product Viewed", EMAIL, ORDER, REFUND))
    for number in range(draw(st.integers(1, 14))):
        name = draw(kinds)
        campaign = draw(st.sampled_from(("", "", "a", "b")))
        properties = {"campaign_id": campaign} if campaign else {}
        if name in (ORDER, REFUND):
            order = draw(st.integers(0, 2)) if name == REFUND or has_repeats else number
            properties |= {"order_id": f"{order}", "total": "3", "currency": "EUR"}
        half = draw(st.integers(0, 14))
        at_ms = START_MS + half * GAP_MS // 2 + draw(st.integers(-1, 1))
        made.append(
            make_event(
                event_id=bytes([draw(st.integers(0, 3)), number]) * 8,
                event=name,
                occurred_at_ms=at_ms,
                received_at_ms=START_MS + 100 * GAP_MS,
                clear={"properties": properties},
            )
        )
    return made


def _expected(events: list[Collected], arrived: list[Collected]) -> Counter[Any]:
    """(campaign, metric, currency, minute) -> what the counters must say."""
    campaigns, sums = campaigns_of(events, arrived), Counter[Any]()
    first = {_property(e, "order_id"): e.event_id for e in reversed(arrived) if e.event == ORDER}
    metrics = {"": "page_views", "Product Viewed": "product_views", EMAIL: "opened",
               ORDER: "orders", REFUND: "refunds"}  # fmt: skip
    for event in events:
        minute_s = event.occurred_at_ms // MINUTE_MS * 60
        campaign = campaigns[event.event_id]
        if event.event == ORDER and first[_property(event, "order_id")] != event.event_id:
            continue  # told again
        sums[campaign, metrics[event.event], "", minute_s] += 1
        if event.event in (ORDER, REFUND):
            money = "revenue" if event.event == ORDER else "refunded"
            sums[campaign, money, "EUR", minute_s] += 3_000_000
    walked = [
        (each.occurred_at_ms, each.event_id, campaigns[each.event_id])
        for each in events
        if each.event != EMAIL
    ]
    for (campaign, at_ms), count in visits_of(walked, GAP_MS).items():
        sums[campaign, "visits", "", at_ms // MINUTE_MS * 60] += count
    return sums


@settings(max_examples=300, deadline=None)
@given(st.booleans().flatmap(lambda repeats: lives(has_repeats=repeats)), st.integers(0, 2**32))
def test_campaigns_are_those_of_the_whole_truth_whatever_arrived_when(
    life: list[Collected], seed: int
) -> None:
    chance, lane = random.Random(seed), Lane()
    for event in life:
        lane.take(event)
        if chance.random() < 0.2:
            lane.restart()
    store = sink(lane.said, chance)
    expected = campaigns_of(life, life)
    assert {id_: campaign for id_, (campaign, _) in store.events().items()} == expected
    assert store.sums() == _expected(life, life)
    orders = [each for each in lane.person.purchases if not each.is_refund]
    first = {_property(e, "order_id"): e.event_id for e in reversed(life) if e.event == ORDER}
    assert [each.campaign for each in orders] == [
        expected[each.event_id] for each in life if each.event_id in first.values()
    ]


@settings(max_examples=200, deadline=None)
@given(lives(), st.integers(0, 14), st.integers(0, 16), st.integers(0, 2**32))
def test_a_touch_that_is_taken_back_decides_nothing(
    life: list[Collected], refused_after: int, begins: int, seed: int
) -> None:
    """After a late withdrawal all stands as if what it forbids had never happened.

    But for orders: a refund stays with the campaign of its order, which the lane still knows.
    """
    chance, lane = random.Random(seed), Lane()
    begins_ms = START_MS + begins * GAP_MS // 2
    for number, event in enumerate(life):
        if number == refused_after:
            lane.refuse(begins_ms)
        lane.take(event)
        if chance.random() < 0.2:
            lane.restart()
    if refused_after >= len(life):
        lane.refuse(begins_ms)
    decisions = lane.person.consents
    left = [
        each
        for each in life
        if allows(
            RULES.gate.analytics_basis, decisions, each.occurred_at_ms, each.received_at_ms, 0
        )
    ]
    accepted = {each.event_id for each in lane.said if isinstance(each, Accepted)}
    known = [each for each in life if each.event_id in accepted]
    store, campaigns = sink(lane.said, chance), campaigns_of(left, known)
    assert {id_: campaign for id_, (campaign, _) in store.events().items()} == {
        each.event_id: campaigns[each.event_id] for each in left
    }
    assert store.sums() == _expected(left, known)


def test_a_visit_that_begins_with_an_order_told_again_goes_to_a_late_touch() -> None:
    def told(minute: int, number: int, name: str, **properties: str) -> Collected:
        return make_event(
            event_id=bytes([number]) * 16,
            event=name,
            occurred_at_ms=START_MS + minute * MINUTE_MS,
            received_at_ms=START_MS + WINDOW_MS,
            clear={"properties": {"currency": "EUR", "total": "3"} | properties},
        )

    life = [
        told(10, 1, ORDER, order_id="1", campaign_id="a"),
        told(5, 2, ORDER, order_id="1"),
        told(0, 3, EMAIL, campaign_id="b"),
    ]
    lane = Lane()
    for event in life:
        lane.take(event)
    assert sink(lane.said, random.Random(1)).sums() == _expected(life, life)


def test_the_window_ends_as_its_last_millisecond_has_passed() -> None:
    lane = Lane()
    lane.take(_page(0, "a"))
    lane.take(_page(WINDOW_MS - 1))
    lane.take(_page(WINDOW_MS))
    assert [each.campaign_id for each in lane.said if isinstance(each, Accepted)] == [
        "a", "a", "(none)",
    ]  # fmt: skip


def test_what_comes_in_order_says_nothing_twice() -> None:
    lane = Lane()
    for minute in range(20):
        lane.take(_page(minute * MINUTE_MS, "ab"[minute % 2] if minute % 3 else ""))
    assert all(isinstance(each, Accepted) for each in lane.said)


def test_many_touches_are_thinned_out_where_that_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(touches_module, "MOST_TOUCHES", 8)
    monkeypatch.setattr(touches_module, "KEPT_TOUCHES", 6)
    lane = Lane()
    for number in range(60):
        lane.take(_page(number * MINUTE_MS, "ab"[number // 20 % 2]))
    assert lane.person.touches is not None
    assert 6 <= len(lane.person.touches) <= 8
    for minute in range(60):
        lane.take(_page(minute * MINUTE_MS + 1))
    late = [each for each in lane.said[60:] if isinstance(each, Accepted)]
    assert [each.campaign_id for each in late] == ["ab"[n // 20 % 2] for n in range(60)]


def _page(at_ms: int, campaign: str = "") -> Collected:
    properties = {"campaign_id": campaign} if campaign else {}
    return make_event(
        occurred_at_ms=START_MS + at_ms,
        received_at_ms=START_MS + 10 * WINDOW_MS,
        clear={"properties": properties},
    )
