"""Does a person add up to the same whatever order events arrive in?"""

import random

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.activity import TIE_BYTES
from schemas.events import Collected, SealedTrait
from schemas.subjects import NOT_BY_TOUCH, Subject, Trait
from streams.rules.admit import Rules, admit
from streams.rules.deduplicate import Memory
from streams.rules.fold import fold_order, order_key
from streams.rules.gate import Gate
from streams.rules.outcomes import Admitted
from streams.rules.person import Person, person_to_subject
from streams.rules.validate import Money
from tests.stream_log import GAP_MS, ORDER, START_MS, make_event

RULES = Rules(Gate(counts=True, profiles=True), GAP_MS)
CURRENCIES = ("EUR", "usd", "JPY")


def order_money(order_id: int) -> dict[str, object]:
    """The money of an order: the same each time the order is stated."""
    return {"total": f"{order_id * 171}.{order_id * 13:02}", "currency": CURRENCIES[order_id % 3]}


CONTEXTS = st.fixed_dictionaries(
    {},
    optional={
        "country": st.sampled_from(["CZ", "DE", "Bohemia", 7]),
        "device": st.sampled_from([{"type": "mobile"}, {"type": "toaster"}, {}, "phone"]),
        "channel": st.sampled_from(["email", "referral", "word of mouth"]),
        "timezone": st.sampled_from(["Europe/Prague", "localtime"]),
    },
)
WORDS = {"CZ", "DE", "mobile", "email", "referral", "Europe/Prague"}


@st.composite
def events(draw: st.DrawFn) -> list[Collected]:
    """Distinct events of one person: pages, orders (some stated twice), refunds, traits, e-mails."""
    numbers = draw(st.lists(st.integers(0, 255), unique=True, max_size=20))
    made = []
    for number in numbers:
        kind = draw(st.sampled_from(["page", "identify", ORDER, "Order Refunded", "Email Opened"]))
        properties: dict[str, object] = {"campaign_id": draw(st.sampled_from("abc"))}
        if kind in (ORDER, "Order Refunded"):
            order_id = draw(st.integers(1, 6))
            properties |= {"order_id": order_id, **order_money(order_id)}
        names = draw(st.lists(st.sampled_from([b"k" * 8, b"l" * 8]), unique=True))
        made.append(
            make_event(
                event_id=bytes([number]) * 16,
                type=kind if kind in ("page", "identify") else "track",
                event="" if kind in ("page", "identify") else kind,
                occurred_at_ms=START_MS + draw(st.integers(0, 4)) * GAP_MS // 2,
                clear={"properties": properties, "context": draw(CONTEXTS)},
                traits=[SealedTrait(name, b"%d" % number) for name in names]
                if kind == "identify"
                else [],
            )
        )
    return made


def fold_all(arriving: list[Collected]) -> tuple[Person, list[Admitted]]:
    person, memory = Person(b"p" * 16), Memory(10**9)
    outcomes = [admit(event, person, memory, RULES) for event in arriving]
    assert all(isinstance(outcome, Admitted) for outcome in outcomes), outcomes
    return person, outcomes  # type: ignore[return-value]


def canonical(person: Person) -> dict[str, object]:
    """All that is known, without what only the order of arrival decides (order within lists)."""
    subject = person_to_subject(person)
    known = {name: getattr(subject, name) for name in Subject.__struct_fields__}
    for name in ("spent", "refunded", "traits"):
        known[name] = sorted(known[name], key=repr)
    known["activity"] = sorted(person.activity)
    # An order that was stated with two campaigns counts for the one that arrived first, and so do its
    # refunds, and visits that begin with one.
    refunds = {each.tie for each in person.purchases if each.is_refund}
    known["visits"] = [(v.started_at_ms, v.ended_at_ms, v.first_id) for v in person.visits]
    known["visit_campaigns"] = [
        v.campaign_id for v in person.visits if v.first_id[:TIE_BYTES] not in refunds
    ]
    known["purchases"] = sorted(
        (each.is_refund, each.key, each.tie, each.occurred_at_ms, each.amount_micro, each.currency)
        for each in person.purchases
    )
    return known


@given(events())
def test_newest_word_of_each_circumstance_is_kept_and_no_other(arriving: list[Collected]) -> None:
    person, _ = fold_all(arriving)
    expected: dict[str, str] = {}
    for event in sorted(arriving, key=lambda each: (each.occurred_at_ms, each.event_id)):
        context = orjson.loads(event.clear)["context"]
        if isinstance(context.get("device"), dict):
            context["device"] = context["device"].get("type")
        if event.event != "Email Opened":
            expected |= {name: value for name, value in context.items() if value in WORDS}
    assert {name: seen[2] for name, seen in person.circumstances.items()} == expected


def test_of_what_happens_to_a_mailbox_a_click_alone_is_the_person_s() -> None:
    for name, kept in (("Email Sent", 0), ("Email Opened", 0), ("Email Link Clicked", 1)):
        made = make_event(type="track", event=name, clear={"context": {"channel": "email"}})
        assert len(fold_all([made])[0].circumstances) == kept


def test_without_personalisation_no_circumstance_is_kept() -> None:
    made = make_event(clear={"context": {"country": "CZ"}})
    person = Person(b"p" * 16)
    rules = Rules(Gate(counts=True, profiles=False), GAP_MS)
    assert isinstance(admit(made, person, Memory(10**9), rules), Admitted)
    assert person.circumstances == {}


@given(events(), st.randoms(use_true_random=False))
def test_order_of_arrival_changes_nothing(arriving: list[Collected], chance: random.Random) -> None:
    person, outcomes = fold_all(arriving)
    shuffled = arriving[:]
    chance.shuffle(shuffled)
    other, other_outcomes = fold_all(shuffled)
    assert canonical(person) == canonical(other)
    assert sum(each.is_repeat_order for each in outcomes) == sum(
        each.is_repeat_order for each in other_outcomes
    )


@given(events())
def test_person_equals_a_recount(arriving: list[Collected]) -> None:
    person, outcomes = fold_all(arriving)
    stamps = [event.occurred_at_ms for event in arriving]
    assert person.events == len(arriving)
    if stamps:
        assert (person.first_seen_ms, person.last_seen_ms) == (min(stamps), max(stamps))
    orders = [event for event in arriving if event.event == ORDER]
    order_ids = {event.clear for event in orders}
    distinct = {clear.split(b'"order_id":')[1].split(b",")[0] for clear in order_ids}
    assert person.orders == len(distinct) == len(person.order_keys)
    assert sum(each.is_repeat_order for each in outcomes) == len(orders) - len(distinct)
    assert person.refunds == sum(event.event == "Order Refunded" for event in arriving)
    expected: dict[str, int] = {}
    for order_id in distinct:
        money = order_money(int(order_id))
        currency = str(money["currency"]).upper()
        cents = int(str(money["total"]).replace(".", ""))
        expected[currency] = expected.get(currency, 0) + cents * 10_000
    assert person.spent == expected
    newest: dict[bytes, Trait] = {}
    for event in sorted(arriving, key=lambda each: (each.occurred_at_ms, each.event_id)):
        for trait in event.traits:
            stamp = (event.occurred_at_ms, event.event_id)
            newest[trait.key] = Trait(trait.key, *stamp, trait.sealed)
    assert person.traits == newest


@pytest.mark.parametrize("order_id", [None, ""])
def test_orders_without_an_id_are_orders_of_their_own(order_id: str | None) -> None:
    person, key = Person(b"p" * 16), order_key(order_id)
    for _ in range(3):
        assert not fold_order(person, make_event(), key, Money(5, "EUR"), "c", NOT_BY_TOUCH)
    assert person.orders == 3
    assert person.spent == {"EUR": 15}


def test_order_id_is_the_same_as_number_and_as_text() -> None:
    person = Person(b"p" * 16)
    repeats = [
        fold_order(person, make_event(), order_key(order_id), None, "c", NOT_BY_TOUCH)
        for order_id in (42, "42", 0, "0")
    ]
    assert repeats == [False, True, False, True]


def test_order_without_money_counts_as_an_order() -> None:
    person, [outcome] = fold_all([make_event(event=ORDER)])
    assert (person.orders, person.spent) == (1, {})
    assert outcome.amount_micro is None
    assert outcome.currency == ""
