"""Is a decision in force when the API answers, on the log with its proof, and once?"""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from headwater.cli import app
from headwater.consent_rebuild import rebuild_overlay
from headwater.roles import prepare_stores
from runtime.clickhouse import connect
from runtime.consent_overlay import ConsentOverlay
from runtime.sealing import Person
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.codec import CONSENT_CHANGED
from schemas.consent import Basis, allowed_now
from schemas.decisions import Known
from schemas.errors import StoreRefused
from schemas.partitioning import partition_of
from schemas.requests import ConsentChanged
from schemas.subjects import Consent
from tests.collecting import TopicReader
from tests.integration.serving import KEYS, Served, serving, settings_of
from tests.integration.test_profiles_api import store, subject

WITHDRAWN = {
    "subject": "user:42",
    "purpose": "analytics",
    "status": "withdrawn",
    "source": "preference-form",
    "proof": {"method": "form", "text_version": "2026-01", "language": "en", "jurisdiction": "CZ"},
}

PROVEN = {"source": "form", "proof": {"method": "form", "text_version": "2026-01"}}
"""What a yes needs."""


@pytest.fixture(scope="module")
def served(
    kafka: str, redis_url: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("consents")
    made = settings_of(
        directory,
        kafka=kafka,
        redis_url=redis_url,
        clickhouse_url=clickhouse_url,
        name=f"consents-{directory.name}",
    )
    prepare_stores(made)
    with serving(made) as port:
        yield port
    with connect(made, database="default") as client:
        client.command(f"DROP DATABASE {made.clickhouse.database}")


def post(served: Served, body: object, role: str = "consent_desk") -> httpx.Response:
    headers = {"Authorization": f"Bearer {KEYS[role]}"}
    return httpx.post(f"{served.url}/v1/consents", json=body, headers=headers, timeout=30)


def get(served: Served, who: str) -> Any:
    answer = served.get(f"/v1/consents/{quote(who, safe='')}", "consent_desk")
    assert answer.status_code == 200, answer.text
    return answer.json()


def state(found: Any, purpose: str) -> Any:
    return next(each for each in found["purposes"] if each["purpose"] == purpose)


def person(vault: Vault, who: str) -> Person:
    kind, _, external_id = who.partition(":")
    found = vault.lookup(kind, external_id)  # type: ignore[arg-type]
    assert found is not None
    return found


def on_log(settings: Settings, pid: bytes) -> list[ConsentChanged]:
    reader = TopicReader(settings, settings.topic_names.consents)
    try:
        return [CONSENT_CHANGED.decode(value) for key, value in reader.read() if key == pid]
    finally:
        reader.close()


def test_a_decision_is_on_the_log_with_its_proof_and_shown(
    served: Served, vault: Vault, who: str
) -> None:
    answer = post(served, WITHDRAWN | {"subject": who})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["status"], told["changed"], told["valid_to"]) == ("withdrawn", True, None)

    pid = person(vault, who).pid
    (record,) = on_log(served.settings, pid)
    assert record.record_id.hex() == told["record_id"]
    assert (record.purpose, record.status, record.legal_basis) == (
        "analytics",
        "withdrawn",
        "legitimate_interest",
    )
    assert (record.method, record.text_version, record.language, record.jurisdiction) == (
        "form",
        "2026-01",
        "en",
        "CZ",
    )
    found = get(served, who)
    assert state(found, "analytics")["allowed"] is False
    assert state(found, "analytics")["status"] == "withdrawn"
    assert state(found, "personalisation") == {
        "purpose": "personalisation",
        "basis": "legitimate_interest",
        "allowed": True,
        "status": "unknown",
        "since": None,
        "until": None,
        "recorded_at": None,
    }
    assert state(found, "sale")["allowed"] is False
    (shown,) = found["history"]
    assert {name: value for name, value in shown["proof"].items() if value} == WITHDRAWN["proof"]
    assert shown["log"]["partition"] == partition_of(pid, served.settings.kafka.partitions)


def test_the_same_request_again_changes_nothing(served: Served, vault: Vault, who: str) -> None:
    first, again = (post(served, WITHDRAWN | {"subject": who}).json() for _ in range(2))
    assert again == first | {"changed": False}
    assert len(on_log(served.settings, person(vault, who).pid)) == 1


def test_a_decision_that_lost_its_overlay_is_put_there_again_under_one_id(
    served: Served, vault: Vault, who: str, redis_client: "redis.Redis"
) -> None:
    first = post(served, WITHDRAWN | {"subject": who}).json()
    pid = person(vault, who).pid
    assert redis_client.delete(f"{served.settings.vault.key_prefix}consent:{pid.hex()}") == 1
    assert post(served, WITHDRAWN | {"subject": who}).json()["record_id"] == first["record_id"]
    assert len(get(served, who)["history"]) == 1


def test_a_restored_vault_knows_again_what_was_decided_since(
    served: Served, vault: Vault, who: str, redis_client: "redis.Redis"
) -> None:
    body = {"subject": who, "purpose": "personalisation"} | PROVEN
    post(served, body | {"status": "granted"})
    pid = person(vault, who).pid
    key = f"{served.settings.vault.key_prefix}consent:{pid.hex()}"
    backup = redis_client.dump(key)
    post(served, body | {"status": "withdrawn"})
    ends = {"valid_from": "2020-01-01T00:00:00Z", "valid_to": "2100-01-01T00:00:00Z"}
    post(served, body | {"purpose": "sale", "status": "granted"} | ends)
    before = redis_client.hgetall(key)
    assert isinstance(backup, bytes)
    redis_client.restore(key, 0, backup, replace=True)
    assert redis_client.hgetall(key) != before

    for _ in range(2):
        assert rebuild_overlay(served.settings) > 0
        assert redis_client.hgetall(key) == before
    assert post(served, body | {"status": "withdrawn"}).json()["changed"] is False
    vault.suppress("user", who.removeprefix("user:"), 5)
    rebuild_overlay(served.settings)
    assert not redis_client.exists(key)


def test_every_change_of_mind_is_kept_and_the_last_one_holds(served: Served, who: str) -> None:
    for status in ("granted", "withdrawn", "granted", "denied", "granted"):
        changed = post(served, {"subject": who, "purpose": "sale", "status": status} | PROVEN)
        assert changed.json()["changed"] is True
    found = get(served, who)
    assert [each["status"] for each in found["history"]] == [
        "granted",
        "withdrawn",
        "granted",
        "denied",
        "granted",
    ]
    assert len({each["record_id"] for each in found["history"]}) == 5
    assert state(found, "sale")["allowed"] is True


def test_a_subscription_is_by_channel_and_topic(served: Served, who: str) -> None:
    said = {"subject": who, "channel": "email", "topic": "newsletter", "status": "subscribed"}
    body = said | PROVEN
    assert post(served, body).status_code == 200
    (subscription,) = get(served, who)["subscriptions"]
    assert (subscription["channel"], subscription["topic"]) == ("email", "newsletter")
    assert subscription["allowed"] is True
    post(served, body | {"topic": "all", "status": "unsubscribed"})
    states = {each["topic"]: each["allowed"] for each in get(served, who)["subscriptions"]}
    assert states == {"all": False, "newsletter": False}


def test_a_decision_that_ended_holds_no_more(served: Served, who: str) -> None:
    times = {"valid_from": "2020-01-01T00:00:00Z", "valid_to": "2021-01-01T00:00:00Z"}
    post(served, {"subject": who, "purpose": "sale", "status": "granted", **times} | PROVEN)
    found = get(served, who)
    assert state(found, "sale") | {"basis": ""} == {
        "purpose": "sale", "basis": "", "allowed": False, "status": "unknown", "since": None,
        "until": None, "recorded_at": None,
    }  # fmt: skip
    assert found["history"][0]["valid_to"] == "2021-01-01T00:00:00.000Z"


def test_the_text_is_proven_by_its_hash_and_not_kept(
    served: Served, who: str, redis_client: "redis.Redis", vault: Vault
) -> None:
    text = "We would like to send you our newsletter."
    given = {"text": text, "text_version": "1", "method": "form"}
    said = {"subject": who, "purpose": "sale", "status": "granted", "source": "form"}
    body = {**said, "proof": given}
    assert post(served, body).status_code == 200
    proof = get(served, who)["history"][0]["proof"]
    assert proof["text_hash"] == hashlib.sha256(text.encode()).hexdigest()
    (record,) = on_log(served.settings, person(vault, who).pid)
    assert text.encode() not in CONSENT_CHANGED.encode(record)


def test_a_profile_is_closed_as_soon_as_the_api_has_answered(
    served: Served, vault: Vault, who: str, redis_client: "redis.Redis"
) -> None:
    """No lane runs here: nothing but the overlay can know."""
    body = {"subject": who, "purpose": "personalisation"} | PROVEN
    post(served, body | {"status": "granted"})
    store(redis_client, served.settings, subject(person(vault, who)))
    path = f"/v1/profiles/{quote(who, safe='')}"
    answer = served.get(path, "activation")
    assert answer.status_code == 200
    assert [each["status"] for each in answer.json()["consents"]] == ["granted"]
    post(served, body | {"status": "withdrawn"})
    assert served.get(path, "activation").status_code == 403
    post(served, body | {"status": "granted"})
    assert served.get(path, "activation").status_code == 200


@pytest.mark.parametrize("rubbish", ["", "1 2 3", "x x - granted 00 00 -"])
def test_a_profile_is_closed_while_what_was_decided_cannot_be_read(
    served: Served, vault: Vault, who: str, redis_client: "redis.Redis", rubbish: str
) -> None:
    post(served, {"subject": who, "purpose": "sale", "status": "denied"})
    pid = person(vault, who).pid
    store(redis_client, served.settings, subject(person(vault, who)))
    key = f"{served.settings.vault.key_prefix}consent:{pid.hex()}"
    redis_client.hset(key, "purpose/sale", rubbish)
    path = f"/v1/profiles/{quote(who, safe='')}"
    assert served.get(path, "activation").status_code == 503
    redis_client.delete(key)
    redis_client.set(key, "no hash")
    assert served.get(path, "activation").status_code == 503
    redis_client.delete(key)
    assert served.get(path, "activation").status_code == 200


def test_an_erased_person_is_answered_like_anybody_and_nothing_is_kept(
    served: Served, vault: Vault, who: str, redis_client: "redis.Redis"
) -> None:
    post(served, WITHDRAWN | {"subject": who})
    pid = person(vault, who).pid
    prefix = served.settings.vault.key_prefix
    assert redis_client.exists(f"{prefix}consent:{pid.hex()}")
    vault.suppress("user", who.removeprefix("user:"), 5)
    assert not redis_client.exists(f"{prefix}consent:{pid.hex()}")
    before = set(redis_client.scan_iter(f"{prefix}*"))

    answer = post(served, WITHDRAWN | {"subject": who, "source": "another"})

    assert answer.status_code == 200
    assert set(answer.json()) == {
        "record_id", "status", "valid_from", "valid_to", "recorded_at", "changed",
    }  # fmt: skip
    assert set(redis_client.scan_iter(f"{prefix}*")) == before
    assert len(on_log(served.settings, pid)) == 1
    unknown = served.get("/v1/consents/user:nobody-at-all", "consent_desk")
    erased = served.get(f"/v1/consents/{quote(who, safe='')}", "consent_desk")
    assert (unknown.status_code, erased.status_code) == (404, 404)
    assert unknown.content == erased.content


def test_a_write_that_meets_an_erasure_leaves_no_overlay(
    served: Served, vault: Vault, redis_client: "redis.Redis"
) -> None:
    pid = bytes(range(16))

    async def put() -> None:
        overlay = ConsentOverlay(served.settings)
        await overlay.put({pid: [Known(Consent("purpose/sale", "granted", 1, None, 1), pid, pid)]})
        await overlay.close()

    asyncio.run(put())
    assert not redis_client.exists(f"{served.settings.vault.key_prefix}consent:{pid.hex()}")


def test_503_while_kafka_is_away_and_nothing_is_in_force(
    redis_url: str, tmp_path: Path, fresh_name: Any, redis_client: "redis.Redis"
) -> None:
    away = settings_of(tmp_path, redis_url=redis_url, name=fresh_name("away"))
    # Known already: else the vault would be compared with the log first.
    redis_client.hset(f"{away.vault.key_prefix}mark", mapping={"id": "m", "made": 0})
    with serving(away) as served:
        answer = post(served, WITHDRAWN)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
    assert not list(redis_client.scan_iter(f"{away.vault.key_prefix}consent:*"))


@pytest.mark.parametrize(
    ("change", "path", "expected"),
    [
        ({"subject": "42"}, "$.subject", "user:ID, anonymous:ID, email:ADDRESS or phone:NUMBER"),
        ({"subject": None}, "$.subject", "string"),
        ({"purpose": "fun"}, "$.purpose", "one of advertising, analytics, personalisation, sale"),
        ({"purpose": None}, "$.purpose", "either a purpose, or a channel and a topic"),
        ({"channel": "email"}, "$.purpose", "either a purpose, or a channel and a topic"),
        ({"status": "subscribed"}, "$.status", "for a purpose one of granted, denied, withdrawn"),
        ({"status": "yes"}, "$.status", "granted"),
        ({"purpose": None, "channel": "email"}, "$.topic", "the name of a topic"),
        ({"purpose": None, "topic": "news"}, "$.channel", "the name of a channel"),
        (
            {"purpose": None, "channel": "email", "topic": "news"},
            "$.status",
            "for a channel and topic one of subscribed, unsubscribed, pending",
        ),
        ({"purpose": None, "channel": "email", "topic": "jana@example.com"}, "$.topic", "pattern"),
        ({"valid_from": "yesterday"}, "$.valid_from", "datetime"),
        ({"valid_from": "2026-01-01T00:00:00"}, "$.valid_from", "timezone"),
        (
            {"valid_from": "2026-01-02T00:00:00Z", "valid_to": "2026-01-01T00:00:00Z"},
            "$.valid_to",
            "a time after valid_from",
        ),
        ({"valid_to": "2026-01-01T00:00:00Z"}, "$.valid_to", "or after now without one"),
        ({"proof": {"text_hash": "abc"}}, "$.proof.text_hash", "pattern"),
        ({"proof": {"text_hash": "00" * 32, "text": "T"}}, "$.proof.text_hash", "SHA-256"),
        ({"proof": {"who": "jana@example.com"}}, "$.proof.who", "not permitted"),
        ({"sorce": "jana@example.com"}, "$.sorce", "not permitted"),
    ],
)
def test_bad_input_is_told_by_path_and_what_belongs_there(
    served: Served, change: dict[str, object], path: str, expected: str
) -> None:
    answer = post(served, WITHDRAWN | change)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    (fault,) = answer.json()["errors"]
    assert fault["path"] == path
    assert expected in fault["expected"]
    assert "jana" not in answer.text


# -- the command line


def run(served: Served, directory: Path, *arguments: str) -> Result:
    config = directory / "headwater.json"
    port = int(served.url.rsplit(":", 1)[1])
    http = {"port": port, "keys": {"consent_desk": KEYS["consent_desk"]}}
    config.write_text(json.dumps({"data_dir": str(directory), "http": http}))
    return CliRunner().invoke(app, ["consent", *arguments, "--config", str(config)])


def test_the_desk_works_from_a_terminal(served: Served, who: str, tmp_path: Path) -> None:
    arguments = (
        "set", "--purpose", "sale", "--status", "granted", "--method", "phone",
        "--text-version", "3",
    )  # fmt: skip
    assert "In force: granted" in run(served, tmp_path, who, *arguments).output
    assert "Nothing changed" in run(served, tmp_path, who, *arguments).output
    shown = run(served, tmp_path, who)
    assert shown.exit_code == 0
    assert "sale" in shown.output and "phone" in shown.output
    as_json = json.loads(run(served, tmp_path, "show", who, "--json").output)
    assert state(as_json, "sale")["allowed"] is True


def test_a_mistake_at_the_terminal_is_told_by_its_place(
    served: Served, who: str, tmp_path: Path
) -> None:
    refused = run(served, tmp_path, "set", who, "--purpose", "fun", "--status", "granted")
    assert isinstance(refused.exception, StoreRefused)
    assert "$.purpose: one of advertising, analytics" in str(refused.exception)
    unknown = run(served, tmp_path, "show", "user:nobody-at-all")
    assert "404 Nobody is known by this identifier" in str(unknown.exception)
    assert "nobody-at-all" not in str(unknown.exception)


# -- the overlay keeps what can matter, and no more

decision = st.builds(
    Consent,
    st.just("purpose/p"),
    st.sampled_from(["granted", "withdrawn", "denied"]),
    st.integers(0, 12),
    st.none() | st.integers(1, 14),
    st.integers(0, 8),
)
bases = st.sampled_from(["consent", "legitimate_interest"])


@given(st.lists(decision, min_size=1, max_size=8), bases)
@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_what_the_overlay_forgets_changes_no_answer(
    served: Served, redis_client: "redis.Redis", decided: list[Consent], basis: Basis
) -> None:
    pid = bytes([7]) * 16
    prefix = served.settings.vault.key_prefix
    redis_client.delete(f"{prefix}consent:{pid.hex()}")
    redis_client.hset(f"{prefix}key:{pid.hex()}", "k", "row")

    async def put_and_read() -> list[Consent]:
        overlay = ConsentOverlay(served.settings)
        try:
            for number, each in enumerate(decided):
                await overlay.put({pid: [Known(each, number.to_bytes(16, "big"), pid)]})
            return await overlay.consents_of(pid)
        finally:
            await overlay.close()

    kept = asyncio.run(put_and_read())
    recorded_by = max(each.recorded_at_ms for each in decided)
    for now_ms in range(recorded_by, 16):
        assert allowed_now(basis, kept, now_ms) == allowed_now(basis, decided, now_ms)


def test_a_thousand_changes_of_mind_leave_one_line(
    served: Served, vault: Vault, who: str, redis_client: "redis.Redis"
) -> None:
    post(served, {"subject": who, "purpose": "sale", "status": "granted"} | PROVEN)
    pid = person(vault, who).pid

    async def change() -> list[Consent]:
        overlay = ConsentOverlay(served.settings)
        try:
            for number in range(1_000):
                status = "granted" if number % 2 else "withdrawn"
                at_ms = 2_000_000_000_000 + number
                consent = Consent("purpose/sale", status, at_ms, None, at_ms)
                await overlay.put({pid: [Known(consent, number.to_bytes(16, "big"), pid)]})
            return await overlay.consents_of(pid)
        finally:
            await overlay.close()

    (left,) = asyncio.run(change())
    assert (left.status, left.recorded_at_ms) == ("granted", 2_000_000_000_999)


def test_whoever_looks_decisions_up_is_written_down(served: Served, vault: Vault, who: str) -> None:
    assert post(served, WITHDRAWN | {"subject": who}).status_code == 200
    get(served, who)
    person = vault.lookup("user", who.removeprefix("user:"))
    assert person is not None
    with connect(served.settings) as client:
        rows = client.query(
            "SELECT role, kind FROM accesses WHERE pid = unhex({pid:String})",
            {"pid": person.pid.hex()},
        ).result_rows
    assert rows == [("consent_desk", "consents")]
