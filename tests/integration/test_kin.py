"""The claims in the vault, on a real Valkey: the same persons in any order, and gone with either."""

import asyncio
from collections.abc import Iterator

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consumers.erasures.claims_in_vain import revocations_of
from runtime import kin
from runtime.kin import MOST_CLAIMED, Claimed, Kin
from runtime.sealing import Person
from runtime.vault import Erased, Vault
from schemas.codec import CLAIMED
from schemas.errors import PersonTooLarge
from schemas.identity import Claim, with_claim
from schemas.moves import Claimed as Said
from tests.conftest import FreshName

KEK, PEPPER = b"k" * 32, b"p" * 32
EVENT = b"e" * 16


class Graph:
    """Claims beside a vault, each question on a loop of its own."""

    def __init__(self, url: str, prefix: str) -> None:
        self._url, self.prefix = url, prefix
        self.vault = Vault(url, prefix, KEK, PEPPER)

    def pids(self, count: int) -> list[bytes]:
        """So many people, in the order of their pids."""
        named = [("user", str(number)) for number in range(count)]
        found = self.vault.resolve(named)  # type: ignore[arg-type]
        return sorted(person.pid for person in found if isinstance(person, Person))

    def run(self, ask: str, *args: object) -> object:
        async def asked() -> object:
            client = redis.asyncio.Redis.from_url(self._url)
            try:
                return await getattr(Kin(client, self.prefix, is_durable=True), ask)(*args)
            finally:
                await client.aclose()

        return asyncio.run(asked())

    def put(self, *claims: Claimed) -> None:
        self.run("put", claims)

    def news(self, *claims: Claimed) -> object:
        return self.run("news_among", claims)

    def person(self, pid: bytes) -> object:
        return self.run("pids_of", pid)


@pytest.fixture
def graph(redis_url: str, fresh_name: FreshName) -> Iterator[Graph]:
    made = Graph(redis_url, fresh_name("kin") + ":")
    yield made
    made.vault.close()


def claim(by: bytes, at_ms: int = 1000, cause: str = "identify", event: bytes = EVENT) -> Claim:
    return Claim(by, 3, at_ms, event, cause)


def test_claims_join_people_until_they_are_revoked(graph: Graph) -> None:
    first, second, device = graph.pids(3)
    assert graph.person(device) == (device,)
    graph.put((device, claim(first)), (second, claim(first, cause="alias")))
    assert graph.person(device) == graph.person(first) == (first, *sorted((second, device)))
    graph.put((device, claim(first, 2000, "revoked")))
    assert graph.person(device) == (device,)
    assert graph.person(second) == (first, second)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.integers(-2, 2),
            st.sampled_from(("identify", "revoked", "linked")),
            st.integers(0, 1),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_the_script_keeps_what_the_rule_keeps(
    graph: Graph, said: list[tuple[int, int, str, int]]
) -> None:
    """In the order in which they come, and for another pid in the other one."""
    *by, one, other = graph.pids(5)
    graph.vault._client.delete(*(f"{graph.prefix}claims:{pid.hex()}" for pid in (one, other)))
    claims = [claim(by[n], at, cause, bytes([event]) * 16) for n, at, cause, event in said]
    graph.put(*((one, each) for each in claims), *((other, each) for each in reversed(claims)))
    expected: list[Claim] = []
    for each in claims:
        expected = with_claim(expected, each)
    for pid in (one, other):
        (bonds,) = graph.run("bonds_of", [pid]).values()  # type: ignore[attr-defined]
        kept: list[Claim] = []
        for each in bonds.claims:
            kept = with_claim(kept, each)
        assert kept == expected and len(bonds.claims) == len(expected)


def test_only_claims_on_others_are_taken_back_with_a_person(graph: Graph) -> None:
    first, second, device, mail = graph.pids(4)
    graph.put((device, claim(first)), (device, claim(second, 2000)), (mail, claim(second)))
    graph.put((device, claim(first, 9000, "linked")))

    async def asked(*erased: bytes) -> list[Said]:
        client = redis.asyncio.Redis.from_url(graph._url)
        try:
            kin = Kin(client, graph.prefix, is_durable=True)
            records = await revocations_of(kin, "moves", erased, 5000, lambda pid: pid)
        finally:
            await client.aclose()
        assert [topic for topic, _, _ in records] == ["moves"] * len(records)
        return [CLAIMED.decode(value) for _, _, value in records]

    # After every decision that is known, also where the clock is behind.
    expected = Said(device, second, 3, 9001, second, "revoked", 5000)
    assert asyncio.run(asked(second, mail)) == [expected]
    assert asyncio.run(asked(first, second, device, mail)) == asyncio.run(asked(mail)) == []


def test_two_never_claim_each_other(graph: Graph) -> None:
    one, other, third = graph.pids(3)
    graph.put((one, claim(other)))
    assert graph.news((other, claim(one)), (third, claim(one))) == [(third, claim(one))]
    # Of a vault that has such claims nevertheless nobody waits for the end.
    graph.put((other, claim(one)))
    assert graph.run("people_found", [one, other, third]) == {third: (third,)}


def test_whoever_is_too_large_is_left_out_and_all_others_are_found(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kin, "MOST_PIDS", 3)
    pids = graph.pids(9)
    large, pair, alone = pids[:4], pids[4:6], pids[6:]
    graph.put(*((pid, claim(large[0])) for pid in large[1:]), (pair[1], claim(pair[0])))
    expected = dict.fromkeys(pair, (pair[0], pair[1])) | {pid: (pid,) for pid in alone}
    assert graph.run("people_found", pids) == expected
    assert graph.run("people_found", pids[::-1]) == expected
    assert graph.run("people_found", []) == {}
    with pytest.raises(PersonTooLarge, match="--revoke"):
        graph.person(large[2])


def test_what_is_known_and_on_disk_is_no_news(graph: Graph, redis_client: "redis.Redis") -> None:
    user, device = graph.pids(2)
    said = (device, claim(user))
    graph.put(said)
    # Whoever wrote it a moment ago may not know yet that it is on disk.
    assert graph.news(said) == [said]
    row, field = f"{graph.prefix}claims:{device.hex()}", f"{user.hex()}c"
    line = redis_client.hget(row, field)
    assert isinstance(line, bytes)
    redis_client.hset(row, field, line.rsplit(b" ", 1)[0] + b" 1")
    later, earlier = (device, claim(user, 1001)), (device, claim(user, 999))
    assert graph.news(said, later, earlier) == [earlier]


def test_a_claimant_of_many_gets_no_more_by_calls(
    graph: Graph, redis_client: "redis.Redis"
) -> None:
    user, device = graph.pids(2)
    others = [number.to_bytes(16, "big").hex() for number in range(MOST_CLAIMED)]
    redis_client.sadd(f"{graph.prefix}claimed:{user.hex()}", *others)
    assert graph.news((device, claim(user))) == []


def test_an_erased_one_leaves_no_claim_and_gets_none(
    graph: Graph, redis_client: "redis.Redis"
) -> None:
    first, second, device = graph.pids(3)
    graph.put((device, claim(first)), (device, claim(second)), (second, claim(first)))
    erased = Erased("", first, 1, bytes(16))
    graph.vault.suppress_erased([erased])
    # Of who claimed and was claimed, nothing of the erased pid is left with the others.
    held = [
        key for key in redis_client.scan_iter(f"{graph.prefix}*") if first.hex() in key.decode()
    ]
    assert held == [] and graph.vault.remains_of([erased]) == [0]
    for key in redis_client.scan_iter(f"{graph.prefix}claims:*"):
        assert first.hex() not in str(redis_client.hgetall(key))
    assert graph.person(device) == (second, device)
    graph.put((second, claim(first)))
    assert graph.person(second) == (second, device)
    assert not redis_client.exists(f"{graph.prefix}claimed:{first.hex()}")
