"""Is somebody in a segment exactly while its condition holds, also when nothing happens?

The rules run as a lane runs them: real admission of events that arrive in any order, and a look at
the person after each arrival and at each time that the last look named, never in between.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from schemas import segment_tables
from schemas.consent import allows, decisions_on
from schemas.events import SealedTrait
from schemas.segment_rules import Compiled, compile_segments
from schemas.segments import Segment, parse_segments, with_built_in
from schemas.subjects import Consent
from streams.rules.admit import Rules, admit
from streams.rules.deduplicate import Memory
from streams.rules.gate import gate_from_bases
from streams.rules.outcomes import Admitted, Duplicate
from streams.rules.person import Person, read_person
from streams.rules.written_person import write_person
from tests.segment_truth import (
    BASES,
    CAMPAIGNS,
    CATEGORIES,
    DAY_MS,
    EVENTS,
    HOUR_MS,
    MEASURES,
    PRODUCTS,
    WORDS,
    Happened,
    members,
    random_condition,
)
from tests.stream_log import START_MS, make_event

RULES = Rules(gate_from_bases({"analytics": "legitimate_interest", **BASES}, 0), 30 * 60_000)
SPAN_MS = 20 * DAY_MS
ASKED = 60  # moments a stream


@dataclass(slots=True)
class LaneOfOne:
    """One person as a lane holds them: looked at when something arrives, and when it is due."""

    compiled: Compiled
    person: Person
    memory: Memory
    members: frozenset[str] = frozenset()
    wake_at_ms: int | None = None
    looks: int = 0

    def until(self, now_ms: int) -> None:
        """Time passes."""
        while self.wake_at_ms is not None and self.wake_at_ms <= now_ms:
            at_ms = self.wake_at_ms
            self.look(at_ms)
            assert self.wake_at_ms is None or self.wake_at_ms > at_ms

    def look(self, now_ms: int) -> None:
        self.looks += 1
        self.members, self.wake_at_ms = self.compiled.evaluate(self.person, now_ms)

    def restart(self) -> None:
        """Only what was written is left."""
        self.person = read_person(write_person(self.person))


def random_segments(chance: random.Random) -> tuple[Segment, ...]:
    """Up to four that may build on each other."""
    definitions: list[dict[str, object]] = []
    for number in range(chance.randint(1, 4)):
        others = [f"s{n}" for n in range(max(0, number - 1), number)] if number < 3 else []
        condition = random_condition(chance, chance.randint(1, 5), others)
        definitions.append({"id": f"s{number}", "condition": condition})
    return with_built_in(parse_segments(definitions))


def random_event(chance: random.Random, arrives_at_ms: int) -> Happened:
    """Most a moment ago, some days late."""
    late_ms = chance.choice((0, 0, HOUR_MS, 3 * DAY_MS, 10 * DAY_MS))
    name = chance.choice((*EVENTS, "identify", "Product Added", "Order Refunded"))
    words = {each: chance.choice(WORDS[each]) for each in WORDS if chance.random() < 0.2}
    event = Happened(
        name,
        arrives_at_ms - chance.randrange(late_ms + 1) - chance.randrange(60_000),
        chance.choice(("", *CATEGORIES)) if name != "identify" else "",
        chance.choice(("", *PRODUCTS)) if name != "identify" else "",
        chance.choice(("", *CAMPAIGNS)) if name != "identify" else "",
        words=words,
    )
    if name == "Order Completed":
        order = chance.randrange(4)
        return replace(
            event, order_id=order, cents=1_000 + 777 * order, currency=("EUR", "CZK")[order % 2]
        )
    if name == "Order Refunded":
        return replace(event, order_id=1, cents=chance.choice((500, 900)), currency="EUR")
    if name == "identify":
        return replace(
            event,
            traits=chance.choice(
                ({"plan": "gold"}, {"plan": "free"}, {"vip": True}, {"vip": 1}, {"plan": None})
            ),
        )
    return event


def random_consent(chance: random.Random, arrives_at_ms: int) -> Consent:
    about, words = chance.choice(
        (
            ("purpose/personalisation", ("granted", "granted", "withdrawn")),
            ("purpose/advertising", ("granted", "withdrawn")),
            ("email/news", ("subscribed", "unsubscribed")),
            ("email/all", ("subscribed", "unsubscribed")),
        )
    )
    begins_ms = arrives_at_ms + chance.choice((0, 0, -DAY_MS, 2 * DAY_MS))
    ends_ms = chance.choice((None, begins_ms + chance.randint(1, 6 * DAY_MS)))
    return Consent(about, chance.choice(words), begins_ms, ends_ms, arrives_at_ms)


def told(event: Happened, event_id: bytes, arrives_at_ms: int) -> object:
    properties: dict[str, object] = {"category": event.category, "product_id": event.product}
    if event.campaign:
        properties["campaign_id"] = event.campaign
    if event.order_id is not None:
        total = f"{event.cents // 100}.{event.cents % 100:02}"
        properties |= {"order_id": event.order_id, "total": total, "currency": event.currency}
    is_view = event.name in ("page", "identify")
    clear: dict[str, object] = {"properties": properties}
    if event.words:
        words = dict(event.words)
        device = {"device": {"type": words.pop("device")}} if "device" in words else {}
        clear["context"] = words | device
    if event.traits:
        clear["traits"] = dict(event.traits)
    return make_event(
        event_id=event_id,
        type=event.name if is_view else "track",
        event="" if is_view else event.name,
        occurred_at_ms=event.occurred_at_ms,
        received_at_ms=arrives_at_ms,
        clear=clear,
        traits=[SealedTrait(b"k" * 8, b"sealed")] if event.traits else [],
    )


@pytest.mark.parametrize("seed", range(50))
def test_membership_at_any_moment_is_what_all_facts_say(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    if seed % 5 == 0:  # what was worked out is forgotten all the time
        monkeypatch.setattr(segment_tables, "MOST_ROWS", 5)
    if seed % 5 == 1:  # each by itself, and those that ask more by none
        monkeypatch.setattr(segment_tables, "MOST_COMPARISONS", 2)
    for _stream in range(3):
        segments = random_segments(chance)
        compiled = compile_segments(segments, BASES, MEASURES)
        lane = LaneOfOne(compiled, Person(b"p" * 16), Memory(30 * DAY_MS))
        lane.look(START_MS)
        events: list[Happened] = []
        consents: list[Consent] = []
        arrivals = [chance.randrange(SPAN_MS) for _ in range(chance.randint(0, 25))]
        asked = [chance.randrange(SPAN_MS * 2) for _ in range(ASKED)]
        sent: list[tuple[object, Happened]] = []
        for at_ms, is_arrival in sorted(
            [(START_MS + at, True) for at in arrivals] + [(START_MS + at, False) for at in asked]
        ):
            lane.until(at_ms)
            if is_arrival:
                arrive(chance, lane, events, consents, sent, at_ms)
            elif chance.random() < 0.1:
                lane.restart()
            expected = members(segments, events, consents, at_ms)
            assert lane.members == expected, [each.to_json() for each in segments]


def arrive(
    chance: random.Random,
    lane: LaneOfOne,
    events: list[Happened],
    consents: list[Consent],
    sent: list[tuple[object, Happened]],
    at_ms: int,
) -> None:
    """An event, the copy of one, or a decision, to the lane and to the truth."""
    if chance.random() < 0.2:
        decision = random_consent(chance, at_ms)
        consents.append(decision)
        lane.person.consents.append(decision)
        lane.person.decided = lane.person.settled = None
    elif sent and chance.random() < 0.25:
        copy, _ = chance.choice(sent)
        assert isinstance(admit(copy, lane.person, lane.memory, RULES), Duplicate)  # type: ignore[arg-type]
    else:
        event = random_event(chance, at_ms)
        record = told(event, chance.randbytes(16), at_ms)
        may = allows(
            BASES["personalisation"],
            decisions_on("purpose/personalisation", consents),
            event.occurred_at_ms,
            at_ms,
        )
        assert isinstance(admit(record, lane.person, lane.memory, RULES), Admitted)  # type: ignore[arg-type]
        events.append(replace(event, may_profile=may))
        sent.append((record, event))
    lane.look(at_ms)


def viewed(*days: float) -> Person:
    """Somebody who viewed products so many days after the start."""
    person, memory = Person(b"p" * 16), Memory(30 * DAY_MS)
    for number, day in enumerate(days):
        at_ms = START_MS + int(day * DAY_MS)
        event = told(Happened("Product Viewed", at_ms), bytes([number]) * 16, at_ms)
        assert isinstance(admit(event, person, memory, RULES), Admitted)  # type: ignore[arg-type]
    return person


IN_IT = frozenset({"s"})


def asks(condition: dict[str, object]) -> Compiled:
    return compile_segments(parse_segments([{"id": "s", "condition": condition}]), BASES)


def test_window_is_left_at_its_edge_and_not_before() -> None:
    compiled = asks({"event": "Product Viewed", "within_days": 7, "at_least": 2})
    person = viewed(0, 1, 2)
    found, next_ms = compiled.evaluate(person, START_MS + 2 * DAY_MS)
    assert (found, next_ms) == (IN_IT, START_MS + 8 * DAY_MS)
    assert next_ms is not None
    assert compiled.evaluate(person, next_ms - 1) == (IN_IT, next_ms)
    assert compiled.evaluate(person, next_ms) == (frozenset(), None)


def test_favourite_changes_when_what_made_it_is_forgotten_and_nobody_is_woken_before() -> None:
    person, memory = Person(b"p" * 16), Memory(30 * DAY_MS)
    for day, category in enumerate(("shoes", "shoes", "books", "shoes", "books")):
        at_ms = START_MS + day * DAY_MS
        event = told(Happened("Product Viewed", at_ms, category), bytes([day]) * 16, at_ms)
        assert isinstance(admit(event, person, memory, RULES), Admitted)  # type: ignore[arg-type]
    segments = parse_segments(
        [{"id": "s", "condition": {"computed": "favourite_category", "is": "shoes"}}]
    )
    compiled = compile_segments(segments, BASES, MEASURES)
    kept_ms = MEASURES.history_days * DAY_MS
    now_ms = START_MS + 4 * DAY_MS
    # Once the first of three shoes is forgotten, the books are as many, and were met last.
    assert compiled.evaluate(person, now_ms) == (IN_IT, START_MS + kept_ms)
    found, next_ms = compiled.evaluate(person, START_MS + kept_ms)
    # That shoes become fewer helps the books: only when one of these goes may it change again.
    assert (found, next_ms) == (frozenset(), START_MS + 2 * DAY_MS + kept_ms)


def test_score_of_recency_falls_on_its_day() -> None:
    person = viewed(0)
    order = Happened("Order Completed", START_MS, order_id=1, cents=500, currency="EUR")
    event = told(order, b"o" * 16, START_MS)
    assert isinstance(admit(event, person, Memory(DAY_MS), RULES), Admitted)  # type: ignore[arg-type]
    compiled = asks({"computed": "recency", "at_least": 4})
    falls_ms = START_MS + 31 * DAY_MS
    assert compiled.evaluate(person, START_MS) == (IN_IT, falls_ms)
    assert compiled.evaluate(person, falls_ms - 1) == (IN_IT, falls_ms)
    assert compiled.evaluate(person, falls_ms) == (frozenset(), None)
    # An order that a clock ahead of ours told of is of today.
    assert compiled.evaluate(person, START_MS - HOUR_MS) == (IN_IT, falls_ms)


def test_nobody_is_woken_while_time_alone_changes_nothing() -> None:
    absent = asks({"event": "Order Completed", "within_days": 7})
    assert absent.evaluate(viewed(0), START_MS) == (frozenset(), None)
    counted = asks({"computed": "orders", "at_least": 2})
    assert counted.evaluate(viewed(0), START_MS) == (frozenset(), None)


def test_only_what_decides_sets_the_time_to_look_again() -> None:
    viewed_lately = {"event": "Product Viewed", "within_days": 1}
    both = asks({"all": [viewed_lately, {"computed": "orders", "at_least": 1}]})
    assert both.evaluate(viewed(0), START_MS) == (frozenset(), None)
    either = asks({"any": [viewed_lately, {"computed": "orders", "at_least": 1}]})
    assert either.evaluate(viewed(0), START_MS) == (IN_IT, START_MS + DAY_MS)


def test_whoever_objected_is_in_none_until_they_grant_again() -> None:
    person = viewed(0)
    compiled = asks({"computed": "events", "at_least": 1})
    person.consents = [Consent("purpose/personalisation", "withdrawn", START_MS, None, START_MS)]
    assert compiled.evaluate(person, START_MS) == (frozenset(), None)
    back_ms = START_MS + DAY_MS
    person.consents.append(Consent("purpose/personalisation", "granted", back_ms, None, START_MS))
    assert compiled.evaluate(person, START_MS) == (frozenset(), back_ms)
    assert compiled.evaluate(person, back_ms) == (IN_IT, None)


def test_what_happened_while_they_objected_counts_in_no_window_later() -> None:
    person = viewed(0)
    withdrawn = Consent("purpose/personalisation", "withdrawn", START_MS + 1, None, START_MS + 1)
    person.consents = [withdrawn]
    seen_ms = START_MS + HOUR_MS
    event = told(Happened("page", seen_ms), b"q" * 16, seen_ms)
    assert isinstance(admit(event, person, Memory(DAY_MS), RULES), Admitted)  # type: ignore[arg-type]
    back_ms = START_MS + 2 * HOUR_MS
    person.consents.append(Consent(withdrawn.subject_of, "granted", back_ms, None, back_ms))
    for count, holds in ((1, True), (2, False)):
        compiled = asks({"computed": "events", "within_days": 1, "at_least": count})
        assert (compiled.evaluate(person, back_ms)[0] == IN_IT) is holds


def test_where_the_basis_is_consent_unknown_means_no() -> None:
    segments = parse_segments([{"id": "s", "condition": {"computed": "events", "at_least": 1}}])
    compiled = compile_segments(segments, {"personalisation": "consent"})
    assert compiled.evaluate(viewed(0), START_MS) == (frozenset(), None)
    person = viewed(0)
    person.consents = [Consent("purpose/personalisation", "granted", START_MS, None, START_MS)]
    assert compiled.evaluate(person, START_MS)[0] == {"s"}


def test_reference_finds_members_and_absentees_in_these_streams() -> None:
    """Else the test above would compare nothing with nothing."""
    found: list[bool] = []
    for seed in range(50):
        chance = random.Random(seed)
        segments: Sequence[Segment] = random_segments(chance)
        events = [random_event(chance, START_MS) for _ in range(12)]
        found += [each.id in members(segments, events, [], START_MS) for each in segments]
    assert 0.2 < sum(found) / len(found) < 0.8
