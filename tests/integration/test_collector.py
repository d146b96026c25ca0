"""The collector over HTTP on a real Kafka and Valkey: what it answers, and what is then in the log."""

import gzip
import io
import logging
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
import redis

from runtime.settings import Settings
from schemas.events import FLAG_CLAMPED, FLAG_MESSAGE_ID_MADE, FLAG_TIMESTAMP_MISSING
from tests.collecting import (
    WRITE_KEY,
    Running,
    basic,
    collect_settings,
    running_collector,
)

LIMIT = 500 * 1024
SUCCESS = {"success": True}


@pytest.fixture(scope="module")
def settings(kafka: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    directory = tmp_path_factory.mktemp("collector")
    more = {"http": {"keys": {"write": "general-write-key"}, "trusted_proxies": ["127.0.0.1"]}}
    return collect_settings(directory, kafka, redis_url, f"c{uuid4().hex[:8]}", **more)


@pytest.fixture(scope="module")
def collector(settings: Settings) -> Iterator[Running]:
    with running_collector(settings) as running:
        yield running


def call(**changes: Any) -> dict[str, Any]:
    base = {"type": "track", "event": "E", "userId": "u", "messageId": str(uuid4())}
    return {name: value for name, value in (base | changes).items() if value is not ...}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def message_ids(collector: Running) -> list[str]:
    return [collector.opened(event)["message_id"] for event in collector.collected()]


# -- the protocol


@pytest.mark.parametrize("kind", ["track", "identify", "page", "screen", "group", "alias"])
def test_route_takes_a_call_of_its_type(collector: Running, kind: str) -> None:
    body = call(type=..., event="E" if kind == "track" else ..., previousId="before")
    answer = collector.post(f"/v1/{kind}", body)
    assert (answer.status_code, answer.json()) == (200, SUCCESS)
    found = [
        e for e in collector.collected() if collector.opened(e)["message_id"] == body["messageId"]
    ]
    assert [(e.type, e.event, e.source) for e in found] == [
        (kind, "E" if kind == "track" else "", "web")
    ]


def test_acknowledged_event_is_whole_and_sealed(collector: Running, settings: Settings) -> None:
    body = call(
        userId="canary-user",
        anonymousId="canary-anonymous",
        type="identify",
        event=...,
        timestamp="2026-01-31T12:00:00.123Z",
        sentAt="2026-01-31T12:00:01Z",
        traits={"email": "Canary@example.org", "city": "canary-city", "left": None},
        context={"campaign": {"name": "spring"}, "ip": "203.0.113.7", "userAgent": "canary-agent"},
        integrations={"canary": True},
    )
    assert collector.batch(body).json() == SUCCESS
    [(key, value)] = [
        record
        for record in collector.records(settings.topic_names.collected)
        if b'"spring"' in record[1]
    ]
    [event] = [e for e in collector.collected() if e.type == "identify" and e.traits]
    assert key == event.pid
    assert b"canary" not in value.lower()
    assert b"203.0.113.7" not in value
    assert orjson.loads(event.clear) == {
        "context": {"campaign": {"name": "spring"}, "device": {"type": "other"}}
    }
    assert collector.opened(event) == {
        "ids": {
            "user": "canary-user",
            "anonymous": "canary-anonymous",
            "email": "canary@example.org",
        },
        "message_id": body["messageId"],
        "call": {"integrations": {"canary": True}},
    }
    person = collector.person(event)
    traits = [orjson.loads(person.unseal(t.sealed, event.event_id)) for t in event.traits]
    assert traits == [["email", "Canary@example.org"], ["city", "canary-city"], ["left", None]]
    assert event.sent_at_ms == 1_769_860_801_000


def test_of_address_and_agent_only_country_and_device_are_kept(
    collector: Running, settings: Settings, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    browser = {
        "User-Agent": "Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X) Mobile/15E148 qx7own",
        "X-Forwarded-For": "193.17.47.83",
    }
    page = {"url": "https://shop.example/", "referrer": "https://www.google.cz/qx7link"}
    stated = {"ip": "193.17.47.84", "userAgent": "Mozilla/5.0 (X11; Linux x86_64) qx7said"}
    with caplog.at_level(logging.DEBUG):
        for context, headers in (
            ({"page": page, "timezone": "Europe/Prague"}, browser),
            (stated, {"User-Agent": "analytics-node/2", "X-Forwarded-For": "193.17.47.85"}),
            ({}, {"User-Agent": "analytics-node/2", "X-Forwarded-For": "193.17.47.85"}),
        ):
            body = call(event="Of A Device", context=context)
            assert collector.post("/v1/track", body, headers=headers).status_code == 200
    events = [event for event in collector.collected() if event.event == "Of A Device"]
    assert [orjson.loads(event.clear).get("context") for event in events] == [
        {
            "country": "CZ",
            "device": {"type": "mobile"},
            "channel": "organic_search",
            "timezone": "Europe/Prague",
        },
        {"country": "CZ", "device": {"type": "desktop"}},
        None,
    ]
    opened = orjson.dumps([collector.opened(event) for event in events])
    assert b"qx7link" in opened, "a referrer is kept, sealed"
    with redis.Redis.from_url(settings.redis.url) as client:
        stored = [
            key + (client.dump(key) or b"") for key in client.scan_iter("*") if type(key) is bytes
        ]
    said = capfd.readouterr()
    places = {
        "log": b"".join(collector.values(settings.topic_names.collected)),
        "sealed": opened,
        "redis": b"".join(stored),
        "output": (caplog.text + said.out + said.err).encode(),
    }
    for place, holds in places.items():
        assert holds or place == "output"
        assert b"193.17.47" not in holds, place
        assert b"qx7own" not in holds, place
        assert b"qx7said" not in holds, place


def test_calls_of_one_person_lie_in_one_partition_in_their_order(
    collector: Running, settings: Settings
) -> None:
    calls = [call(userId="ordered", event=f"Step {n}") for n in range(50)]
    others = [call(userId=f"other-{n}", event="Other") for n in range(50)]
    mixed = [each for pair in zip(calls, others, strict=True) for each in pair]
    assert collector.batch(*mixed).status_code == 200
    events = [e.event for e in collector.collected() if e.event.startswith("Step ")]
    assert events == [f"Step {n}" for n in range(50)]


def test_same_message_sent_again_has_the_same_event_id(collector: Running) -> None:
    body = call(event="Again", properties={"n": 1})
    for each in (body, body, body | {"properties": {"n": 2}}):
        collector.batch(each)
    found = [e for e in collector.collected() if e.event == "Again"]
    assert len({e.event_id for e in found}) == 1
    assert len({e.pid for e in found}) == 1
    # The other body is told apart, for the streams to flag.
    assert len({e.body_digest for e in found}) == 2


# -- who may send


@pytest.mark.parametrize("key", ["", "wrong-key", WRITE_KEY[:-1], WRITE_KEY + "x", "ü"])
def test_unknown_key_is_401(collector: Running, key: str) -> None:
    answer = httpx.post(
        f"{collector.url}/v1/track", headers={"Authorization": basic(key)}, json=call()
    )
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert "www-authenticate" in answer.headers
    assert key == "" or key not in answer.text


@pytest.mark.parametrize("header", ["Bearer x", "Basic", "Basic !!", "Basic /w==", "x"])
def test_unreadable_authorization_is_401(collector: Running, header: str) -> None:
    answer = httpx.post(
        f"{collector.url}/v1/track",
        headers={"Authorization": header},
        json=call(writeKey=WRITE_KEY),
    )
    assert answer.status_code == 401


def test_key_may_stand_in_the_body(collector: Running) -> None:
    single, batch = call(writeKey=WRITE_KEY), {"batch": [call()], "writeKey": WRITE_KEY}
    assert httpx.post(f"{collector.url}/v1/track", json=single).json() == SUCCESS
    assert httpx.post(f"{collector.url}/v1/batch", json=batch).json() == SUCCESS
    assert httpx.post(f"{collector.url}/v1/batch", json={"batch": [call()]}).status_code == 401
    numeric = {"batch": [call()], "writeKey": 5}
    assert httpx.post(f"{collector.url}/v1/batch", json=numeric).status_code == 401


def test_write_key_of_the_configuration_is_a_source(collector: Running) -> None:
    body = call(event="General")
    answer = httpx.post(
        f"{collector.url}/v1/track",
        headers={"Authorization": basic("general-write-key")},
        json=body,
    )
    assert answer.status_code == 200
    assert [e.source for e in collector.collected() if e.event == "General"] == ["default"]


# -- bodies that are refused whole


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"not json",
        b'{"batch": [',
        b'{"batch": ["\xff"]}',
        b"[]",
        b"{}",
        b'{"batch": {"type": "track"}}',
        b'{"batch": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    ],
)
def test_body_that_is_no_batch_is_400(collector: Running, raw: bytes) -> None:
    answer = collector.post("/v1/batch", raw)
    assert answer.status_code == 400
    problem = answer.json()
    assert problem["status"] == 400
    assert problem["errors"][0]["path"].startswith("$")
    assert problem["errors"][0]["expected"]


def test_body_over_the_limit_is_413(collector: Running) -> None:
    raw = orjson.dumps({"batch": [call(properties={"a": "x" * LIMIT})]})
    assert collector.post("/v1/batch", raw).status_code == 413
    assert collector.post("/v1/batch", b"x" * (4 * LIMIT)).status_code == 413


def test_body_without_a_length_is_bounded_too(collector: Running) -> None:
    answer = httpx.post(
        f"{collector.url}/v1/batch",
        headers={"Authorization": basic(WRITE_KEY)},
        content=(b"x" * 65_536 for _ in range(20)),
    )
    assert answer.status_code == 413


def test_too_many_calls_are_413(collector: Running) -> None:
    assert collector.post("/v1/batch", {"batch": [1] * 10_001}).status_code == 413


def test_gzip_is_taken_and_bounded(collector: Running) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/x-www-form-urlencoded"}
    body = call(event="Zipped")
    raw = orjson.dumps({"batch": [body]})
    half = len(raw) // 2
    for whole in (gzip.compress(raw), gzip.compress(raw[:half]) + gzip.compress(raw[half:])):
        assert collector.post("/v1/batch", whole, headers=headers).json() == SUCCESS
    assert len([e for e in collector.collected() if e.event == "Zipped"]) == 2
    broken = gzip.compress(raw)
    for part in (broken[:-9], broken[:20] + b"\0" + broken[21:], b"\x1f\x8b", raw):
        assert collector.post("/v1/batch", part, headers=headers).status_code == 400
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb") as file:
        for _ in range(300):
            file.write(bytes(1_000_000))
    assert len(bomb.getvalue()) < LIMIT
    assert collector.post("/v1/batch", bomb.getvalue(), headers=headers).status_code == 413


def test_other_encoding_is_415(collector: Running) -> None:
    raw = zlib.compress(orjson.dumps({"batch": [call()]}))
    assert collector.post("/v1/batch", raw, headers={"Content-Encoding": "br"}).status_code == 415


# -- calls that are set aside alone

BROKEN: list[tuple[str, bytes, str, str]] = [
    ("no object", b"7", "", "wrong_type"),
    ("no type", orjson.dumps(call(type=...)), ".type", "missing_type"),
    ("unknown type", orjson.dumps(call(type="purchase")), ".type", "unknown_type"),
    ("no identifier", orjson.dumps(call(userId=...)), "", "missing_identifier"),
    ("no event name", orjson.dumps(call(event=...)), ".event", "missing_event"),
    ("over 32 KB", orjson.dumps(call(properties={"a": "x" * 33_000})), "", "too_large"),
    ("message id a number", orjson.dumps(call(messageId=5)), ".messageId", "wrong_type"),
    ("no time", orjson.dumps(call(timestamp="soon")), ".timestamp", "not_a_time"),
    ("year 1900", orjson.dumps(call(timestamp="1900-01-01")), ".timestamp", "time_out_of_range"),
    ("year 3000", orjson.dumps(call(timestamp="3000-01-01")), ".timestamp", "time_out_of_range"),
    (
        "money is negative",
        orjson.dumps(call(event="Order Completed", properties={"total": -1, "currency": "EUR"})),
        ".properties.total",
        "not_an_amount",
    ),
    (
        "money is text",
        orjson.dumps(call(event="Order Refunded", properties={"total": "free", "currency": "EUR"})),
        ".properties.total",
        "not_an_amount",
    ),
    (
        "money is NaN",
        b'{"type":"track","event":"Order Completed","userId":"u","messageId":"nan",'
        b'"properties":{"total":NaN,"currency":"EUR"}}',
        ".properties.total",
        "not_a_number",
    ),
    (
        "half a surrogate pair",
        b'{"type":"track","event":"E","userId":"\\ud800"}',
        ".userId",
        "not_text",
    ),
    (
        "a thousand properties",
        orjson.dumps(call(properties={f"p{n}": n for n in range(1000)})),
        "",
        "too_many_fields",
    ),
    ("depth 50", orjson.dumps(call(properties={"a": nested(50)})), ".properties", "too_deep"),
    ("null byte", orjson.dumps(call(userId="a\0b")), ".userId", "null_character"),
]


@pytest.mark.parametrize(("name", "raw", "path", "reason"), BROKEN, ids=[b[0] for b in BROKEN])
def test_broken_call_is_set_aside_and_its_neighbours_are_kept(
    collector: Running, name: str, raw: bytes, path: str, reason: str
) -> None:
    before, after = call(event="Neighbour"), call(event="Neighbour", userId="other")
    body = b'{"batch":[%s,%s,%s]}' % (orjson.dumps(before), raw, orjson.dumps(after))
    rejected = len(collector.rejected())
    answer = collector.post("/v1/batch", body)
    assert (answer.status_code, answer.json()) == (200, SUCCESS)
    assert {before["messageId"], after["messageId"]} <= set(message_ids(collector))
    found = collector.rejected()
    assert len(found) == rejected + 1
    fresh = [r for r in found if (r.path, r.reason) == (f"$.batch[1]{path}", reason)]
    assert fresh
    for rejection in fresh:
        assert (rejection.stage, rejection.source) == ("collector", "web")
        assert (rejection.topic, rejection.partition, rejection.offset) == (None, None, None)
        assert rejection.expected
        assert rejection.rejected_at_ms > 1_700_000_000_000


def test_broken_single_call_is_set_aside_with_its_message_id(collector: Running) -> None:
    message_id = "m" * 200
    assert collector.post("/v1/track", call(messageId=message_id)).json() == SUCCESS
    [found] = [r for r in collector.rejected() if r.reason == "too_long"]
    assert (found.message_id, found.path) == ("m" * 100, "$.messageId")


def test_missing_message_id_is_made_and_missing_time_is_the_arrival(collector: Running) -> None:
    collector.batch(call(event="Bare", messageId=...))
    [event] = [e for e in collector.collected() if e.event == "Bare"]
    assert event.flags == FLAG_MESSAGE_ID_MADE | FLAG_TIMESTAMP_MISSING
    assert event.occurred_at_ms == event.received_at_ms
    assert len(collector.opened(event)["message_id"]) == 36


def test_future_is_clamped_and_flagged(collector: Running) -> None:
    collector.batch(call(event="Tomorrow", timestamp="2100-01-01T00:00:00Z"))
    [event] = [e for e in collector.collected() if e.event == "Tomorrow"]
    assert event.flags == FLAG_CLAMPED
    assert event.occurred_at_ms == event.received_at_ms


def test_every_script_and_symbol_comes_back_as_sent(collector: Running) -> None:
    properties = {"note": "🧦 \0 \u202eمصباح", "שם": "扇子"}
    collector.batch(call(event="مرحبا 🧦", userId="مستخدم🧦", properties=properties))
    [event] = [e for e in collector.collected() if e.event == "مرحبا 🧦"]
    assert collector.opened(event)["properties"] == properties
    assert collector.opened(event)["ids"] == {"user": "مستخدم🧦"}


def test_no_personal_value_is_in_the_log_of_what_was_set_aside_or_of_the_process(
    collector: Running, settings: Settings, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    canaries = [
        call(userId={"canary": "canary-id"}),
        call(event="Order Completed", properties={"total": "canary-total", "currency": "EUR"}),
        call(timestamp="canary-time", userId="canary-user"),
        call(type="canary-type", context={"ip": "203.0.113.77", "canary@example.org": 1}),
        call(properties={"canary@example.org": nested(60)}),
    ]
    with caplog.at_level(logging.DEBUG):
        assert collector.batch(*canaries).status_code == 200
        assert collector.post("/v1/batch", b'{"canary": canary').status_code == 400
    told = b"".join(collector.values(settings.topic_names.rejected))
    output = capfd.readouterr()
    for text in (told.decode("latin-1"), caplog.text, output.out, output.err):
        assert "canary" not in text
        assert "203.0.113.77" not in text


def test_a_write_key_that_is_no_text_is_unknown(collector: Running) -> None:
    body = b'{"writeKey": "\\ud800", "type": "track", "event": "E", "userId": "u"}'
    answer = httpx.post(f"{collector.url}/v1/track", content=body)
    assert answer.status_code == 401


# -- people who were erased


def test_erased_person_is_dropped_and_others_are_kept(collector: Running) -> None:
    collector.batch(call(event="Before", userId="erased"))
    collector.people.suppress("user", "erased", 1_700_000_000_000)
    answer = collector.batch(
        call(event="After", userId="erased"), call(event="After", userId="not erased")
    )
    assert answer.status_code == 200
    after = [e for e in collector.collected() if e.event == "After"]
    assert [collector.opened(e)["ids"] for e in after] == [{"user": "not erased"}]


def test_what_an_erased_person_s_call_names_beside_them_is_not_kept(collector: Running) -> None:
    collector.batch(call(event="Before", userId="gone"))
    collector.people.suppress("user", "gone", 1_700_000_000_000)
    beside = {"anonymousId": "gone-device", "traits": {"email": "gone@example.org"}}
    refusing = {"consent": {"categoryPreferences": {"Advertising": False}}}
    answer = collector.batch(
        call(type="identify", userId="gone", **beside),
        call(type="alias", userId="gone", previousId="gone-name"),
        # It signs up, but says not when: it may be an old one that is sent again.
        call(event="Signed Up", userId="gone", **beside),
        call(userId="gone", context=refusing, **beside),
        call(type="identify", userId="here", traits={"email": "here@example.org"}),
    )
    assert answer.status_code == 200
    known = collector.people.find
    assert known("anonymous", "gone-device") is known("email", "gone@example.org") is None
    assert known("anonymous", "gone-name") is known("user", "gone-name") is None
    assert known("email", "here@example.org") is not None


# -- browsers


@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch"])
def test_browser_of_any_origin_may_post(collector: Running, path: str) -> None:
    origin = {"Origin": "https://shop.example"}
    asked = httpx.options(
        f"{collector.url}{path}",
        headers=origin
        | {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )
    assert asked.status_code == 204
    assert asked.headers["access-control-allow-origin"] == "*"
    assert "authorization" in asked.headers["access-control-allow-headers"].lower()
    bodies: list[object] = [{"batch": [call()]} | call(), []]
    for body in bodies:
        answer = collector.post(path, body, headers=origin | {"Content-Type": "text/plain"})
        assert answer.headers["access-control-allow-origin"] == "*"


def test_openapi_describes_every_route(collector: Running) -> None:
    paths = httpx.get(f"{collector.url}/openapi.json").json()["paths"]
    for kind in ("track", "identify", "page", "screen", "group", "alias", "batch"):
        post = paths[f"/v1/{kind}"]["post"]
        assert set(post["responses"]) >= {"200", "400", "401", "413", "429", "503"}
        assert post["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert "example" in paths["/v1/track"]["post"]["requestBody"]["content"]["application/json"]


# -- limits and absent servers


def test_source_past_its_quota_is_429(kafka: str, redis_url: str, tmp_path: Path) -> None:
    sources = [
        {"name": "small", "write_key": WRITE_KEY, "quota_per_s": 10},
        {"name": "free", "write_key": "free-write-key"},
    ]
    limited = collect_settings(tmp_path, kafka, redis_url, f"q{uuid4().hex[:8]}", sources=sources)
    with running_collector(limited) as running:
        # Fifty seconds' worth: longer than a busy machine takes until the next call.
        assert running.batch(*(call() for _ in range(500))).status_code == 200
        answer = running.batch(call())
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 50
        running.key = "free-write-key"
        assert running.batch(call()).status_code == 200
        assert {e.source for e in running.collected()} == {"small", "free"}


def test_absent_kafka_is_503_and_nothing_is_promised(
    settings: Settings, redis_client: "redis.Redis"
) -> None:
    nowhere = settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    with running_collector(
        settings.model_copy(update={"kafka": nowhere}), deliver_within_s=1
    ) as running:
        for calls in ([call()], [call(type=...)]):
            answer = running.batch(*calls)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["access-control-allow-origin"] == "*"


def test_absent_vault_is_503_until_it_is_back(kafka: str, tmp_path: Path) -> None:
    from runtime.embedded import EmbeddedStack, Wanted

    with EmbeddedStack(tmp_path, Wanted(broker=None, clickhouse=False)) as stack:
        url = stack.addresses.redis_url
        settings = collect_settings(tmp_path, kafka, url, f"c{uuid4().hex[:8]}")
        with running_collector(settings) as running:
            body = call(event="Through")
            assert running.batch(body).status_code == 200
            server = stack.servers[0]
            server.stop()
            answer = running.batch(body)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            server.start()
            server.wait_ready()
            assert running.batch(body).status_code == 200
            pids = {e.pid for e in running.collected() if e.event == "Through"}
            assert len(pids) == 1
