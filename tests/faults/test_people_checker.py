"""Can the harness tell when persons, segments or messages about carts are wrong?

It is shown what Headwater shows of a small history, by hand, with one thing spoilt each. And who is
who, which it works out for itself, is what the product's rules make of the same words.
"""

import json
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from schemas.identity import RANK, Claim, height, standing
from tests.faults import people_loads
from tests.faults.loads import make_calls
from tests.faults.people_checker import judge_journeys, judge_persons, judge_segments, members
from tests.faults.people_loads import PEOPLE, segments
from tests.faults.seen import Seen
from tests.faults.truth import Truth, read_history
from tests.faults.who_is_who import Said, owners, root_of

HOUR_MS = 3_600_000
NOW_MS = 100 * HOUR_MS
DUE_MS = NOW_MS - 20_000
"""When the messages of the history come due: what they are about happened an hour before."""
USER, OTHER, DEVICE, EMAIL = "user:r/u1", "user:r/u2", "anonymous:r/a1", "email:e1@r.example"
LEFT, BOUGHT, LATE = "user:r/s1", "user:r/s2", "user:r/s3"
PIDS = {
    name: f"{number:032x}"
    for number, name in enumerate((USER, OTHER, DEVICE, EMAIL, LEFT, BOUGHT, LATE), 1)
}
SEGMENTS = [
    {"id": "viewed", "name": "r 1", "condition": {"event": "Product Viewed", "within_hours": 1}},
    {"id": "silent", "name": "r 1", "condition": {"not": {"computed": "events", "at_least": 3}}},
    {
        "id": "both",
        "name": "r 1",
        "condition": {"all": [{"segment": "silent"}, {"event": "identify", "within_days": 1}]},
    },
]


def _call(id_: int, person: str, event: str, at_ms: int, **more: Any) -> dict[str, Any]:
    return {
        **{"id": id_, "via": "collector", "outcome": "acknowledged", "attempts": 1},
        **{"message_id": f"r/{id_}", "person": person, "campaign": "r/spring", "event": event},
        **{"occurred_at_ms": at_ms, "amount_micro": 0, "made_at_ms": NOW_MS - 60_000},
        **{"answered_at_ms": NOW_MS - 59_000, **more},
    }


def _cart(id_: int, person: str, kind: str, at_ms: int, **more: Any) -> dict[str, Any]:
    event = {"add": "Product Added", "order": "Order Completed"}[kind]
    return _call(id_, person, event, at_ms - HOUR_MS, cart=kind, product="p1", **more)


LINES: list[dict[str, Any]] = [
    {"run": "r", "explained_from": {"0": 0}},
    # The first of two who claim the device has it.
    _call(1, OTHER, "identify", NOW_MS - 900, one_person=[OTHER, DEVICE]),
    _call(2, USER, "identify", NOW_MS - 990, one_person=[USER, DEVICE]),
    _call(3, DEVICE, "Product Viewed", NOW_MS - 500),
    _call(4, USER, "identify", NOW_MS - 400, one_person=[USER, EMAIL]),
    _call(5, EMAIL, "identify", NOW_MS - 300),
    _call(6, OTHER, "Product Viewed", NOW_MS - 2 * HOUR_MS),
    {
        **{"via": "desk", "outcome": "acknowledged", "attempts": 1, "number": 1},
        **{"one_person": [EMAIL, USER], "how": "revoke"},
    },
    _cart(7, LEFT, "add", DUE_MS - 50),
    _cart(8, LEFT, "add", DUE_MS),
    _cart(9, BOUGHT, "add", DUE_MS),
    _cart(10, BOUGHT, "order", DUE_MS + 5),
    _cart(11, LATE, "add", DUE_MS),
    # On its way while the message was decided: that may have known of it, or not.
    _cart(12, LATE, "order", DUE_MS + 5, made_at_ms=DUE_MS + 90, answered_at_ms=DUE_MS + 400),
    {"via": "segments", "outcome": "begun", "definitions": SEGMENTS},
    {"via": "segments", "outcome": "acknowledged"},
    {"pids": PIDS},
]


@pytest.fixture
def truth(tmp_path: Path) -> Truth:
    path = tmp_path / "history.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return read_history(path)


def _pid(name: str) -> bytes:
    return bytes.fromhex(PIDS[name])


def _record(
    owner: str | None = None, below: tuple[str, ...] = (), segments: tuple[str, ...] = ()
) -> dict[str, Any]:
    return {
        "moved_to": None if owner is None else _pid(owner),
        "members": [{"pid": _pid(name)} for name in below],
        "segments": list(segments),
    }


def _change(seq: int, name: str, id_: str, entered: bool) -> dict[str, Any]:
    place = {"generation": 0, "lane": 1, "seq": seq, "index": 0}
    return {"pid": _pid(name), "segment_id": id_, "entered": entered, **place}


def _due(number: int, name: str, decided_ms: int, quantity: int = 1) -> dict[str, Any]:
    return {
        **{"message_id": bytes([number]) * 16, "pid": _pid(name), "decided_at_ms": decided_ms},
        **{"anchor_at_ms": DUE_MS - HOUR_MS},
        **{"lines": [{"product_id": "p1", "quantity": quantity}]},
    }


@pytest.fixture
def shown() -> Seen:
    """What Headwater shows when all is well; written by hand."""
    seen = Seen(looked_at_ms=NOW_MS, definitions=deepcopy(SEGMENTS))
    seen.records = {
        USER: _record(below=(DEVICE,), segments=("viewed",)),
        OTHER: _record(segments=("both", "silent")),
        DEVICE: _record(owner=USER),
        EMAIL: _record(segments=("both", "silent")),
        **dict.fromkeys((LEFT, BOUGHT, LATE), _record(segments=("silent",))),
    }
    seen.records = deepcopy(seen.records)
    seen.links = [(PIDS[USER], PIDS[DEVICE])]
    told = [
        *((DEVICE, "viewed", True), (DEVICE, "viewed", False), (USER, "viewed", True)),
        *((OTHER, "viewed", True), (OTHER, "viewed", False)),
        *((name, id_, True) for name in (OTHER, EMAIL) for id_ in ("both", "silent")),
        *((name, "silent", True) for name in (LEFT, BOUGHT, LATE)),
    ]
    seen.changes = [_change(seq, *each) for seq, each in enumerate(told)]
    seen.due = [_due(1, LEFT, DUE_MS + 10, 2), _due(2, LATE, DUE_MS + 100)]
    return seen


def judged(truth: Truth, seen: Seen) -> tuple[list[str], list[str], list[str]]:
    counting = list(truth.calls.values())
    return (
        judge_persons(truth, seen),
        judge_segments(truth, seen, counting),
        judge_journeys(truth, seen),
    )


def test_nothing_is_found_where_nothing_is_wrong(truth: Truth, shown: Seen) -> None:
    assert truth.owner_of == {DEVICE: USER}
    assert judged(truth, shown) == ([], [], [])


def test_message_may_know_of_what_was_on_its_way_or_not(truth: Truth, shown: Seen) -> None:
    shown.due.pop()
    assert judged(truth, shown)[2] == []


def test_word_that_was_never_answered_may_count_or_not(truth: Truth, shown: Seen) -> None:
    truth.by_hand[0]["outcome"] = "unknown"
    first, second = truth.possible()
    assert (first.root_of(EMAIL), second.root_of(EMAIL)) == (USER, EMAIL)
    assert judged(second, shown) == ([], [], [])
    assert judge_persons(first, shown)


def _swap_owner(truth: Truth, seen: Seen) -> None:
    seen.records[DEVICE]["moved_to"] = _pid(OTHER)


def _keep_revoked(truth: Truth, seen: Seen) -> None:
    seen.records[USER]["members"].append({"pid": _pid(EMAIL)})


def _enter_twice(truth: Truth, seen: Seen) -> None:
    seen.changes.append(_change(99, USER, "viewed", True))


def _stay_by_time(truth: Truth, seen: Seen) -> None:
    """Who looked at something two hours ago never left."""
    seen.records[OTHER]["segments"].append("viewed")
    at = seen.changes.index(_change(4, OTHER, "viewed", False))
    del seen.changes[at]


def _send_twice(truth: Truth, seen: Seen) -> None:
    again = dict(seen.due[0])
    seen.due.append(again | {"decided_at_ms": DUE_MS + 900})


SPOILT: dict[str, tuple[int, Callable[[Truth, Seen], object]]] = {
    "a device belongs to the second who claimed it": (0, _swap_owner),
    "a device belongs to nobody": (
        0,
        lambda truth, seen: seen.records[DEVICE].update(moved_to=None),
    ),
    "a root has lost a member": (0, lambda truth, seen: seen.records[USER]["members"].clear()),
    "a revoked member is still there": (0, _keep_revoked),
    "a record of a member is lost": (0, lambda truth, seen: seen.records.pop(DEVICE)),
    "a link is lost": (0, lambda truth, seen: seen.links.clear()),
    "a link was revoked": (0, lambda truth, seen: seen.links.append((PIDS[USER], PIDS[EMAIL]))),
    "somebody is in a segment in vain": (
        1,
        lambda truth, seen: seen.records[EMAIL]["segments"].append("viewed"),
    ),
    "somebody never left by time": (1, _stay_by_time),
    "somebody is told to enter twice": (1, _enter_twice),
    "somebody was never told to enter": (1, lambda truth, seen: seen.changes.pop()),
    "a member was never told to leave": (1, lambda truth, seen: seen.changes.pop(1)),
    "somebody leaves before they enter": (1, lambda truth, seen: seen.changes.pop(3)),
    "a change is there twice": (1, lambda truth, seen: seen.changes.append(seen.changes[-1])),
    "somebody is shown in no segment": (
        1,
        lambda truth, seen: seen.profiles.update({USER: {"segments": []}}),
    ),
    "the segments are older ones": (
        1,
        lambda truth, seen: (seen.definitions or []).pop(),
    ),
    "a message is lost": (2, lambda truth, seen: seen.due.pop(0)),
    "a message is there twice": (2, _send_twice),
    "a message about one cart has two ids": (
        2,
        lambda truth, seen: seen.due.append(_due(7, LEFT, DUE_MS + 900, 2)),
    ),
    "a message comes too early": (2, lambda truth, seen: seen.due[0].update(decided_at_ms=DUE_MS - 1)),
    "a message is about half the cart": (
        2,
        lambda truth, seen: seen.due[0]["lines"][0].update(quantity=1),
    ),
    "a message comes after an order": (
        2,
        lambda truth, seen: seen.due.append(_due(7, BOUGHT, DUE_MS + 900)),
    ),
    "a message comes after an order that was acknowledged meanwhile": (
        2,
        lambda truth, seen: seen.due[1].update(decided_at_ms=DUE_MS + 401),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_checker_names_what_is_wrong_with_people(truth: Truth, shown: Seen, what: str) -> None:
    kind, spoil = SPOILT[what]
    spoil(truth, shown)
    found = judged(truth, shown)
    assert found[kind]
    assert not any(found[other] for other in range(3) if other != kind)


def test_device_that_was_known_to_be_somebodys_is_told_nothing(truth: Truth, shown: Seen) -> None:
    shopper, device = "user:r/s4", "anonymous:r/d4"
    truth.pids = truth.pids | {shopper: f"{8:032x}", device: f"{9:032x}"}
    truth.calls[20] = _call(20, shopper, "identify", NOW_MS - 800, one_person=[shopper, device])
    truth.calls[21] = _cart(21, device, "add", DUE_MS)
    truth = truth.find_owners()
    shown.due.append(_due(8, LEFT, DUE_MS + 500) | {"pid": bytes.fromhex(truth.pids[shopper])})
    assert judge_journeys(truth, shown) == []
    shown.due[-1]["pid"] = bytes.fromhex(truth.pids[device])
    assert judge_journeys(truth, shown)


@pytest.mark.parametrize("seed", range(0, 300, 100))
def test_who_is_who_is_what_the_rules_make_of_the_same_words(seed: int) -> None:
    for each in range(seed, seed + 100):
        _say_and_compare(random.Random(each))


def _say_and_compare(chance: random.Random) -> None:
    kinds = ("user", "user", "anonymous", "anonymous", "email", "phone")
    pids = {f"{kind}:{n}": chance.randbytes(16).hex() for n, kind in enumerate(kinds)}
    said, claims = [], []
    for at in chance.sample(range(1000), 14):
        names = tuple(chance.sample(sorted(pids), chance.choice((2, 2, 2, 3))))
        how = chance.choices(("call", "link", "revoke"), (6, 1, 2))[0]
        said.append(Said(names, at, how))
        top = max(names, key=lambda name: height(*name.split(":")))
        cause = {"call": "identify", "link": "linked", "revoke": "revoked"}[how]
        claim = Claim(_bytes(pids, top), _rank(top), at, bytes(16), cause)
        claims += [(name, claim) for name in names if name != top]
    found = owners(said, pids)
    assert owners(chance.sample(said, len(said)), pids) == found
    for name in pids:
        stands = standing([claim for of, claim in claims if of == name])
        owner = found.get(name)
        assert (stands.claimant if stands else None) == (owner and _bytes(pids, owner)), name
        assert root_of(name, found) not in found


def _rank(name: str) -> int:
    return RANK[name.partition(":")[0]]


def _bytes(pids: dict[str, str], name: str) -> bytes:
    return bytes.fromhex(pids[name])


def test_load_has_all_that_is_to_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any seed: merges of each kind, carts of each story, and a time for each call."""
    monkeypatch.setattr(people_loads, "_now_ms", lambda: NOW_MS)
    requests = make_calls(PEOPLE, "r", random.Random(3))
    calls = [call for _ in range(250) for batch, is_copy in [next(requests)] if not is_copy
             for call in batch if not call.is_broken]  # fmt: skip
    timed = [call.occurred_at_ms for call in calls]
    assert len(timed) == len(set(timed))
    named = {name.partition(":")[0] for call in calls for name in call.more.get("one_person", ())}
    assert named == {"user", "anonymous", "email", "phone"}
    assert {call.event for call in calls} >= {"alias", "identify", "Product Removed"}
    assert sum("/s" in call.person for call in calls) > 100
    assert sum(1 for call in calls if "one_person" in call.more) > 100
    for version in (0, 1):
        by_then = [call.line(1) | call.more for call in calls if call.person.endswith("/u3")]
        definitions = segments(version, "r", random.Random(3))
        assert members(definitions, by_then, (calls[0].occurred_at_ms or 0) + 1)
