"""Is a person gone from every store, is that proved, and does every number stay?"""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from consumers.erasures.api import Erasures
from consumers.erasures.erasures_to_certificates import Desk
from consumers.erasures.store import ErasureStore
from consumers.rules.times import rfc3339
from headwater.erase import run_verify
from runtime.clock import now_ms
from runtime.deliveries import Deliveries
from runtime.vault import Person, Vault
from schemas.requests import ErasureRequested
from tests.erasing import DAY_MS, House, house
from tests.waiting import eventually


@pytest.fixture(scope="module")
def home(
    kafka: str, redis_url: str, clickhouse_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    with house(
        tmp_path_factory.mktemp("house"),
        f"erasing-{now_ms()}",
        kafka=kafka,
        redis_url=redis_url,
        clickhouse_url=clickhouse_url,
    ) as made:
        yield made


def test_erasing_takes_the_person_out_of_every_store_and_no_number_changes(home: House) -> None:
    ada, bob = home.someone(), home.someone()
    for user in (ada, bob):
        home.send(
            home.call(user, "identify", traits={"name": "Ada"}),
            home.opened(user),
            home.order(user),
            home.order(user),
        )
    with home.roles():
        before = home.await_counted(orders=4, unique_opened=2, buyers=2, visitors=2)
        points = {metric: home.series(metric) for metric in ("orders", "buyers", "visitors")}
        pid = home.pid_of(ada)
        assert home.facts_of(pid) > 0
        erasure_id = home.erased(ada)
        assert home.vault.lookup("user", ada) is None  # at once, before any role has moved
        assert home.erased(ada) == erasure_id
        state = home.await_status(erasure_id)
        assert home.facts_of(pid) == 0
        assert home.campaign() == before
        assert {metric: home.series(metric) for metric in points} == points
        assert home.verdict().lines()[0].startswith("live = verified")
        # And it goes on counting.
        home.send(home.order(bob))
        home.await_counted(orders=5, buyers=2)
        assert home.verdict().is_verified
        # Another sink writes profiles than counts: either may be behind.
        eventually(lambda: home.http.get(f"/v1/profiles/user:{bob}").status_code == 200)
    stores = {"vault", "messages", "profiles", "subjects", "facts"}
    assert {look["store"] for look in state["stores"]} == stores
    assert not any(look["remaining"] for look in state["stores"])
    assert len(state["pending"]) == 7
    body = state["certificate"]["certificate"]
    assert body["status"] == "provisional"
    assert pid.hex() not in str(state) and ada not in str(state)
    assert body["subject_hmac"] == home.vault.hash_of("user", ada)
    assert home.http.get(f"/v1/profiles/user:{ada}").status_code == 404
    assert home.redis.hget(home.settings.redis.key_prefix + pid.hex(), "p") is None


class Overtaken(Vault):
    """A vault in which somebody else's request is done between two looks of ours."""

    def identifiers_of(self, pids: Sequence[bytes]) -> list[tuple[Person, str, str] | None]:
        overtake = self.__dict__.pop("overtake", None)
        if overtake is not None:
            overtake()
        return super().identifiers_of(pids)


def test_of_two_who_ask_at_once_both_hear_of_one_erasure(home: House) -> None:
    ida, mail = home.someone(), f"{home.someone()}@example.org"
    home.send(home.call(ida, "identify", traits={"email": mail}))
    first: list[str] = []

    async def ask() -> str | None:
        vault = Overtaken.from_settings(home.settings)
        vault.overtake = lambda: first.append(home.erased(ida))  # type: ignore[attr-defined]
        store = ErasureStore.from_settings(home.settings)
        made = Erasures(
            home.settings, vault, store, Deliveries(home.settings.kafka.bootstrap_servers)
        )
        await made.start()
        try:
            return await made.request("email", mail, "withdrawn")
        finally:
            await made.close()

    assert [asyncio.run(ask())] == first


def test_asking_for_nobody_says_so_and_for_a_wrong_thing_too(home: House) -> None:
    assert home.erase("nobody").status_code == 404
    assert home.erase("nobody", role="viewer").status_code == 403
    assert home.http.get(f"/v1/erasures/{'0' * 32}").status_code == 404
    assert home.http.get("/v1/erasures/../").status_code == 404
    assert home.http.get(f"/v1/erasures/{'0' * 32}", "viewer").status_code == 403


def test_late_and_imported_events_are_dropped_and_a_sign_up_begins_anew(home: House) -> None:
    eve = home.someone()
    home.send(home.order(eve, "summer"))
    first = home.pid_of(eve)
    erasure_id = home.erased(eve)
    long_ago = rfc3339(now_ms() - 40 * DAY_MS)
    home.send(
        home.order(eve, "summer"),
        home.order(eve, "summer", timestamp=long_ago),
        home.call(eve, "identify", traits={"name": "Eve"}),
        # An import may hold the old sign-up, or one without a time.
        home.call(eve, event="Signed Up", timestamp=long_ago),
        {**home.call(eve, event="Signed Up"), "timestamp": None},
    )
    assert home.vault.lookup("user", eve) is None
    home.send(home.call(eve, event="Signed Up"), home.order(eve, "summer"))
    second = home.pid_of(eve)
    assert second != first
    home.send(home.order(eve, "summer", timestamp=long_ago))  # of the past: not hers
    with home.roles():
        home.await_status(erasure_id)
        assert home.pid_of(eve) == second
        assert home.verdict().is_verified
        assert home.campaign("summer")["orders"] == 2
        assert home.campaign("summer")["buyers"] == 2
    assert home.erased(eve) != erasure_id


def test_role_suppresses_whom_the_api_did_not_get_to(home: House) -> None:
    max_ = home.someone()
    home.send(home.order(max_, "may"))
    person = home.vault.lookup("user", max_)
    assert person is not None
    # What a crash between the request and the suppression leaves.
    erasure_id = home.vault.erasure_id_of(person.pid)
    subject = home.vault.hash_of("user", max_)
    with Desk(home.settings) as desk:
        desk.tell([ErasureRequested(erasure_id, person.pid, now_ms(), "objected", [subject])])
    assert home.vault.lookup("user", max_) is not None
    with home.roles():
        home.await_known(erasure_id.hex())
        home.await_status(erasure_id.hex())
    assert home.vault.lookup("user", max_) is None
    assert home.erased(max_) == erasure_id.hex()


def test_verifying_checks_signature_and_chain_and_looks_again(home: House) -> None:
    kim = home.someone()
    home.send(home.order(kim, "june"))
    erasure_id = home.erased(kim)
    with home.roles():
        home.await_status(erasure_id)
    said: list[str] = []
    answer = run_verify(home.settings, erasure_id, say=said.append)
    assert answer.is_well
    assert answer.check == {"signature": "ours", "broken_links": []}
    assert any("signature ours, chain unbroken" in line for line in said)
    key = f"{home.settings.vault.key_prefix}erasures:certificates"
    kept = cast("list[bytes]", home.redis.lrange(key, 0, -1))
    try:
        home.redis.lset(key, -1, kept[-1].decode().replace('"remaining":0', '"remaining":1'))
        assert not run_verify(home.settings, erasure_id, say=said.append).is_well
        home.redis.lset(key, -1, kept[-1].decode())
        home.redis.lrem(key, 1, kept[0].decode())
        broken = run_verify(home.settings, erasure_id, say=said.append)
        assert not broken.is_well
    finally:
        home.redis.delete(key)
        home.redis.rpush(key, *kept)
    assert run_verify(home.settings, erasure_id, say=said.append).is_well


def test_verifying_takes_her_key_from_redis_files_and_her_pid_from_remembered_statements(
    home: House,
) -> None:
    lea = home.someone()
    home.send(home.order(lea, "july"))
    pid = home.pid_of(lea)
    key = home.redis.hget(f"{home.settings.vault.key_prefix}key:{pid.hex()}", "k")
    files = Path(str(cast("Any", home.redis.config_get("dir"))["dir"])) / "appendonlydir"
    with home.roles():
        eventually(lambda: home.facts_of(pid))
        erasure_id = home.erased(lea)
        home.await_status(erasure_id)
        assert isinstance(key, bytes)
        assert any(key in file.read_bytes() for file in files.iterdir())
        home.look(erasure_id)
    assert not any(key in file.read_bytes() for file in files.iterdir())

    def is_forgotten() -> bool:
        with Desk(home.settings) as desk:
            assert desk.stores.facts.statements_of(pid.hex()) == 0
        return True

    eventually(is_forgotten, within_s=60, every_s=0.5)
