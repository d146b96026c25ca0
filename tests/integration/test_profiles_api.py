"""One person for a tool: from the real vault and the real profile store."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import redis

from runtime.clickhouse import connect
from runtime.clock import now_ms
from runtime.sealing import Person
from runtime.settings import Purpose, Settings
from runtime.vault import Vault
from schemas.activity import MAY_PROFILE, pack
from schemas.codec import SUBJECT
from schemas.subjects import Circumstance, Consent, Money, Subject, Trait
from sinks.migrations.apply import apply_migrations
from tests.integration.serving import Served, at, serving, settings_of

EVENT = bytes(range(16))


@pytest.fixture
def settings(
    tmp_path: Path, redis_url: str, clickhouse_url: str, fresh_name: Any
) -> Iterator[Settings]:
    made = settings_of(
        tmp_path, redis_url=redis_url, clickhouse_url=clickhouse_url, name=fresh_name("people")
    )
    with connect(made, database="default") as client:
        apply_migrations(client, made.clickhouse.database)
        yield made
        client.command(f"DROP DATABASE {made.clickhouse.database}")


@pytest.fixture
def served(settings: Settings) -> Iterator[Served]:
    with serving(settings) as port:
        yield port


@pytest.fixture
def vault(settings: Settings) -> Iterator[Vault]:
    vault = Vault.from_settings(settings)
    yield vault
    vault.close()


def known(vault: Vault, id_type: Any, external_id: str) -> Person:
    (person,) = vault.resolve([(id_type, external_id)])
    assert isinstance(person, Person)
    return person


def subject(person: Person, **changes: Any) -> Subject:
    traits = {"email": "jana@example.com", "vip": True, "gone": None}
    fields: dict[str, Any] = {
        "pid": person.pid,
        "erased_at_ms": None,
        "first_seen_ms": at("2026-01-01T09:00:00Z"),
        "last_seen_ms": at("2026-01-02T09:00:00Z"),
        "events": 3,
        "orders": 1,
        "refunds": 0,
        "spent": [Money("EUR", 19_990_000)],
        "refunded": [],
        "segments": ["customers"],
        "traits": [
            Trait(name.encode().ljust(8), 0, EVENT, person.seal(orjson.dumps([name, value]), EVENT))
            for name, value in traits.items()
        ],
        "consents": [],
        "order_keys": b"",
        "visit_campaigns": [],
        "visits": b"",
        "activity": pack(now_ms(), EVENT, "Product Viewed", "", "tea", "p1", MAY_PROFILE),
        "circumstances": [Circumstance("channel", "organic_search", now_ms(), EVENT[:8])],
    }
    return Subject(**(fields | changes))


def store(client: "redis.Redis", settings: Settings, record: Subject) -> None:
    """Write the profile as the sink does."""
    key = f"{settings.redis.key_prefix}{record.pid.hex()}"
    client.hset(key, mapping={"g": 1, "v": 0, "p": SUBJECT.encode(record)})


@pytest.mark.parametrize(
    ("kind", "value"),
    [("user", "42"), ("anonymous", "a/b c?d"), ("email", "jana@example.com"), ("user", "a:b:ž🎈")],
)
def test_profile_opens_what_is_sealed(
    served: Served, vault: Vault, redis_client: "redis.Redis", kind: str, value: str
) -> None:
    store(redis_client, served.settings, subject(known(vault, kind, value)))
    answer = served.get(f"/v1/profiles/{quote(f'{kind}:{value}', safe='')}", "activation")
    assert answer.status_code == 200, answer.text
    profile = answer.json()
    assert profile["subject"] == f"{kind}:{value}"
    assert profile["traits"] == {"email": "jana@example.com", "vip": True}
    assert profile["computed"]["spent"] == [{"currency": "EUR", "amount": "19.99"}]
    assert profile["computed"]["average_order_value"] == [{"currency": "EUR", "amount": "19.99"}]
    assert profile["computed"]["channel"] == "organic_search"
    assert profile["computed"]["device"] is None
    assert profile["computed"]["windows"]["30d"]["product_views"] == 1
    assert profile["computed"]["favourite_category"] == "tea"
    assert profile["first_seen"] == "2026-01-01T09:00:00.000Z"
    assert profile["segments"] == ["customers"]
    assert answer.headers["cache-control"] == "no-store"


def test_unknown_erased_and_not_yet_stored_people_get_one_and_the_same_answer(
    served: Served, vault: Vault, redis_client: "redis.Redis"
) -> None:
    known(vault, "user", "not-yet-stored")
    stub = known(vault, "user", "stub")
    prefix = served.settings.redis.key_prefix
    redis_client.hset(f"{prefix}{stub.pid.hex()}", mapping={"g": 1, "v": 5, "d": "1"})
    suppressed = known(vault, "user", "suppressed")
    store(redis_client, served.settings, subject(suppressed))
    vault.suppress("user", "suppressed", 5)
    late = known(vault, "user", "late")
    store(redis_client, served.settings, subject(late, erased_at_ms=5))

    answers = [
        served.get(f"/v1/profiles/user:{name}", "activation")
        for name in ("nobody", "not-yet-stored", "stub", "suppressed", "late")
    ]

    assert [answer.status_code for answer in answers] == [404] * 5
    assert len({answer.content for answer in answers}) == 1


def test_looking_somebody_up_makes_nobody(served: Served, redis_client: "redis.Redis") -> None:
    served.get("/v1/profiles/user:curious", "activation")
    assert not list(redis_client.scan_iter(f"{served.settings.vault.key_prefix}*"))


def test_a_person_who_objected_is_not_shown(
    served: Served, vault: Vault, redis_client: "redis.Redis"
) -> None:
    objection = Consent("purpose/personalisation", "withdrawn", 1, None, 1)
    record = subject(known(vault, "user", "42"), consents=[objection])
    store(redis_client, served.settings, record)
    answer = served.get("/v1/profiles/user:42", "activation")
    assert answer.status_code == 403
    assert "personalisation" in answer.json()["detail"]
    assert "jana" not in answer.text


def test_where_the_basis_is_consent_unknown_means_no(
    settings: Settings, vault: Vault, redis_client: "redis.Redis"
) -> None:
    purposes = {"personalisation": Purpose(basis="consent")}
    store(redis_client, settings, subject(known(vault, "user", "42")))
    with serving(settings.model_copy(update={"purposes": purposes})) as strict:
        answer = strict.get("/v1/profiles/user:42", "activation")
        assert answer.status_code == 403
    with serving(settings.model_copy(update={"purposes": {}})) as undeclared:
        assert undeclared.get("/v1/profiles/user:42", "activation").status_code == 403


@pytest.mark.parametrize("text", ["42", "fax:1", "user:", ":", "USER:42"])
def test_a_subject_that_is_none_is_refused_with_the_form(served: Served, text: str) -> None:
    answer = served.get(f"/v1/profiles/{text}", "activation")
    assert answer.status_code == 400
    assert answer.json()["errors"] == [
        {"path": "path.subject", "expected": "user:ID, anonymous:ID, email:ADDRESS or phone:NUMBER"}
    ]


# -- who read it

READS = "SELECT pid, role, kind, fields FROM accesses"


def test_whoever_reads_a_profile_is_written_down_before(
    served: Served, vault: Vault, redis_client: "redis.Redis"
) -> None:
    person = known(vault, "user", "42")
    record = subject(person)
    store(redis_client, served.settings, record)
    assert served.get("/v1/profiles/user:42", "activation").status_code == 200
    assert served.get("/v1/profiles/user:42", "admin").status_code == 200
    assert served.get("/v1/profiles/user:nobody", "admin").status_code == 404
    assert served.get("/v1/profiles/user:42", "viewer").status_code == 403

    with connect(served.settings) as client:
        rows = client.query(f"{READS} ORDER BY read_at").result_rows

    assert [(row[0], row[1], row[2]) for row in rows] == [
        (person.pid, "activation", "profile"),
        (person.pid, "admin", "profile"),
    ]
    hashed = {f"traits/{trait.key.hex()}" for trait in record.traits}
    assert {"computed", "segments", "traits"} | hashed <= set(rows[0][3])
    assert "jana" not in str(rows)
    assert "42" not in [row[1] for row in rows]


def test_without_the_record_of_who_reads_there_is_no_answer(
    settings: Settings, vault: Vault, redis_client: "redis.Redis"
) -> None:
    store(redis_client, settings, subject(known(vault, "user", "42")))
    away = settings.clickhouse.model_copy(update={"url": "http://127.0.0.1:1"})
    with serving(settings.model_copy(update={"clickhouse": away})) as port:
        answer = port.get("/v1/profiles/user:42", "activation")
    assert answer.status_code == 503
    assert "jana" not in answer.text


def test_many_readers_at_once_are_all_written_down_in_few_inserts(
    served: Served, vault: Vault, redis_client: "redis.Redis"
) -> None:
    store(redis_client, served.settings, subject(known(vault, "user", "42")))
    with ThreadPoolExecutor(16) as pool:
        codes = list(
            pool.map(
                lambda _: served.get("/v1/profiles/user:42", "activation").status_code, range(40)
            )
        )
    assert codes == [200] * 40
    with connect(served.settings) as client:
        assert client.query("SELECT count() FROM accesses").result_rows == [(40,)]
        parts = client.query(
            "SELECT max(max_block_number) FROM system.parts WHERE table = 'accesses' "
            "AND database = {database:String}",
            {"database": served.settings.clickhouse.database},
        ).result_rows
    assert parts[0][0] < 40
