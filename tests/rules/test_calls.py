"""What the collector makes of one call: what it refuses, where it says so, and what passes."""

import itertools
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.rules.bodies import NOT_JSON
from producers.rules.call_keys import CallKeys
from producers.rules.calls import Arrival, CallRules, Checked, Refused, check_call
from producers.rules.split import ClearNames
from producers.rules.stated import Categories
from producers.rules.times import TimeLimits
from schemas.events import (
    FLAG_CLAMPED,
    FLAG_MESSAGE_ID_MADE,
    FLAG_SKEW_CORRECTED,
    FLAG_TIMESTAMP_MISSING,
)

NOW_MS = 1_800_000_000_000
NOW = "2027-01-15T08:00:00Z"
RULES = CallRules(
    CallKeys.of(b"p" * 32),
    ClearNames(
        frozenset(
            {"total", "currency", "products", "product_id", "price", "campaign_id", "coupon"}
        ),
        frozenset({"campaign"}),
        frozenset({"plan"}),
    ),
    TimeLimits(skew_ms=300_000, future_ms=300_000),
    map("made-{}".format, itertools.count()).__next__,
    Categories.of({}, ["analytics"]),
)


def arrival(**changes: Any) -> Arrival:
    usual = Arrival(source="web", received_at_ms=NOW_MS, sent_at=None, path="$.batch[3]", type=None)
    return replace(usual, **changes)


def call(**changes: Any) -> dict[str, Any]:
    base = {"type": "track", "event": "E", "userId": "u", "messageId": "m", "timestamp": NOW}
    return {name: value for name, value in (base | changes).items() if value is not ...}


def order(**properties: Any) -> dict[str, Any]:
    return call(event="Order Completed", properties={"order_id": "o"} | properties)


def passed(body: object, **changes: Any) -> Checked:
    found = check_call(body, arrival(**changes), RULES)
    assert isinstance(found, Checked), found
    return found


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("body", "path", "reason"),
    [
        ([], "", "wrong_type"),
        (None, "", "wrong_type"),
        (call(type=...), ".type", "missing_type"),
        (call(type="purchase"), ".type", "unknown_type"),
        (call(type="Track"), ".type", "unknown_type"),
        (call(type=["track"]), ".type", "unknown_type"),
        (call(event=...), ".event", "missing_event"),
        (call(event=""), ".event", "missing_event"),
        (call(event=5), ".event", "wrong_type"),
        (call(event="e" * 201), ".event", "too_long"),
        (call(event="E\0"), ".event", "null_character"),
        (call(userId=...), "", "missing_identifier"),
        (call(userId=""), "", "missing_identifier"),
        (call(userId=..., traits={"email": " "}), "", "missing_identifier"),
        (call(userId=..., traits={"email": "none"}), "", "missing_identifier"),
        (call(userId=..., traits={"email": "@"}), "", "missing_identifier"),
        (call(userId=" \t", anonymousId="\u3000"), "", "missing_identifier"),
        (call(userId=..., type="group", traits={"email": "a@b.c"}), "", "missing_identifier"),
        (call(userId={"id": 1}), ".userId", "wrong_type"),
        (call(userId=True), ".userId", "wrong_type"),
        (call(userId=1.5), ".userId", "wrong_type"),
        (call(userId="u" * 513), ".userId", "too_long"),
        (call(userId="u\0"), ".userId", "null_character"),
        (call(anonymousId=[]), ".anonymousId", "wrong_type"),
        (call(userId=..., traits={"email": "a" * 513}), ".traits.email", "too_long"),
        (call(messageId=7), ".messageId", "wrong_type"),
        (call(messageId="m" * 101), ".messageId", "too_long"),
        (call(messageId="m\0"), ".messageId", "null_character"),
        (call(timestamp="yesterday"), ".timestamp", "not_a_time"),
        (call(timestamp="2026-13-45T99:00:00Z"), ".timestamp", "not_a_time"),
        (call(timestamp=1_800_000_000), ".timestamp", "not_a_time"),
        (call(timestamp=..., originalTimestamp="?"), ".originalTimestamp", "not_a_time"),
        (call(timestamp="1969-12-31T23:59:59.999Z"), ".timestamp", "time_out_of_range"),
        (call(timestamp="2106-02-07T06:28:16Z"), ".timestamp", "time_out_of_range"),
        (call(properties=[]), ".properties", "wrong_type"),
        (call(traits="x"), ".traits", "wrong_type"),
        (call(context=3), ".context", "wrong_type"),
        (call(properties={"campaign_id": "a\0"}), ".properties.campaign_id", "null_character"),
        (call(context={"campaign": {"id": "\0"}}), ".context.campaign.id", "null_character"),
        (call(properties={f"p{n}": n for n in range(1000)}), "", "too_many_fields"),
        (call(properties={"a": nested(50)}), ".properties", "too_deep"),
        (call(properties={"a": nested(300)}), ".properties", "too_deep"),
        (call(properties={"a": "x" * 32_768}), "", "too_large"),
        (call(properties={"ada@example.org": NOT_JSON}), ".properties", "not_a_number"),
        (
            call(properties={"products": [{"x": NOT_JSON}]}),
            ".properties.products[0]",
            "not_a_number",
        ),
        (call(event="\ud800"), ".event", "not_text"),
        (call(traits={"\udfff": 1}), ".traits", "not_text"),
        (order(total=NOT_JSON, currency="EUR"), ".properties.total", "not_a_number"),
        (order(total="NaN", currency="EUR"), ".properties.total", "not_an_amount"),
        (order(total=-12.5, currency="EUR"), ".properties.total", "not_an_amount"),
        (order(total="twelve euros", currency="EUR"), ".properties.total", "not_an_amount"),
        (order(total="12,50", currency="EUR"), ".properties.total", "not_an_amount"),
        (order(total=True, currency="EUR"), ".properties.total", "not_an_amount"),
        (order(total=1, revenue=[], currency="EUR"), ".properties.revenue", "not_an_amount"),
        (order(value=1e12, currency="EUR"), ".properties.value", "not_an_amount"),
        (order(total=1), ".properties.currency", "missing_currency"),
        (order(total=1, currency="euro"), ".properties.currency", "not_a_currency"),
        (order(total=1, currency="€€€"), ".properties.currency", "not_a_currency"),
        (order(total=1, currency=978), ".properties.currency", "not_a_currency"),
    ],
)
def test_fault_is_refused_with_its_place(body: object, path: str, reason: str) -> None:
    found = check_call(body, arrival(), RULES)
    assert isinstance(found, Refused)
    assert (found.fault.path, found.fault.reason) == (f"$.batch[3]{path}", reason)
    assert found.fault.expected


def test_refusal_tells_the_message_and_no_value() -> None:
    long = call(messageId="m" * 300)
    torn = call(messageId="m\ud800", event=7, properties={"canary": "canary@example.org"})
    found = [check_call(body, arrival(), RULES) for body in (long, torn, call(messageId=5))]
    told = [each.message_id for each in found if isinstance(each, Refused)]
    assert told == ["m" * 100, "m?", None]
    assert "canary" not in repr(found)


@pytest.mark.parametrize(
    "body",
    [
        call(event="🧦" * 200),
        call(userId="مستخدم"),
        call(properties={"note": "a\0b"}),
        call(properties={"a": nested(14)}),
        call(properties={f"p{n}": n for n in range(499)}, context={"a": 1}),
        call(properties={"a": "x" * 32_000}),
        call(properties=None, traits=None, context=None, anonymousId=None),
        call(timestamp="2106-02-07T06:28:15Z"),
        order(total="12.50", currency="EUR"),
        order(total=None),
        order(),
        call(event="Product Viewed", properties={"price": "on request"}),
    ],
)
def test_unusual_but_right_call_passes(body: object) -> None:
    passed(body)


@pytest.mark.parametrize(
    ("changes", "who"),
    [
        ({"anonymousId": "a", "traits": {"email": "e@x.y"}}, ("user", "u")),
        ({"userId": ..., "anonymousId": "a", "traits": {"email": "e@x.y"}}, ("anonymous", "a")),
        ({"userId": ..., "traits": {"email": " E@X.y"}}, ("email", "e@x.y")),
        ({"userId": ..., "context": {"traits": {"email": "e@x.y"}}}, ("email", "e@x.y")),
        ({"userId": 42}, ("user", "42")),
        ({"userId": 42.0}, ("user", "42")),
        ({"userId": "", "anonymousId": " a "}, ("anonymous", " a ")),
        ({"userId": "\t ", "anonymousId": "a"}, ("anonymous", "a")),
        ({"userId": ..., "traits": {"email": "n/a"}, "anonymousId": "a"}, ("anonymous", "a")),
        ({"userId": 0}, ("user", "0")),
    ],
)
def test_person_is_user_else_anonymous_else_email(
    changes: dict[str, Any], who: tuple[str, str]
) -> None:
    found = passed(call(**changes))
    assert (found.id_type, found.external_id) == who


def test_readable_part_holds_only_declared_plain_values() -> None:
    found = passed(
        order(
            total=19.99,
            currency="eur",
            coupon={"nested": "canary"},
            products=[{"product_id": "p", "price": 2, "engraving": "canary"}, "canary", {}],
            note="canary",
        )
        | {
            "context": {
                "ip": "canary",
                "userAgent": "canary",
                "locale": "canary",
                "campaign": {"id": "c", "name": "C", "clicker": "canary", "term": ["canary"]},
            },
            "integrations": {"canary": True},
            "name": "canary",
            "traits": {"plan": "gold"},
        }
    )
    assert orjson.loads(found.clear) == {
        "properties": {
            "total": 19.99,
            "currency": "EUR",
            "products": [{"product_id": "p", "price": 2}, {}, {}],
        },
        "context": {"campaign": {"id": "c", "name": "C"}},
    }
    assert b"canary" not in found.clear
    plain = orjson.loads(found.plain)
    assert plain == {
        "properties": {
            "order_id": "o",
            "coupon": {"nested": "canary"},
            "products": [{"engraving": "canary"}, "canary", {}],
            "note": "canary",
        },
        "context": {"locale": "canary", "campaign": {"clicker": "canary", "term": ["canary"]}},
        "traits": {"plan": "gold"},
        "ids": {"user": "u"},
        "message_id": "m",
        "call": {"integrations": {"canary": True}, "name": "canary"},
    }


def test_traits_of_identify_travel_one_by_one() -> None:
    found = passed(call(type="identify", event=..., traits={"plan": "gold", "city": None}))
    assert [orjson.loads(plain) for _, plain in found.traits] == [["plan", "gold"], ["city", None]]
    assert len({key for key, _ in found.traits}) == 2
    assert found.event == ""
    assert orjson.loads(found.clear) == {"traits": {"plan": "gold"}}
    assert "traits" not in orjson.loads(found.plain)
    assert passed(call(traits={"plan": "gold"})).traits == ()


def test_route_gives_the_type_and_batch_the_context() -> None:
    found = passed(
        call(type=..., event=..., context={"locale": "nl"}),
        type="page",
        context={"campaign": {"id": "c"}, "locale": "de"},
    )
    assert found.type == "page"
    assert orjson.loads(found.clear) == {"context": {"campaign": {"id": "c"}}}
    assert orjson.loads(found.plain)["context"] == {"locale": "nl"}


@pytest.mark.parametrize("context", [{"a": NOT_JSON}, {"a": "\ud800"}, {"a": nested(40)}])
def test_broken_context_of_a_batch_is_found(context: object) -> None:
    assert isinstance(check_call(call(), arrival(context=context), RULES), Refused)


def test_missing_message_id_is_made_and_flagged() -> None:
    one, two = (passed(call(messageId=nothing)) for nothing in (..., None))
    assert one.flags & two.flags & FLAG_MESSAGE_ID_MADE
    assert one.event_id != two.event_id
    assert not passed(call()).flags


def test_same_message_has_the_same_event_id_and_other_bodies_other_digests() -> None:
    first = passed(call(properties={"a": 1, "b": 2}, sentAt=NOW))
    again = passed(call(properties={"b": 2, "a": 1}, sentAt="2027-01-15T08:00:30Z", writeKey="k"))
    other = passed(call(properties={"a": 1, "b": 3}))
    assert first.event_id == again.event_id == other.event_id
    assert first.body_digest == again.body_digest != other.body_digest
    assert passed(call(), source="app").event_id != first.event_id


@pytest.mark.parametrize(
    ("timestamp", "sent_at", "occurred_at_ms", "flags"),
    [
        ("2027-01-15T07:00:00Z", None, NOW_MS - 3_600_000, 0),
        ("2027-01-15T08:00:00+01:00", None, NOW_MS - 3_600_000, 0),
        ("2027-01-15T08:00:00.1239", None, NOW_MS + 123, 0),
        ("2001-01-01T00:00:00Z", NOW, 978_307_200_000, 0),
        ("2027-01-15T08:04:59Z", None, NOW_MS + 299_000, 0),
        ("2027-01-15T08:05:01Z", None, NOW_MS, FLAG_CLAMPED),
        ("2050-01-01T00:00:00Z", None, NOW_MS, FLAG_CLAMPED),
        (None, NOW, NOW_MS, FLAG_TIMESTAMP_MISSING),
        # A clock two hours ahead, the call sent one minute after it happened.
        ("2027-01-15T09:59:00Z", "2027-01-15T10:00:00Z", NOW_MS - 60_000, FLAG_SKEW_CORRECTED),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:01:00Z", NOW_MS - 60_000, FLAG_SKEW_CORRECTED),
        # Four minutes off: within what slow networks do.
        ("2027-01-15T07:55:00Z", "2027-01-15T07:56:00Z", NOW_MS - 300_000, 0),
        ("2027-01-15T07:55:00Z", "not a time", NOW_MS - 300_000, 0),
    ],
)
def test_time_is_the_clients_until_it_is_too_far_off(
    timestamp: str | None, sent_at: str | None, occurred_at_ms: int, flags: int
) -> None:
    found = passed(call(timestamp=timestamp), sent_at=sent_at)
    assert (found.occurred_at_ms, found.flags) == (occurred_at_ms, flags)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    [
        "type",
        "event",
        "userId",
        "anonymousId",
        "messageId",
        "timestamp",
        "originalTimestamp",
        "sentAt",
        "properties",
        "context",
        "traits",
    ]
)


@given(JSON | st.dictionaries(FIELDS, JSON | st.sampled_from(["track", NOW, "Order Completed"])))
def test_every_value_has_an_answer(body: object) -> None:
    assert isinstance(check_call(body, arrival(), RULES), Checked | Refused)
