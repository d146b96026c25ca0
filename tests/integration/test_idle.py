"""Whoever nobody needs any more is forgotten; nobody else is, and whoever comes back counts again."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition
from pydantic import ValidationError

from consumers.erasures.idle_to_erasures import ask_to_forget
from consumers.erasures.limits_in_time import keep_limits
from headwater.inventory import take_inventory
from headwater.roles import prepare_stores
from runtime import kin
from runtime.clickhouse import connect
from runtime.clock import now_ms
from runtime.consent_overlay import ConsentOverlay
from runtime.log_ends import log_ends
from runtime.sealing import Person
from runtime.settings import Profiles, Settings
from runtime.vault import Erased, Identifier, Suppressed, Vault
from schemas.codec import ERASURE_REQUESTED
from schemas.decisions import Known
from schemas.identity import RANK, Claim
from schemas.requests import ErasureRequested
from schemas.subjects import Consent
from schemas.topics import DAY_MS
from sinks.rules.rows import FACT_COLUMNS, fact_rows
from tests.erasing import house
from tests.integration.serving import MORNING_MS, settings_of
from tests.integration.test_profiles_api import known
from tests.rules.test_rows import EVENT
from tests.waiting import eventually

NOW_MS = MORNING_MS
OLD_MS = NOW_MS - 101 * DAY_MS
DECISIONS = {
    "refused long ago": ("withdrawn", OLD_MS),
    "granted long ago": ("granted", OLD_MS),
    "granted lately": ("granted", NOW_MS - DAY_MS),
}


@pytest.fixture
def settings(
    tmp_path: Path, kafka: str, redis_url: str, clickhouse_url: str, fresh_name: Any
) -> Iterator[Settings]:
    made = settings_of(
        tmp_path, kafka=kafka, redis_url=redis_url, clickhouse_url=clickhouse_url,
        name=fresh_name("idle"),
    ).model_copy(update={"profiles": Profiles(idle_days=100)})  # fmt: skip
    prepare_stores(made)
    yield made
    with connect(made, database="default") as client:
        client.command(f"DROP DATABASE {made.clickhouse.database}")


def receive(settings: Settings, pid: bytes, *times_ms: int) -> None:
    with connect(settings) as client:
        for at_ms in times_ms:
            event = msgspec.structs.replace(
                EVENT, pid=pid, event_id=at_ms.to_bytes(16, "big"), received_at_ms=at_ms
            )
            columns = list(zip(*fact_rows(event, 0, at_ms), strict=True))
            client.insert("facts", columns, column_names=FACT_COLUMNS, column_oriented=True)


async def decide(settings: Settings, pid: bytes, status: str, at_ms: int) -> None:
    overlay = ConsentOverlay(settings)
    consent = Consent("purpose/advertising", status, at_ms, None, at_ms)
    await overlay.put({pid: [Known(consent, pid, pid)]})
    await overlay.close()


def asked(settings: Settings) -> list[ErasureRequested]:
    topic, servers = settings.topic_names.erasures, settings.kafka.bootstrap_servers
    ends = {p: end for p, (_, end) in log_ends(servers, topic, settings.kafka.partitions).items()}
    reader = Consumer(
        {"bootstrap.servers": servers, "group.id": "t", "auto.offset.reset": "earliest"}
    )
    reader.assign([TopicPartition(topic, p, 0) for p in ends])
    found = [reader.poll(30) for _ in range(sum(ends.values()))]
    reader.close()
    return [ERASURE_REQUESTED.decode(message.value()) for message in found if message is not None]


def test_only_idle_people_who_refused_nothing_are_asked_to_be_forgotten(settings: Settings) -> None:
    vault = Vault.from_settings(settings)
    pids = {
        name: known(vault, "user", name).pid
        for name in ("gone", "back lately", "erased", "only known", *DECISIONS)
    }
    for name in ("gone", "erased", *DECISIONS):
        receive(settings, pids[name], OLD_MS)
    receive(settings, pids["back lately"], OLD_MS, NOW_MS - 99 * DAY_MS)
    for name, decision in DECISIONS.items():
        asyncio.run(decide(settings, pids[name], *decision))
    vault.suppress("user", "erased", 5)

    assert asyncio.run(ask_to_forget(settings, NOW_MS)) == 2

    requests = asked(settings)
    assert {each.pid for each in requests} == {pids["gone"], pids["granted long ago"]}
    assert {each.reason for each in requests} == {"idle"}
    assert [each.subjects for each in requests if each.pid == pids["gone"]] == [
        [vault.hash_of("user", "gone")]
    ]
    asyncio.run(ask_to_forget(settings, NOW_MS))
    assert {each.erasure_id for each in asked(settings)} == {each.erasure_id for each in requests}
    vault.close()


async def put(settings: Settings, *claims: tuple[bytes, Claim]) -> None:
    overlay = ConsentOverlay(settings)
    await overlay.kin.put(claims)
    await overlay.close()


def test_a_person_is_idle_under_all_identifiers_or_not_at_all(settings: Settings) -> None:
    vault = Vault.from_settings(settings)
    claims: list[tuple[bytes, Claim]] = []
    pids: dict[str, list[bytes]] = {}
    for name in ("idle", "awake", "refusing"):
        device = known(vault, "anonymous", name).pid
        mail = known(vault, "email", f"{name}@example.org").pid
        user = known(vault, "user", name).pid
        said = Claim(user, RANK["user"], OLD_MS, device, "identify")
        claims += [(device, said), (mail, said)]
        pids[name] = [user, device, mail]
        receive(settings, device, OLD_MS)
        receive(settings, user, OLD_MS - 1)
    receive(settings, pids["awake"][0], NOW_MS - DAY_MS)
    asyncio.run(put(settings, *claims))
    asyncio.run(decide(settings, pids["refusing"][2], "withdrawn", OLD_MS))
    vault.close()

    assert asyncio.run(ask_to_forget(settings, NOW_MS)) == 1

    # The address goes too, although nothing was ever sent under it.
    assert sorted(each.pid for each in asked(settings)) == sorted(pids["idle"])


def test_idle_people_are_found_beside_one_who_is_too_large(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kin, "MOST_PIDS", 2)
    vault = Vault.from_settings(settings)
    names = [f"{name} and idle" for name in ("large", "first", "second", "plain")]
    pids = [known(vault, "user", name).pid for name in names]
    for pid in pids:
        receive(settings, pid, OLD_MS)
    vault.close()
    claims = [(pid, Claim(pids[0], RANK["user"], OLD_MS, pid, "alias")) for pid in pids[1:3]]
    asyncio.run(put(settings, *claims))
    asyncio.run(ask_to_forget(settings, NOW_MS))
    assert {each.pid for each in asked(settings)} & set(pids) == {pids[3]}


def test_more_people_than_a_page_holds_are_all_asked_to_be_forgotten(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.erasures.idle_to_erasures._PAGE", 3)
    vault = Vault.from_settings(settings)
    for number in range(10):
        receive(settings, known(vault, "user", f"u-{number}").pid, OLD_MS)
    vault.close()
    assert asyncio.run(ask_to_forget(settings, NOW_MS)) == 10
    assert len(asked(settings)) == 10


def test_the_role_looks_by_itself_where_a_limit_is_set(settings: Settings) -> None:
    vault = Vault.from_settings(settings)
    receive(settings, known(vault, "user", "gone").pid, OLD_MS)
    vault.close()
    stop = Event()
    without_limit = settings.model_copy(update={"profiles": Profiles()})
    keep_limits(without_limit, stop, lambda: NOW_MS)()
    assert asked(settings) == []
    await_end = keep_limits(settings, stop, lambda: NOW_MS)
    try:
        eventually(lambda: len(asked(settings)) == 1)
    finally:
        stop.set()
        await_end()


def test_an_idle_person_is_gone_everywhere_no_number_changes_and_whoever_comes_back_counts(
    kafka: str, redis_url: str, clickhouse_url: str, tmp_path: Path, fresh_name: Any
) -> None:
    with house(
        tmp_path, fresh_name("idle"), kafka=kafka, redis_url=redis_url,
        clickhouse_url=clickhouse_url,
    ) as home:  # fmt: skip
        settings = home.settings.model_copy(update={"profiles": Profiles(idle_days=30)})
        gone, stays = home.someone(), home.someone()
        before = [home.opened(gone), home.order(gone), home.order(gone)]
        home.send(*before, home.order(stays))
        with home.roles():
            shown = home.await_counted(orders=3, buyers=2, unique_opened=1)
            pid = home.pid_of(gone)
            home.clickhouse.command(
                "ALTER TABLE facts UPDATE received_at = received_at - toIntervalDay(31) "
                f"WHERE pid = unhex('{pid.hex()}')",
                settings={"mutations_sync": 1},
            )
            assert asyncio.run(ask_to_forget(settings, now_ms())) == 1
            state = home.await_status(home.vault.erasure_id_of(pid).hex())
            assert state["certificate"]["certificate"]["reason"] == "idle"
            assert {look["store"] for look in state["stores"]} == {
                "vault", "messages", "profiles", "subjects", "facts",
            }  # fmt: skip
            assert home.vault.lookup("user", gone) is None and home.facts_of(pid) == 0
            assert home.redis.hget(settings.redis.key_prefix + pid.hex(), "p") is None
            assert home.campaign() == shown

            # What happened before is told again, late or from a file: it was counted, and stays so.
            home.send(*before, home.order(gone, timestamp=before[0]["timestamp"]))
            assert home.vault.lookup("user", gone) is None
            # What they do next is counted, once, and begins a new profile; the past stays out.
            again = home.order(gone)
            home.send(again, before[1])
            home.send(again)
            home.await_counted(orders=4, buyers=3, unique_opened=1)
            new = home.pid_of(gone)
            assert new != pid

            def has_a_new_profile() -> bool:
                # Another sink writes profiles than counts: either may be behind.
                answer = home.http.get(f"/v1/profiles/user:{gone}")
                return answer.status_code == 200 and answer.json()["computed"]["orders"] == 1

            eventually(has_a_new_profile)
            assert home.verdict().lines()[0].startswith("live = verified")
            # They are nobody's erasure: asking for one again is about the new person.
            assert asyncio.run(ask_to_forget(settings, now_ms())) == 0


def test_an_idle_person_who_decides_is_somebody_again(settings: Settings) -> None:
    vault = Vault.from_settings(settings)
    old = known(vault, "user", "gone").pid
    subject = vault.hash_of("user", "gone")
    erased = Erased(subject, old, NOW_MS, vault.erasure_id_of(old), is_idle=True)
    vault.suppress_erased([erased])
    identifier: Identifier = ("user", "gone")
    late, next_ = ({identifier: NOW_MS - 1}, {identifier: NOW_MS + 1})
    assert isinstance(vault.resolve([identifier])[0], Suppressed)
    assert isinstance(vault.resolve([identifier], heard_at_ms=lambda: late)[0], Suppressed)
    (back,) = vault.resolve([identifier], heard_at_ms=lambda: next_)
    assert isinstance(back, Person)
    assert back.pid != old and back.erased_before_ms == NOW_MS
    # The role repeats itself, and whoever came back stays.
    vault.suppress_erased([erased])
    assert known(vault, "user", "gone").pid == back.pid
    # Erased on request they come back by signing up alone.
    vault.suppress_erased([Erased(subject, back.pid, NOW_MS + 5, b"e" * 16)])
    later = {identifier: NOW_MS + 9}
    assert isinstance(vault.resolve([identifier], heard_at_ms=lambda: later)[0], Suppressed)
    assert isinstance(vault.resolve([identifier], later)[0], Person)
    vault.close()


@pytest.mark.parametrize("days", [-1, 1, 29])
def test_nobody_is_forgotten_while_copies_of_their_events_may_come(days: int) -> None:
    with pytest.raises(ValidationError):
        Profiles(idle_days=days)


def test_the_limit_is_shown_where_it_holds(settings: Settings) -> None:
    kept = {
        place.name.rsplit(".", 1)[-1].rsplit(":", 1)[-1]: place.kept
        for place in take_inventory(settings)
    }
    assert kept["facts"] == "until the person is erased, or idle for 100 days"
    assert kept["{pid}"].endswith("or idle for 100 days")
    assert kept["subjects"].endswith("or idle for 100 days")
    assert kept["accesses"] == "365 days"
