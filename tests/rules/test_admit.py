"""How does each kind of event end, and what does it change?"""

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import ACCEPTED, COLLECTED, HEADER_BYTES
from schemas.events import (
    BY_NAME,
    BY_ORDER,
    BY_TOUCH,
    NO_CAMPAIGN,
    Accepted,
    Collected,
    VisitChange,
)
from schemas.subjects import Consent
from schemas.varints import write_long
from streams.collected_to_accepted import _tail
from streams.rules.admit import Rules, admit
from streams.rules.deduplicate import Memory
from streams.rules.enrich import campaign_of
from streams.rules.fold import fold_times
from streams.rules.gate import Gate, gate_from_bases, may_take_back
from streams.rules.outcomes import DUPLICATE, ERASED, Admitted, Refused, Withheld
from streams.rules.person import Person, person_to_subject
from streams.rules.validate import LATEST_MS, LONGEST_CAMPAIGN, Clear, validate
from tests.stream_log import GAP_MS, ORDER, START_MS, make_event

RULES = Rules(Gate(counts=True, profiles=True), GAP_MS)


def person() -> Person:
    return Person(b"p" * 16)


def memory() -> Memory:
    return Memory(10**9)


def decide(event: Collected, rules: Rules = RULES) -> Any:
    return admit(event, person(), memory(), rules)


def order(**properties: object) -> Collected:
    return make_event(event=ORDER, clear={"properties": properties})


def test_page_view_is_admitted_and_begins_a_visit() -> None:
    event = make_event(clear={"properties": {"campaign_id": "spring"}})
    assert decide(event) == Admitted(
        "spring", False, None, "", [VisitChange("spring", START_MS, 1)]
    )


@pytest.mark.parametrize("type_", ["track", "identify", "page", "screen", "group", "alias"])
def test_every_type_of_call_is_admitted(type_: str) -> None:
    assert isinstance(decide(make_event(type=type_)), Admitted)


@pytest.mark.parametrize(
    "event",
    [
        "Email Sent",
        "Email Delivered",
        "Email Bounced",
        "Email Marked as Spam",
        "Email Suppressed",
        "Email Opened",
        "Email Link Clicked",
        "Unsubscribed",
    ],
)
def test_email_events_make_no_visit(event: str) -> None:
    known = person()
    outcome = admit(make_event(event=event), known, memory(), RULES)
    assert outcome == Admitted(NO_CAMPAIGN, False, None, "", [], BY_TOUCH)
    assert known.events == 1
    assert known.visits == []


@pytest.mark.parametrize(
    ("changes", "path", "reason"),
    [
        ({"type": "purchase"}, "$.type", "unknown_type"),
        ({"type": ""}, "$.type", "unknown_type"),
        ({"occurred_at_ms": -1}, "$.occurred_at_ms", "time_out_of_range"),
        ({"occurred_at_ms": LATEST_MS}, "$.occurred_at_ms", "time_out_of_range"),
        ({"received_at_ms": -1}, "$.occurred_at_ms", "time_out_of_range"),
        ({"received_at_ms": LATEST_MS}, "$.occurred_at_ms", "time_out_of_range"),
        ({"clear": b""}, "$.clear", "wrong_clear_json"),
        ({"clear": b"null"}, "$.clear", "wrong_clear_json"),
        ({"clear": b"[]"}, "$.clear", "wrong_clear_json"),
        ({"clear": b"{} {}"}, "$.clear", "wrong_clear_json"),
        ({"clear": b'{"properties":7}'}, "$.clear", "wrong_clear_json"),
        ({"clear": b'{"properties":{"campaign_id":{}}}'}, "$.clear", "wrong_clear_json"),
        ({"clear": b'{"properties":{"total":NaN}}'}, "$.clear", "wrong_clear_json"),
        ({"clear": b'{"properties":{"total":1e400}}'}, "$.clear", "wrong_clear_json"),
        ({"clear": b'{"properties":{"currency":"\xff"}}'}, "$.clear", "wrong_clear_json"),
        (
            {"event": "Email Opened", "clear": b'{"properties":{"machine":true,"x":"\\ud800"}}'},
            "$.clear",
            "wrong_clear_json",
        ),
        ({"clear": b'{"properties":{"order_id":"\\ud800"}}'}, "$.clear", "wrong_clear_json"),
        ({"clear": b'{"x":' + b"[" * 100_000}, "$.clear", "wrong_clear_json"),
        ({"clear": b'{"x":' + b'{"x":' * 100_000}, "$.clear", "wrong_clear_json"),
        ({"clear": b'{"properties":{"order_id":1' + b"0" * 5_000 + b"}}"}, "$.clear", None),
        (
            {"clear": {"properties": {"campaign_id": "c" * (LONGEST_CAMPAIGN + 1)}}},
            "$.campaign",
            "campaign_too_long",
        ),
    ],
)
def test_unusable_event_is_refused_and_changes_nothing(
    changes: dict[str, Any], path: str, reason: str | None
) -> None:
    event, known, seen = make_event(**changes), person(), memory()
    before = person_to_subject(known)
    outcome = admit(event, known, seen, RULES)
    assert isinstance(outcome, Refused)
    assert (outcome.path, outcome.reason) == (path, reason or "wrong_clear_json")
    assert person_to_subject(known) == before
    assert len(seen) == 0


@pytest.mark.parametrize("occurred_at_ms", [0, 1, LATEST_MS - 1])
def test_time_may_be_any_from_1970_to_2099(occurred_at_ms: int) -> None:
    assert isinstance(decide(make_event(occurred_at_ms=occurred_at_ms)), Admitted)


@given(st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode()))
def test_any_clear_bytes_are_read_or_refused(clear: bytes) -> None:
    assert isinstance(validate(make_event(clear=clear)), Clear | Refused)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
names = st.sampled_from(
    ["campaign_id", "campaign_name", "order_id", "currency", "total", "revenue", "value", "x"]
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(names, json_values, max_size=6),
            "context": st.fixed_dictionaries(
                {},
                optional={
                    "campaign": st.dictionaries(st.sampled_from(["id", "name"]), json_values)
                },
            ),
        },
    ),
    st.sampled_from([ORDER, "Order Refunded", "Product Viewed", "Email Opened"]),
)
def test_any_event_is_admitted_or_refused_and_can_be_written(
    clear: dict[str, Any], name: str
) -> None:
    event = make_event(event=name, clear=msgspec.json.encode(clear))
    outcome = decide(event)
    assert isinstance(outcome, Admitted | Refused)
    if isinstance(outcome, Admitted):
        assert _tail(outcome, b"", 1, 1)


def campaign(properties: dict[str, Any] | None, context: dict[str, Any] | None) -> str:
    clear = {"properties": properties, "context": context and {"campaign": context}}
    return campaign_of(msgspec.convert(clear, Clear))


@pytest.mark.parametrize(
    ("properties", "context", "expected"),
    [
        ({"campaign_id": "1", "campaign_name": "4"}, {"id": "2", "name": "3"}, "1"),
        ({"campaign_name": "4"}, {"id": "2", "name": "3"}, "2"),
        ({"campaign_name": "4"}, {"name": "3"}, "3"),
        ({"campaign_name": "4"}, {}, "4"),
        ({"campaign_name": "4"}, None, "4"),
        ({}, {}, NO_CAMPAIGN),
        (None, None, NO_CAMPAIGN),
        ({"campaign_id": None}, {"id": None, "name": "3"}, "3"),
        ({"campaign_id": ""}, {"id": "", "name": ""}, NO_CAMPAIGN),
        ({"campaign_id": "", "campaign_name": "4"}, {"id": ""}, "4"),
        ({"campaign_id": 42}, None, "42"),
        ({"campaign_id": 0}, {"id": "2"}, "0"),
        ({"campaign_id": " "}, None, " "),
    ],
)
def test_campaign_is_the_first_that_the_event_names(
    properties: dict[str, Any] | None, context: dict[str, Any] | None, expected: str
) -> None:
    assert campaign(properties, context) == expected


def test_longest_campaign_is_admitted() -> None:
    name = "é" * LONGEST_CAMPAIGN
    assert decide(make_event(clear={"properties": {"campaign_id": name}})).campaign_id == name


def test_resent_event_changes_nothing() -> None:
    event, known, seen = order(order_id=1, total=5, currency="EUR"), person(), memory()
    admit(event, known, seen, RULES)
    before = copy.deepcopy(person_to_subject(known))
    assert admit(event, known, seen, RULES) is DUPLICATE
    assert person_to_subject(known) == before


def test_repeated_order_is_told_and_adds_nothing() -> None:
    known, seen = person(), memory()
    outcomes = [
        admit(order(order_id=1, total=5, currency="EUR"), known, seen, RULES) for _ in range(2)
    ]
    assert [each.is_repeat_order for each in outcomes if isinstance(each, Admitted)] == [
        False,
        True,
    ]
    assert (known.orders, known.spent, known.events) == (1, {"EUR": 5_000_000}, 2)


def test_repeated_order_whose_first_call_was_before_records_had_purchases_adds_nothing() -> None:
    known, seen = person(), memory()
    admit(order(order_id=1, total=5, currency="EUR"), known, seen, RULES)
    known.purchases.clear()  # as read from subjects.3.avsc, which knows keys of orders alone
    again = admit(order(order_id=1, total=5, currency="EUR"), known, seen, RULES)
    assert isinstance(again, Admitted)
    assert again.is_repeat_order
    assert (known.orders, known.purchases) == (1, [])


@pytest.mark.parametrize(
    ("analytics", "personalisation", "gate"),
    [
        ("legitimate_interest", "legitimate_interest", Gate(counts=True, profiles=True)),
        ("consent", "legitimate_interest", Gate(counts=False, profiles=True)),
        ("legitimate_interest", "consent", Gate(counts=True, profiles=False)),
        ("consent", "consent", Gate(counts=False, profiles=False)),
    ],
)
def test_gate_follows_the_legal_bases(analytics: str, personalisation: str, gate: Gate) -> None:
    bases = {"analytics": analytics, "personalisation": personalisation}
    assert gate_from_bases(bases, late_grant_ms=0) == gate


def test_purpose_without_a_basis_is_not_allowed() -> None:
    assert gate_from_bases({}, late_grant_ms=5) == Gate(False, False, 5)


def test_without_analytics_nothing_is_used_but_a_resent_event_counts_once() -> None:
    rules = Rules(Gate(counts=False, profiles=True), GAP_MS)
    event, known, seen = order(order_id=1, total=5, currency="EUR"), person(), memory()
    before = person_to_subject(known)
    assert admit(event, known, seen, rules) == Withheld("analytics", "unknown")
    assert admit(event, known, seen, rules) is DUPLICATE
    assert person_to_subject(known) == before


def test_without_personalisation_events_count_but_no_profile_grows() -> None:
    rules = Rules(Gate(counts=True, profiles=False), GAP_MS)
    known, seen = person(), memory()
    for number in range(3):
        event = order(order_id=number, total=5, currency="EUR")
        assert isinstance(admit(event, known, seen, rules), Admitted)
    assert (known.orders, known.traits) == (3, {})


def test_erased_person_takes_nothing_in() -> None:
    known, seen = person(), memory()
    admit(order(order_id=1, total=5, currency="EUR"), known, seen, RULES)
    known.erase(START_MS)
    stub = person_to_subject(known)
    assert admit(make_event(), known, seen, RULES) is ERASED
    assert person_to_subject(known) == stub
    assert (stub.erased_at_ms, stub.events, stub.visits, stub.order_keys) == (START_MS, 0, b"", b"")


longs = st.integers(-(2**63), 2**63 - 1)
texts = st.text(max_size=40) | st.sampled_from(["", "(none)", "spring", "EUR"])
money = st.just((None, "")) | st.tuples(longs, texts)
outcomes = st.builds(
    lambda money, **fields: Admitted(amount_micro=money[0], currency=money[1], **fields),
    money=money,
    campaign_id=texts,
    is_repeat_order=st.booleans(),
    visit_changes=st.lists(
        st.builds(VisitChange, texts, longs, st.sampled_from([-1, 1])), max_size=3
    ),
    attributed_by=st.sampled_from([BY_NAME, BY_TOUCH, BY_ORDER]),
    moved=st.none(),
)


@given(outcomes, longs, st.integers(0, 2**31 - 1), st.binary(max_size=9000))
def test_spliced_record_equals_the_whole_one_written(
    outcome: Admitted, offset: int, index: int, sealed: bytes
) -> None:
    """Collected's bytes and the tail are what the compiled writer makes of the whole record."""
    event = make_event(sealed=sealed, clear={"properties": {"campaign_id": outcome.campaign_id}})
    found = msgspec.structs.asdict(outcome)
    del found["moved"]  # a record of its own
    whole = Accepted(
        **msgspec.structs.asdict(event),
        **found,
        generation=1,
        lane=3,
        seq=99,
        source_topic="events.collected",
        source_partition=3,
        source_offset=offset,
        index=index,
    )
    topic = b"events.collected"
    coordinates = b"".join(map(write_long, (1, 3, 99, len(topic)))) + topic + write_long(3)
    spliced = COLLECTED.encode(event)[HEADER_BYTES:] + _tail(outcome, coordinates, offset, index)
    assert ACCEPTED.header + spliced == ACCEPTED.encode(whole)
    assert ACCEPTED.decode(ACCEPTED.encode(whole)) == whole


def decided(status: str, valid_from_ms: int, recorded_at_ms: int, of: str = "analytics") -> Consent:
    return Consent(f"purpose/{of}", status, valid_from_ms, None, recorded_at_ms)


def test_decisions_are_read_by_the_stamps_of_the_event() -> None:
    rules, known, seen = Rules(Gate(counts=True, profiles=True), GAP_MS), person(), memory()
    known.consents = [decided("withdrawn", START_MS + 10, START_MS + 20)]
    in_time = make_event(event_id=b"1" * 16, occurred_at_ms=START_MS, received_at_ms=START_MS + 19)
    late = make_event(event_id=b"2" * 16, occurred_at_ms=START_MS, received_at_ms=START_MS + 20)
    after = make_event(event_id=b"3" * 16, occurred_at_ms=START_MS + 10, received_at_ms=START_MS)
    assert isinstance(admit(in_time, known, seen, rules), Admitted)
    assert admit(late, known, seen, rules) == Withheld("analytics", "refused")
    assert admit(after, known, seen, rules) == Withheld("analytics", "refused")


def test_where_unknown_means_no_a_grant_opens() -> None:
    rules, known, seen = Rules(Gate(counts=False, profiles=False), GAP_MS), person(), memory()
    event = make_event(event_id=b"1" * 16, occurred_at_ms=START_MS, received_at_ms=START_MS)
    assert admit(event, known, seen, rules) == Withheld("analytics", "unknown")
    known.consents = [decided("granted", START_MS, START_MS)]
    known.decided = None
    event = make_event(event_id=b"2" * 16, occurred_at_ms=START_MS, received_at_ms=START_MS)
    assert isinstance(admit(event, known, seen, rules), Admitted)


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (decided("withdrawn", START_MS, START_MS + 9), True),  # begins before the last event
        (decided("withdrawn", START_MS + 2, START_MS + 5), True),  # one may be received after it
        (decided("withdrawn", START_MS + 2, START_MS + 6), False),
        (decided("granted", START_MS, START_MS), False),
        (decided("withdrawn", START_MS, START_MS, of="sale"), False),
        (Consent("purpose/analytics", "denied", 0, START_MS, 0), False),  # over before the first
    ],
)
def test_what_can_take_nothing_back_is_not_told(decision: Consent, expected: bool) -> None:
    known = person()
    assert not may_take_back(known, decision, START_MS + 5), "there is nothing to take back"
    fold_times(known, START_MS)
    fold_times(known, START_MS + 1)
    assert may_take_back(known, decision, START_MS + 5) is expected
