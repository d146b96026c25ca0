"""When is an erasure final, what does its certificate say, and is a changed one noticed?"""

import msgspec.structs
import orjson
import pytest

from consumers.rules.certificate import (
    FIRST_PREVIOUS,
    Json,
    broken_links,
    canonical,
    certificate_of,
    hash_of,
)
from consumers.rules.erasure import (
    SOON_MS,
    Erasure,
    Horizons,
    Look,
    Pending,
    Status,
    next_look_ms,
    pending_of,
    together,
)
from runtime.signing import Signer
from schemas.topics import DAY_MS

HORIZONS = Horizons(
    7 * DAY_MS, 30 * DAY_MS, 30 * DAY_MS, 8 * DAY_MS, 480_000, 20 * DAY_MS, 7 * DAY_MS
)
PID = "ab" * 16
BEGUN = Erasure("cd" * 16, PID, 1, 1_000, "withdrawn")
SIGNER = Signer(b"s" * 32)


def look(remaining: int) -> Look:
    return Look("vault", "row", "EXISTS", remaining, 2_000)


def provisional(**changes: object) -> Erasure:
    made = msgspec.structs.replace(
        BEGUN, status="provisional", provisional_at_ms=5_000, looks=(look(0),)
    )
    made = msgspec.structs.replace(made, **changes)
    return msgspec.structs.replace(made, pending=pending_of(made, HORIZONS))


def test_what_goes_with_time_is_told_soonest_first_and_counts_from_the_last_step() -> None:
    waits = pending_of(provisional(), HORIZONS)
    assert [wait.until_ms for wait in waits] == sorted(wait.until_ms for wait in waits)
    assert {wait.what.split(":")[0]: (wait.until_ms - 5_000) / DAY_MS for wait in waits} == {
        "events.collected": 7,
        "subjects": 15,
        "subjects.moves, journeys.due, segments.changed": 7,
        "backups of every store": 20,
        "events.accepted": 30,
        "events.rejected": 30,
        "facts": 30 + 480_000 / DAY_MS,
    }
    late = pending_of(provisional(forgotten_at_ms=10 * DAY_MS), HORIZONS)
    assert next(wait for wait in late if "subjects:" in wait.what).until_ms == 18 * DAY_MS


@pytest.mark.parametrize(
    ("erasure", "due_ms"),
    [
        (BEGUN, 9_000 + SOON_MS),
        (provisional(rewritten_at_s=9, files_rewritten_at_ms=9), 9_000 + DAY_MS),
        (provisional(), 9_000 + 3_600_000),
        (provisional(rewritten_at_s=9), 9_000 + 3_600_000),
        (provisional(looks=(look(1),)), 9_000 + 30_000),
        (provisional(status="final"), 9_000 + 3_600_000),
        (provisional(status="final", files_rewritten_at_ms=9), None),
    ],
    ids=[
        "running",
        "provisional",
        "with deleted rows",
        "with deleted values",
        "something is back",
        "final, with deleted values",
        "final",
    ],
)
def test_it_is_looked_at_until_it_is_final(erasure: Erasure, due_ms: int | None) -> None:
    assert next_look_ms(erasure, 9_000, DAY_MS) == due_ms


def test_next_horizon_is_not_slept_through() -> None:
    at_ms = 5_000 + 7 * DAY_MS - 60_000
    assert next_look_ms(provisional(), at_ms, DAY_MS) == 5_000 + 7 * DAY_MS


def chain_of(count: int) -> list[Json]:
    chain: list[Json] = []
    previous = FIRST_PREVIOUS
    for number in range(1, count + 1):
        body = certificate_of(
            provisional(),
            subject="ef" * 32,
            number=number,
            previous=previous,
            issued_at_ms=6_000,
            kept=("counters",),
            code="headwater 1",
            public_key=SIGNER.public_key,
        )
        signature = SIGNER.sign(canonical(body))
        chain.append({"certificate": body, "signature": signature})
        previous = hash_of(body, signature)
    return chain


def test_certificate_names_the_subject_by_its_hash_only() -> None:
    body = chain_of(1)[0]["certificate"]
    assert body["subject_hmac"] == "ef" * 32
    assert PID not in canonical(body).decode()
    assert body["stores"][0]["remaining"] == 0
    assert len(body["pending"]) == 7


def test_certificate_is_the_same_bytes_after_a_store_and_back() -> None:
    link = chain_of(1)[0]
    again = orjson.loads(orjson.dumps(link))
    assert SIGNER.is_ours(canonical(again["certificate"]), again["signature"])


def test_changed_certificate_is_no_longer_ours() -> None:
    link = chain_of(1)[0]
    body = link["certificate"] | {"status": "final"}
    assert not SIGNER.is_ours(canonical(body), link["signature"])
    assert not Signer(b"t" * 32).is_ours(canonical(link["certificate"]), link["signature"])
    assert not SIGNER.is_ours(canonical(link["certificate"]), "no base64")


def test_chain_shows_where_one_was_taken_out_or_put_in() -> None:
    chain = chain_of(4)
    assert broken_links(chain) == []
    assert broken_links([chain[0], *chain[2:]]) == [2, 3]
    assert broken_links([*chain[:2], chain[1], *chain[3:]]) == [3, 4]


def test_the_erasures_of_one_person_are_as_far_as_the_slowest() -> None:
    def erasure(number: int, status: Status, remaining: int, until_ms: int) -> Erasure:
        looks = (
            Look("vault", "row", "EXISTS", remaining, number),
            Look("facts", "rows", "count", 0, 10 - number),
        )
        waits = (Pending("backups", until_ms), Pending(f"only {number}", number))
        return Erasure(f"{number:032x}", "aa", 0, number, "other", status, looks, waits)

    one, other = erasure(1, "provisional", 0, 50), erasure(2, "final", 3, 40)
    found = together([one, other])
    assert (found.erasure_id, found.status) == (one.erasure_id, "provisional")
    assert together([other, one]).status == "provisional"
    assert {(look.store, look.remaining, look.checked_at_ms) for look in found.looks} == {
        ("vault", 3, 1),
        ("facts", 0, 8),
    }
    assert [(wait.what, wait.until_ms) for wait in found.pending] == [
        ("only 1", 1),
        ("only 2", 2),
        ("backups", 50),
    ]
