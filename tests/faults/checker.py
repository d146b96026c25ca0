"""Does everything that Headwater shows follow from what was acknowledged, and nothing else?

Shares no code with the product: it reads the file of history, ClickHouse by plain SQL over HTTP,
profiles from the API, the explanations of what was set aside from the log, and counts for itself.
It says

    L  an acknowledged input is missing: in facts, counters, a profile or the API's numbers
    D  an input is counted twice, or something is counted that nobody sent
    P  progress did not resume in time after the fault was over
    R  an event that was set aside is not explained, or explained too often
    M  identifiers of one person are not one, or those of two are
    S  a segment's members are others, or what was told of them leads elsewhere
    J  a message about a cart is missing, there twice, or about something else

`python -m tests.faults.checker HISTORY ADDRESSES.json` checks one run by hand.
"""

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.people_checker import judge_journeys, judge_persons, judge_segments
from tests.faults.seen import RESUMES_WITHIN_S, Addresses, Seen, look
from tests.faults.truth import METRICS, Truth, ids_of, read_history

MINUTE_MS = 60_000
VISIT_GAP_MS = 30 * MINUTE_MS
PEOPLE = {"Email Opened": "unique_opened", "Order Completed": "buyers"}
"""Which number of different people an event belongs to."""

EMAILS = frozenset({"Email Sent", "Email Opened"})
TAKEN = "identifier_taken"
"""Why a claim is set aside: somebody of the same rank was first, which people shall see."""
TOLD = 5


@dataclass(frozen=True)
class Violation:
    """`kind` is L, D, P, R, M, S or J."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


def judge(truth: Truth, seen: Seen) -> list[Violation]:
    """Everything that is not as it must be; empty when all is well."""
    return min((_judge(possible, seen) for possible in truth.possible()), key=len)


def _judge(truth: Truth, seen: Seen) -> list[Violation]:
    found = [
        *_judge_facts(truth, seen.facts),
        *_judge_counters(truth, seen),
        *_judge_campaigns(truth, seen),
        *_judge_profiles(truth, seen),
        *_judge_rejected(truth, seen.rejected),
    ]
    if truth.pids:
        counting = _counting(truth, seen)
        found += [Violation("M", text) for text in judge_persons(truth, seen)]
        found += [Violation("S", text) for text in judge_segments(truth, seen, counting)]
        found += [Violation("J", text) for text in judge_journeys(truth, seen)]
    if seen.recovery_s is None or seen.recovery_s > RESUMES_WITHIN_S:
        took = "never" if seen.recovery_s is None else f"after {seen.recovery_s:.0f} s"
        found.append(Violation("P", f"what was acknowledged when the fault ended is there {took}"))
    return found


def _judge_facts(truth: Truth, facts: list[dict[str, Any]]) -> list[Violation]:
    times, strangers = ids_of(truth, facts)
    found = []
    if lost := [id_ for id_ in truth.calls if not times[id_]]:
        found.append(Violation("L", f"{len(lost)} calls have no fact: {lost[:TOLD]}"))
    if twice := [id_ for id_, count in times.items() if count > 1]:
        found.append(Violation("D", f"{len(twice)} calls have several facts: {twice[:TOLD]}"))
    if strangers:
        found.append(
            Violation("D", f"{len(strangers)} facts are of no call sent: {strangers[:TOLD]}")
        )
    return found


def _counting(truth: Truth, seen: Seen) -> list[dict[str, Any]]:
    """The calls that count: all acknowledged, and those unknown that have a fact."""
    times, _ = ids_of(truth, seen.facts)
    return [
        *truth.calls.values(),
        *(call for id_, call in truth.unknown.items() if times[id_]),
    ]


def _judge_counters(truth: Truth, seen: Seen) -> list[Violation]:
    calls = _counting(truth, seen)
    is_dated = all(call["occurred_at_ms"] is not None for call in calls)
    wanted: Counter[tuple[Any, ...]] = Counter()
    for call in calls:
        metric, at_ms = METRICS[call["event"]], call["occurred_at_ms"]
        minute_s = at_ms // MINUTE_MS * 60 if is_dated else 0
        if metric:
            wanted[call["campaign"], metric, "", minute_s] += 1
        if call["amount_micro"]:
            wanted[call["campaign"], "revenue", "EUR", minute_s] += call["amount_micro"]
    if is_dated:
        # Each identifier has visits of its own.
        for call in _visit_starts(calls, str):
            minute_s = call["occurred_at_ms"] // MINUTE_MS * 60
            wanted[call["campaign"], "visits", "", minute_s] += 1
    shown: Counter[tuple[Any, ...]] = Counter()
    for row in seen.counters:
        if is_dated or row["metric"] != "visits":
            minute_s = int(row["minute_s"]) if is_dated else 0
            key = row["campaign_id"], row["metric"], row["currency"], minute_s
            shown[key] += int(row["value"])
    found = []
    for key in sorted(wanted.keys() | shown.keys()):
        if shown[key] != wanted[key]:
            kind = "L" if shown[key] < wanted[key] else "D"
            found.append(Violation(kind, f"counter {key}: {shown[key]}, truth {wanted[key]}"))
    return found


def _judge_campaigns(truth: Truth, seen: Seen) -> list[Violation]:
    """What people are shown: the sums again, and how many different people are behind them."""
    wanted: dict[str, Counter[str]] = defaultdict(Counter)
    people: dict[tuple[str, str], set[str]] = defaultdict(set)
    for call in _counting(truth, seen):
        campaign, event = call["campaign"], call["event"]
        if METRICS[event]:
            wanted[campaign][METRICS[event]] += 1
        if event in PEOPLE:
            people[campaign, PEOPLE[event]].add(truth.root_of(call["person"]))
        if event not in EMAILS:
            people[campaign, "visitors"].add(truth.root_of(call["person"]))
    for (campaign, name), who in people.items():
        wanted[campaign][name] = len(who)
    found = []
    for campaign in sorted(wanted.keys() | seen.campaigns.keys()):
        shown = seen.campaigns.get(campaign, {})
        for name in {*METRICS.values(), *PEOPLE.values(), "visitors"} - {""}:
            truly, now = wanted[campaign][name], shown.get(name, 0)
            if now != truly:
                kind = "L" if now < truly else "D"
                found.append(Violation(kind, f"API: {campaign} {name}: {now}, truth {truly}"))
    return found


def _visit_starts(
    calls: Iterable[dict[str, Any]], whose: Callable[[str], str]
) -> list[dict[str, Any]]:
    """The first call of every visit: half an hour without a call of the person ends one."""
    by_person: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for call in calls:
        if call["event"] not in EMAILS:
            by_person[whose(call["person"])].append(call)
    starts = []
    for person_calls in by_person.values():
        last_ms = None
        for call in sorted(person_calls, key=lambda call: call["occurred_at_ms"]):
            if last_ms is None or call["occurred_at_ms"] - last_ms >= VISIT_GAP_MS:
                starts.append(call)
            last_ms = call["occurred_at_ms"]
    return starts


def _judge_profiles(truth: Truth, seen: Seen) -> list[Violation]:
    calls = _counting(truth, seen)
    by_person: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for call in calls:
        by_person[truth.root_of(call["person"])].append(call)
    is_dated = all(call["occurred_at_ms"] is not None for call in calls)
    visits: Counter[str] = Counter()
    if is_dated:
        starts = _visit_starts(calls, truth.root_of)
        visits.update(truth.root_of(call["person"]) for call in starts)
    found = []
    for person in sorted(truth.people):
        theirs = by_person[truth.root_of(person)]
        if not theirs or (truth.pids and person not in truth.pids):
            continue  # of whom nothing is known but a name, or not even that
        profile = seen.profiles.get(person)
        if profile is None:
            found.append(Violation("L", f"{person} has no profile"))
            continue
        computed = profile["computed"]
        micro = sum(call["amount_micro"] for call in theirs)
        pairs = [
            ("events", computed["events"], len(theirs)),
            ("orders", computed["orders"], sum(c["event"] == "Order Completed" for c in theirs)),
            ("spent", _micro(computed["spent"]), micro),
        ]
        if is_dated:
            pairs.append(("visits", computed["visits"], visits[truth.root_of(person)]))
        for name, shown, wanted in pairs:
            if shown != wanted:
                kind = "L" if shown < wanted else "D"
                found.append(Violation(kind, f"{person} {name}: {shown}, truth {wanted}"))
        traits = [call for call in theirs if call["event"] == "identify"]
        newest = max(traits, key=lambda call: call["occurred_at_ms"] or 0)["id"] if traits else None
        shown = profile["traits"].get("newest")
        if shown != newest:
            kind = "L" if shown is None or shown in {call["id"] for call in traits} else "D"
            found.append(Violation(kind, f"{person} trait: {shown}, newest {newest}"))
    return found


def _micro(amounts: list[dict[str, str]]) -> int:
    for amount in amounts:
        whole, _, part = amount["amount"].partition(".")
        return int(whole) * 1_000_000 + int(part.ljust(6, "0") or 0)
    return 0


def _judge_rejected(truth: Truth, rejected: list[dict[str, Any]]) -> list[Violation]:
    places: Counter[tuple[str, int, int]] = Counter()
    messages: Counter[str] = Counter()
    good = {call["message_id"] for call in (*truth.calls.values(), *truth.unknown.values())}
    found = []
    for each in rejected:
        if not (each["reason"] and each["path"] and each["expected"]):
            found.append(Violation("R", f"a rejected event without its reason: {each}"))
        if each["topic"] is not None:
            place = each["topic"], each["partition"], each["offset"]
            is_refused = truth.pids and each["reason"] == TAKEN
            if place not in truth.poison and not is_refused and _is_of_the_run(truth, each):
                found.append(Violation("R", f"{place} was set aside, and nobody sent it to be"))
            places[each["topic"], each["partition"], each["offset"]] += 1
        elif each["message_id"] is not None:
            messages[each["message_id"]] += 1
    for place, what in truth.poison.items():
        if places[place] != 1:
            text = f"{what} at {place} is explained {places[place]} times"
            found.append(Violation("R", text))
    for message_id, sendings in truth.set_aside.items():
        # Sent again after an answer that never came, it was set aside each time that it arrived.
        if not 1 <= messages[message_id] <= sendings:
            text = f"broken call {message_id} sent {sendings} times, explained"
            found.append(Violation("R", f"{text} {messages[message_id]} times"))
    for message_id in good & messages.keys():
        found.append(Violation("R", f"good call {message_id} was set aside"))
    return found


def _is_of_the_run(truth: Truth, explanation: dict[str, Any]) -> bool:
    partition, offset = explanation["at"]
    return not truth.explained_to or offset < truth.explained_to[partition]


def main() -> int:
    """Check one run; 1 when something is wrong."""
    history, addresses = map(Path, sys.argv[1:3])
    truth = read_history(history)
    seen = look(Addresses(**json.loads(addresses.read_text())), truth)
    violations = judge(truth, seen)
    for violation in violations:
        print(violation)
    print(f"{len(truth.calls)} calls acknowledged, {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
