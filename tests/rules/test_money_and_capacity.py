"""Is the money of an order read as stated, and does a person never outgrow its record?"""

from typing import Any

import pytest

from schemas.events import Collected, SealedTrait
from streams.rules.admit import Rules, admit
from streams.rules.capacity import FULL, FULL_BYTES, MOST_MICRO, MOST_VISITS
from streams.rules.deduplicate import Memory
from streams.rules.gate import Gate
from streams.rules.outcomes import Admitted, Refused
from streams.rules.person import Person, Visit, read_person
from streams.rules.validate import LONGEST_CAMPAIGN
from streams.rules.written_person import write_person
from tests.stream_log import GAP_MS, ORDER, START_MS, make_event

RULES = Rules(Gate(counts=True, profiles=True), GAP_MS)


def person() -> Person:
    return Person(b"p" * 16)


def memory() -> Memory:
    return Memory(10**9)


def decide(event: Collected) -> Any:
    return admit(event, person(), memory(), RULES)


def order(**properties: object) -> Collected:
    return make_event(event=ORDER, clear={"properties": properties})


@pytest.mark.parametrize("event", [ORDER, "Order Refunded"])
@pytest.mark.parametrize(
    ("properties", "micro"),
    [
        ({"total": 19.99, "revenue": 5, "value": 4}, 19_990_000),
        ({"revenue": "5.5", "value": 4}, 5_500_000),
        ({"value": 4}, 4_000_000),
        ({"total": 0, "revenue": 5}, 0),
        ({"total": None, "revenue": 5}, 5_000_000),
    ],
)
def test_money_is_the_first_that_is_stated(
    event: str, properties: dict[str, Any], micro: int
) -> None:
    properties = {**properties, "currency": "eur"}
    outcome = decide(make_event(event=event, clear={"properties": properties}))
    assert (outcome.amount_micro, outcome.currency) == (micro, "EUR")


@pytest.mark.parametrize("event", [ORDER, "Order Refunded"])
def test_event_without_money_has_none(event: str) -> None:
    outcome = decide(make_event(event=event, clear={"properties": {"currency": "EUR"}}))
    assert (outcome.amount_micro, outcome.currency) == (None, "")


@pytest.mark.parametrize(
    ("properties", "path", "reason"),
    [
        ({"total": "a lot", "currency": "EUR"}, "$.properties.total", "wrong_money"),
        ({"total": -0.01, "currency": "EUR"}, "$.properties.total", "wrong_money"),
        ({"revenue": 10**12, "currency": "EUR"}, "$.properties.revenue", "wrong_money"),
        ({"value": True, "currency": "EUR"}, "$.properties.value", "wrong_money"),
        ({"value": "", "revenue": 1}, "$.properties.currency", "wrong_currency"),
        ({"total": "", "currency": "EUR"}, "$.properties.total", "wrong_money"),
        ({"total": 1}, "$.properties.currency", "wrong_currency"),
        ({"total": 1, "currency": "EURO"}, "$.properties.currency", "wrong_currency"),
        ({"total": 1, "currency": "E1R"}, "$.properties.currency", "wrong_currency"),
        ({"total": 1, "currency": "ßßß"}, "$.properties.currency", "wrong_currency"),
        ({"total": 1, "currency": "ııı"}, "$.properties.currency", "wrong_currency"),
        ({"total": 1, "currency": 978}, "$.properties.currency", "wrong_currency"),
    ],
)
def test_wrong_money_refuses_the_order_and_it_may_come_again(
    properties: dict[str, Any], path: str, reason: str
) -> None:
    event, known, seen = order(**properties), person(), memory()
    for _ in range(2):
        outcome = admit(event, known, seen, RULES)
        assert isinstance(outcome, Refused)
        assert (outcome.path, outcome.reason) == (path, reason)
    assert known.orders == 0


def test_wrong_money_of_other_events_is_nobodys_business() -> None:
    event = make_event(event="Product Viewed", clear={"properties": {"total": "a lot"}})
    assert isinstance(decide(event), Admitted)


def _grow(number: int) -> Collected:
    """An event that adds as much to its person as one can of each kind."""
    properties = {
        "campaign_id": chr(0x1F600 + number % 60) * LONGEST_CAMPAIGN,
        "order_id": number,
        "total": 1,
        "currency": "EUR",
    }
    return make_event(
        event=ORDER,
        occurred_at_ms=START_MS + number * GAP_MS,
        traits=[SealedTrait(number.to_bytes(8, "big"), bytes(20_000))],
        clear={"properties": properties},
    )


def test_person_that_is_full_takes_no_more_however_long_it_is_not_written() -> None:
    known, seen = person(), memory()
    outcomes = [admit(_grow(number), known, seen, RULES) for number in range(200)]
    counted = sum(isinstance(outcome, Admitted) for outcome in outcomes)
    assert outcomes[counted:] == [FULL] * (200 - counted)
    assert 0 < known.events == counted < 100
    estimated = known.size
    assert FULL_BYTES / 3 < len(write_person(known)) == known.size <= estimated
    assert known.size < FULL_BYTES + 30_000


def test_trait_that_changes_often_takes_its_room_once() -> None:
    known, seen = person(), memory()
    for number in range(200):
        event = make_event(
            type="identify",
            occurred_at_ms=START_MS + number,
            traits=[SealedTrait(b"k" * 8, bytes(20_000))],
        )
        assert isinstance(admit(event, known, seen, RULES), Admitted)
    assert known.size < 21_000


def test_room_is_the_same_after_a_restart() -> None:
    known, seen = person(), memory()
    for number in range(200):
        admit(_grow(number), known, seen, RULES)
        known = read_person(write_person(known))
    assert FULL_BYTES <= known.size < FULL_BYTES + 30_000
    assert admit(make_event(), known, seen, RULES) is FULL


def test_visits_stay_within_their_16_bit_index() -> None:
    known = person()
    visit = Visit(START_MS, START_MS, bytes(16), "c")
    known.visits = [visit] * MOST_VISITS
    assert admit(make_event(), known, memory(), RULES) is FULL


@pytest.mark.parametrize("event", [ORDER, "Order Refunded"])
def test_sums_stay_within_64_bits(event: str) -> None:
    known, seen = person(), memory()
    properties = {"total": "999999999999.999999", "currency": "EUR"}
    outcomes = [
        admit(make_event(event=event, clear={"properties": properties}), known, seen, RULES)
        for _ in range(12)
    ]
    assert [outcome is FULL for outcome in outcomes] == [False] * 9 + [True] * 3
    assert max(known.spent.get("EUR", 0), known.refunded.get("EUR", 0)) <= MOST_MICRO
