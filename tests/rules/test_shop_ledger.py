"""Does the ledger keep CONTRACT's definitions, and see every tampered number?"""

import copy
from collections.abc import Callable
from decimal import Decimal
from random import Random
from typing import Any

import pytest

from producers.rules.shop_ledger import COUNTERS, Ledger, Moment, Note
from producers.rules.shop_traffic import shop_calls

MINUTE_MS = 60_000
Answer = dict[str, Any]


def ledger_of(*moments: Moment) -> Ledger:
    """A ledger of one person."""
    ledger = Ledger()
    for number, moment in enumerate(moments):
        ledger.note(Note(1, len(moments), f"m{number}", moment))
    return ledger


def counters(ledger: Ledger, campaign: str) -> dict[str, int]:
    found = ledger.expected()[campaign].counters
    return {counter: value for counter, value in found.items() if value}


def answer_of(ledger: Ledger) -> Answer:
    return {
        "as_of": "2026-09-21T14:13:20Z",
        "campaigns": [
            {
                "campaign_id": campaign,
                "counters": dict(numbers.counters),
                "rates": {"open_rate": None},
                **{
                    money_list: [
                        {"currency": currency, "amount": f"{amount.normalize():f}"}
                        for currency, amount in amounts.items()
                    ]
                    for money_list, amounts in numbers.money.items()
                },
            }
            for campaign, numbers in ledger.expected().items()
        ],
    }


@pytest.mark.parametrize(("gap_ms", "visits"), [(30 * MINUTE_MS - 1, 1), (30 * MINUTE_MS, 2)])
def test_a_visit_ends_after_thirty_minutes_without_an_event(gap_ms: int, visits: int) -> None:
    ledger = ledger_of(Moment("page", gap_ms), Moment("page", 0))
    assert counters(ledger, "(none)")["visits"] == visits


def test_a_visit_counts_for_the_campaign_of_its_first_event() -> None:
    ledger = ledger_of(Moment("page", 10, "b"), Moment("page", 5, "a"))
    assert counters(ledger, "a") == {"page_views": 1, "visits": 1, "visitors": 1}
    assert counters(ledger, "b") == {"page_views": 1, "visitors": 1}


def test_an_email_event_is_no_part_of_a_visit() -> None:
    ledger = ledger_of(
        Moment("page", 0, "a"),
        Moment("Email Link Clicked", 20 * MINUTE_MS, "a"),
        Moment("page", 40 * MINUTE_MS, "a"),
    )
    assert counters(ledger, "a")["visits"] == 2


def test_an_identify_is_an_event_of_a_visit() -> None:
    assert counters(ledger_of(Moment("identify", 0)), "(none)") == {"visits": 1, "visitors": 1}


def test_machine_opens_are_no_opens() -> None:
    ledger = ledger_of(
        Moment("Email Opened", 0, "a", by_machine=True),
        Moment("Email Opened", 1, "a"),
        Moment("Email Opened", 2, "a"),
    )
    assert counters(ledger, "a") == {"machine_opened": 1, "opened": 2, "unique_opened": 1}


def test_an_order_told_twice_counts_once_and_finer_money_is_rounded() -> None:
    told = [
        Moment("Order Completed", at_ms, "a", "o1", Decimal("9.9900008"), "EUR")
        for at_ms in (0, 1000)
    ]
    ledger = ledger_of(*told, Moment("Order Refunded", 2000, "a", "o1", Decimal(2), "EUR"))
    expected = ledger.expected()["a"]
    assert (expected.counters["orders"], expected.counters["buyers"]) == (1, 1)
    assert expected.money == {
        "revenue": {"EUR": Decimal("9.990001")},
        "refunded": {"EUR": Decimal(2)},
    }


def test_copies_and_broken_calls_are_known_numbers_and_nothing_else() -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger.note(Note(1, 4, "m1", Moment("page", 0)))
    ledger.note(Note(1, 4, "m2", broken_because="no type"))
    assert (ledger.sent, ledger.duplicates, ledger.accepted) == (4, 2, 1)
    assert dict(ledger.rejected) == {"no type": 1}
    assert counters(ledger, "(none)")["page_views"] == 1


def test_the_order_of_notes_changes_no_number() -> None:
    notes = [call.note for call in shop_calls(9, 1500, 1_790_000_000_000)]
    ledgers = []
    for shuffle_seed in range(3):
        Random(shuffle_seed).shuffle(notes)
        ledger = Ledger()
        for note in notes:
            ledger.note(note)
        ledgers.append(ledger)
    assert ledgers[0].expected() == ledgers[1].expected() == ledgers[2].expected()
    assert ledgers[0].duplicates == ledgers[2].duplicates


@pytest.fixture(scope="module")
def shop_ledger() -> Ledger:
    ledger = Ledger()
    for call in shop_calls(1, 3000, 1_790_000_000_000):
        ledger.note(call.note)
    return ledger


def test_an_equal_answer_has_no_differences(shop_ledger: Ledger) -> None:
    answer = answer_of(shop_ledger)
    assert shop_ledger.differences(answer) == []
    answer["campaigns"].reverse()
    answer["campaigns"][0]["counters"]["withheld"] = 7  # a counter that a later version adds
    answer["campaigns"][0]["revenue"].append({"currency": "CHF", "amount": "0"})
    assert shop_ledger.differences(answer) == []


@pytest.mark.parametrize("counter", COUNTERS)
def test_every_changed_counter_is_named(shop_ledger: Ledger, counter: str) -> None:
    answer = answer_of(shop_ledger)
    shown = next(c for c in answer["campaigns"] if c["campaign_id"] == "win-back")
    value = shown["counters"][counter]
    shown["counters"][counter] = value + 1
    assert shop_ledger.differences(answer) == [
        f"win-back: {counter}: expected {value}, found {value + 1}"
    ]


def _drop_campaign(answer: Answer) -> None:
    answer["campaigns"] = [c for c in answer["campaigns"] if c["campaign_id"] != "win-back"]


def _add_campaign(answer: Answer) -> None:
    answer["campaigns"].append({"campaign_id": "Win back", "counters": {}, "revenue": []})


def _list_twice(answer: Answer) -> None:
    answer["campaigns"].append(copy.deepcopy(answer["campaigns"][-1]))


def _drop_counter(answer: Answer) -> None:
    del answer["campaigns"][-1]["counters"]["delivered"]


def _change_amount(answer: Answer) -> None:
    entry = answer["campaigns"][-1]["revenue"][0]
    entry["amount"] = str(Decimal(entry["amount"]) + Decimal("0.000001"))


def _drop_currency(answer: Answer) -> None:
    del answer["campaigns"][-1]["revenue"][0]


def _split_currency(answer: Answer) -> None:
    answer["campaigns"][-1]["revenue"] *= 2


def _spoil_amount(answer: Answer) -> None:
    answer["campaigns"][-1]["revenue"][0]["amount"] = "a lot"


def _drop_refunded(answer: Answer) -> None:
    for shown in answer["campaigns"]:
        del shown["refunded"]


def _drop_everything(answer: Answer) -> None:
    answer.clear()


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (_drop_campaign, "win-back: expected, but missing"),
        (_add_campaign, "Win back: a campaign that the shop never ran"),
        (_list_twice, "win-back: listed twice"),
        (_drop_counter, "win-back: delivered: expected "),
        (_change_amount, "win-back: revenue: "),
        (_drop_currency, "win-back: revenue: "),
        (_split_currency, "listed twice"),
        (_spoil_amount, "not decimal"),
        (_drop_refunded, "refunded"),
        (_drop_everything, "campaigns: expected a list"),
    ],
)
def test_every_tampering_is_told(
    shop_ledger: Ledger, tamper: Callable[[Answer], None], words: str
) -> None:
    answer = answer_of(shop_ledger)
    tamper(answer)
    assert any(words in line for line in shop_ledger.differences(answer))


def test_an_empty_none_may_be_listed() -> None:
    ledger = ledger_of(Moment("page", 0, "a"))
    answer = answer_of(ledger)
    answer["campaigns"].append({"campaign_id": "(none)", "counters": {"visits": 0}, "revenue": []})
    assert ledger.differences(answer) == []
    answer["campaigns"][-1]["counters"]["visits"] = 1
    assert ledger.differences(answer) == ["(none): a campaign that the shop never ran"]
