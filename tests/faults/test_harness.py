"""Can the fault harness be believed, and does Headwater pass a short form of it?

The checker is shown recorded results with one thing spoilt each: it must name it. Then a few faults
of each kind hit one rig, under seeds that the test prints; `make faults` does all of them, often.
"""

import ast
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Say
from tests.faults import kill_faults, ledger, points
from tests.faults.checker import judge
from tests.faults.fault import Fault
from tests.faults.faults import FAULTS
from tests.faults.kill_faults import end_at_points
from tests.faults.loads import PLAIN, Call, make_calls
from tests.faults.one_run import run_once
from tests.faults.people_loads import PEOPLE
from tests.faults.rig import Rig
from tests.faults.seen import Seen
from tests.faults.truth import METRICS, Truth, read_history

_ENDS = (
    end_at_points("streams before, in and after a commit", count=2),
    end_at_points("accepted-to-clickhouse between facts, counters and progress", count=1),
    end_at_points("subjects-to-redis between profiles, cursors and sync", count=1),
)


def _end_in_turn(rig: Rig, chance: random.Random) -> int:
    return sum(fault.do(rig, chance) for fault in _ENDS)


SHORT = Fault("roles end at a few named points", _end_in_turn, PEOPLE)
"""People are joined and parted meanwhile, change segments, and leave carts behind."""

CHECKER = (
    *("avro", "checker", "explanations", "people_checker", "people_seen", "seen", "truth"),
    "who_is_who",
)
"""Modules of the checker."""


# -- can the checker fail?


@pytest.fixture
def truth(tmp_path: Path) -> Truth:
    """A history of sixty calls, some set aside, and three records of poison."""
    path = tmp_path / "history.jsonl"
    calls = [call for _ in range(3) for call in _new_calls()]
    lines = [{"run": "r", "explained_from": {"0": 0}}, *(call.line(1) for call in calls)]
    for offset in (3, 7, 9):
        place = {"topic": "events.collected", "partition": 1, "offset": offset}
        lines.append({"via": "log", "outcome": "set aside", "what": "null", **place})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_history(path)


_requests = make_calls(PLAIN, "r", random.Random(5))


def _new_calls() -> list[Call]:
    return next(calls for calls, is_copy in _requests if not is_copy)


def shown(truth: Truth) -> Seen:
    """What Headwater shows when all is well; written by hand, not taken from the checker's sums."""
    seen = Seen(recovery_s=2.0)
    people: dict[str, list[dict[str, Any]]] = {}
    for offset, call in enumerate(truth.calls.values()):
        metric = METRICS[call["event"]]
        seen.facts.append(
            {
                "campaign_id": call["campaign"],
                "metric": metric,
                "at_ms": str(call["occurred_at_ms"]),
                "amount_micro": str(call["amount_micro"]),
                "kp": 0,
                "off": str(offset),
            }
        )
        people.setdefault(call["person"], []).append(call)
        rows = [(metric, "", 1)] if metric else []
        if call["amount_micro"]:
            rows.append(("revenue", "EUR", call["amount_micro"]))
        seen.counters += [_row(call, *row) for row in rows]
        numbers = seen.campaigns.setdefault(call["campaign"], {})
        if metric:
            numbers[metric] = numbers.get(metric, 0) + 1
    for campaign, numbers in seen.campaigns.items():
        theirs = [call for call in truth.calls.values() if call["campaign"] == campaign]
        numbers["visitors"] = len({c["person"] for c in theirs if "Email" not in c["event"]})
        numbers["buyers"] = len({c["person"] for c in theirs if c["amount_micro"]})
        opened = {c["person"] for c in theirs if c["event"] == "Email Opened"}
        numbers["unique_opened"] = len(opened)
    for person, calls in people.items():
        visiting = [call for call in calls if not str(call["event"]).startswith("Email")]
        if visiting:
            first = min(visiting, key=lambda call: call["occurred_at_ms"])
            seen.counters.append(_row(first, "visits", "", 1))
        orders = [call for call in calls if call["amount_micro"]]
        spent = sum(call["amount_micro"] for call in orders)
        traits = [call["id"] for call in calls if call["event"] == "identify"]
        seen.profiles[person] = {
            "traits": {"newest": traits[-1]} if traits else {},
            "computed": {
                "events": len(calls),
                "visits": bool(visiting),
                "orders": len(orders),
                "spent": [{"currency": "EUR", "amount": f"{spent / 1e6:.2f}"}] if orders else [],
            },
        }
    for message_id in truth.set_aside:
        seen.rejected.append(_rejection(message_id=message_id))
    for topic, partition, offset in truth.poison:
        seen.rejected.append(_rejection(topic=topic, partition=partition, offset=offset))
    return seen


def _row(call: dict[str, Any], metric: str, currency: str, value: object) -> dict[str, Any]:
    minute_s = int(str(call["occurred_at_ms"])) // 60_000 * 60
    at = {"campaign_id": call["campaign"], "metric": metric, "currency": currency}
    return {**at, "minute_s": minute_s, "kp": 0, "value": str(value)}


def _rejection(**where: object) -> dict[str, Any]:
    nowhere = {"topic": None, "partition": None, "offset": None, "message_id": None}
    return {**nowhere, "at": (0, 0), "reason": "wrong", "path": "$", "expected": "right", **where}


def test_checker_finds_nothing_where_nothing_is_wrong(truth: Truth) -> None:
    assert len(truth.calls) > 40
    assert truth.set_aside
    assert judge(truth, shown(truth)) == []


def _drop_history(truth: Truth, seen: Seen) -> None:
    # Of an e-mail, which starts no visit: a lost line of a visit's first call shows as L and D.
    truth.calls.pop(next(id_ for id_, call in truth.calls.items() if call["event"] == "Email Sent"))


def _lose_trait(truth: Truth, seen: Seen) -> None:
    next(each for each in seen.profiles.values() if each["traits"])["traits"] = {}


def _count_visit_twice(truth: Truth, seen: Seen) -> None:
    next(row for row in seen.counters if row["metric"] == "visits")["value"] = "2"


def _reject_good(truth: Truth, seen: Seen) -> None:
    good = next(iter(truth.calls.values()))["message_id"]
    seen.rejected.append(_rejection(message_id=good))


SPOILT: dict[str, tuple[str, Callable[[Truth, Seen], object]]] = {
    "a fact is lost": ("L", lambda truth, seen: seen.facts.pop()),
    "a fact is there twice": ("D", lambda truth, seen: seen.facts.append(dict(seen.facts[0]))),
    "a counter is lost": ("L", lambda truth, seen: seen.counters.pop(0)),
    "a counter is there twice": (
        "D",
        lambda truth, seen: seen.counters.append(dict(seen.counters[0])),
    ),
    "a visit counts twice": ("D", _count_visit_twice),
    "a person is missing in the API's numbers": (
        "L",
        lambda truth, seen: next(iter(seen.campaigns.values())).update(visitors=0),
    ),
    "a person is there twice in the API's numbers": (
        "D",
        lambda truth, seen: next(iter(seen.campaigns.values())).update(buyers=60),
    ),
    "a profile is lost": ("L", lambda truth, seen: seen.profiles.popitem()),
    "a profile is older": (
        "L",
        lambda truth, seen: next(iter(seen.profiles.values()))["computed"].update(events=0),
    ),
    "a profile counts twice": (
        "D",
        lambda truth, seen: next(iter(seen.profiles.values()))["computed"].update(events=99),
    ),
    "a trait is lost": ("L", _lose_trait),
    "a line of history is lost": ("D", _drop_history),
    "an explanation is lost": ("R", lambda truth, seen: seen.rejected.pop()),
    "an explanation of a call is lost": ("R", lambda truth, seen: seen.rejected.pop(0)),
    "an explanation is there twice": (
        "R",
        lambda truth, seen: seen.rejected.append(dict(seen.rejected[-1])),
    ),
    "an explanation says nothing": ("R", lambda truth, seen: seen.rejected[0].update(reason="")),
    "a good record is set aside": (
        "R",
        lambda truth, seen: seen.rejected.append(_rejection(topic="t", partition=0, offset=1)),
    ),
    "a good call is set aside": ("R", _reject_good),
    "progress came late": ("P", lambda truth, seen: setattr(seen, "recovery_s", 61.0)),
    "progress never came": ("P", lambda truth, seen: setattr(seen, "recovery_s", None)),
}


@pytest.mark.parametrize("what", SPOILT)
def test_checker_names_what_is_wrong(truth: Truth, what: str) -> None:
    kind, spoil = SPOILT[what]
    seen = deepcopy(shown(truth))
    spoil(truth, seen)
    assert {violation.kind for violation in judge(truth, seen)} == {kind}


def test_what_a_later_run_put_onto_the_log_is_not_held_against_an_earlier_one(truth: Truth) -> None:
    seen = shown(truth)
    seen.rejected.append(_rejection(topic="t", partition=0, offset=1) | {"at": (0, 40)})
    truth.explained_to = {0: 40}
    assert judge(truth, seen) == []
    truth.explained_to = {0: 41}
    assert {violation.kind for violation in judge(truth, seen)} == {"R"}


def test_call_without_an_answer_may_count_once_or_not_at_all(truth: Truth) -> None:
    id_, call = next(item for item in truth.calls.items() if item[1]["event"] == "Email Sent")
    counted = shown(truth)
    truth.unknown[id_] = truth.calls.pop(id_)
    assert judge(truth, counted) == []
    uncounted = shown(truth)
    if truth.people == {each["person"] for each in truth.calls.values()}:
        assert judge(truth, uncounted) == []
    counted.facts.append(
        next(f for f in counted.facts if f["at_ms"] == str(call["occurred_at_ms"]))
    )
    assert "D" in {violation.kind for violation in judge(truth, counted)}


@pytest.mark.parametrize("name", CHECKER)
def test_checker_shares_no_code_with_the_product(name: str) -> None:
    tree = ast.parse(Path(__file__).with_name(f"{name}.py").read_text("utf-8"))
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported
    allowed = sys.stdlib_module_names | {"confluent_kafka", "redis"}
    others = {name for name in imported if str(name).split(".")[0] not in allowed}
    assert others <= {f"tests.faults.{each}" for each in CHECKER}


# -- the ledger


def test_ledger_gives_back_what_was_written_and_counts_todays_revision(tmp_path: Path) -> None:
    file = tmp_path / "ledger.csv"
    row = ledger.Row("2026-01-01", 2, "abc", "f, g", 7, 90, 80, 3, "1.50", "ok", "")
    late = ledger.Row("2026-01-02", 2, "abc", "f, g", 8, 10, 10, 1, "", "violated", 'P: "never"')
    old = ledger.Row("2025-01-01", 1, "abc", "f, g", 6, 90, 80, 3, "9.00", "violated", "")
    for each in (old, row, late):
        ledger.append(each, file)
    assert ledger.read(file) == [old, row, late]
    line, total, _, earlier = ledger.report(ledger.read(file), {"f, g": 2, "h": 1})[2:]
    assert line == "| f, g | 2 | 100 | 4 | 1.5 s | 1.5 s | 1 |"
    assert total == "| **all** | 2 | 100 | 4 | 1.5 s | 1.5 s | 1 |"
    assert "1 more runs, 1 with violations" in earlier


def test_every_fault_of_the_ledger_is_one_that_can_be_done_again() -> None:
    assert {row.fault for row in ledger.read()} <= set(FAULTS)


# -- the points


def test_every_named_point_is_a_method_of_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is wrapped, and its wrapper passes the point; the product is put back afterwards."""
    for name, point in points.POINTS.items():
        owner = points.owner_of(point)
        method = point.method.partition(".")[2]
        monkeypatch.setattr(owner, method, getattr(owner, method))
        points.wrap(point, lambda _: None)
        assert getattr(owner, method).__wrapped__, name


def test_every_named_point_is_passed_by_a_fault() -> None:
    assert {name for group in kill_faults.GROUPS.values() for name in group} == set(points.POINTS)


# -- a short form of `make faults`


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path / "rig") as running:
        yield running


@pytest.mark.apache
def test_nothing_is_lost_or_counted_twice_under_a_few_faults(rig: Rig, say: Say) -> None:
    """HEADWATER_TEST_SEED repeats a run."""
    seed = int(os.environ.get("HEADWATER_TEST_SEED", random.SystemRandom().randrange(10**6)))
    began = time.monotonic()
    outcome = run_once(rig, SHORT, seed, "t0")
    say(
        f"{SHORT.name}, seed {seed}: {outcome.acknowledged} calls, {outcome.injected} injected, "
        f"recovery {outcome.recovery_s or -1:.1f} s, took {time.monotonic() - began:.0f} s"
    )
    assert outcome.violations == ()
