"""Does everything that Headwater shows follow from what was acknowledged, and nothing else?

Shares no code with the product: it reads the file of history, ClickHouse by plain SQL over HTTP,
profiles from the API, the explanations of what was set aside from the log, and counts for itself.
It says

    L  an acknowledged input is missing, in facts, counters or a profile
    D  an input is counted twice, or something is counted that nobody sent
    P  progress did not resume in time after the fault was over
    R  an event that was set aside is not explained, or explained too often

`python -m tests.faults.checker HISTORY ADDRESSES.json` checks one run by hand.
"""

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.explanations import read_explanations

ANSWER_WITHIN_S = 30
RESUMES_WITHIN_S = 60.0
MINUTE_MS = 60_000
VISIT_GAP_MS = 30 * MINUTE_MS
METRICS = {
    "Email Sent": "sent",
    "Email Opened": "opened",
    "Product Viewed": "product_views",
    "Product Added": "cart_adds",
    "Order Completed": "orders",
    "page": "page_views",
    "identify": "",
}
EMAILS = frozenset({"Email Sent", "Email Opened"})
TOLD = 5


@dataclass(frozen=True)
class Addresses:
    """Where to look."""

    clickhouse_url: str
    database: str
    api_url: str
    key: str
    """API key of the role admin."""
    kafka: str
    """bootstrap.servers"""


@dataclass(frozen=True)
class Violation:
    """`kind` is L, D, P or R."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


@dataclass
class Truth:
    """A history, read."""

    run: str
    explained_from: dict[int, int] = field(default_factory=dict)
    """Partition of events.rejected -> its end before the run."""
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Acknowledged calls by id."""
    unknown: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Calls that were never answered: each may count once, or not at all."""
    set_aside: Counter[str] = field(default_factory=Counter)
    """messageId of a broken call -> requests it was sent in."""
    poison: dict[tuple[str, int, int], str] = field(default_factory=dict)
    """Place on the log -> what lies there."""

    @property
    def people(self) -> set[str]:
        return {call["person"] for call in (*self.calls.values(), *self.unknown.values())}


@dataclass
class Seen:
    """What Headwater shows of a run."""

    facts: list[dict[str, Any]] = field(default_factory=list)
    counters: list[dict[str, Any]] = field(default_factory=list)
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    recovery_s: float | None = 0.0
    """From the end of the fault until everything acknowledged by then was counted; None: never."""


def read_history(path: Path) -> Truth:
    """What the sender wrote down."""
    truth = Truth("")
    for text in path.read_text("utf-8").splitlines():
        line = json.loads(text)
        if "run" in line:
            truth.run = line["run"]
            truth.explained_from = {int(p): at for p, at in line["explained_from"].items()}
        elif line["via"] == "log":
            truth.poison[line["topic"], line["partition"], line["offset"]] = line["what"]
        elif line["outcome"] == "set aside":
            truth.set_aside[line["message_id"]] += line["attempts"]
        elif "person" in line:
            known = truth.calls if line["outcome"] == "acknowledged" else truth.unknown
            known[line["id"]] = line
    return truth


# -- looking


def look(at: Addresses, truth: Truth, *, recovery_s: float | None = 0.0) -> Seen:
    """Everything that Headwater shows of the run. Raises OSError when it does not answer."""
    return Seen(
        facts=read_facts(at, truth.run),
        counters=read_counters(at, truth.run),
        profiles={person: found for person in truth.people if (found := read_profile(at, person))},
        rejected=read_explanations(at.kafka, truth.explained_from),
        recovery_s=recovery_s,
    )


def read_facts(at: Addresses, run: str) -> list[dict[str, Any]]:
    """The facts of events: campaign, metric, ms of event time, amount, partition, offset."""
    return _ask(
        at,
        "SELECT campaign_id, metric, toUnixTimestamp64Milli(occurred_at) AS at_ms, amount_micro, "
        "kp, off, src_topic, src_partition, src_offset FROM facts FINAL "
        f"WHERE idx = 0 AND startsWith(campaign_id, '{run}/')",
    )


def read_counters(at: Addresses, run: str) -> list[dict[str, Any]]:
    """The counters by campaign, metric, currency, minute and partition."""
    return _ask(
        at,
        "SELECT campaign_id, metric, currency, toUnixTimestamp(minute) AS minute_s, kp, "
        "toString(sum(value)) AS value FROM counters FINAL "
        f"WHERE startsWith(campaign_id, '{run}/') GROUP BY ALL",
    )


def read_profile(at: Addresses, person: str) -> dict[str, Any] | None:
    """What is shown of one person; None when nobody is known."""
    try:
        return dict(_get(at, f"/v1/profiles/user:{urllib.parse.quote(person, safe='')}"))
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def _ask(at: Addresses, sql: str) -> list[dict[str, Any]]:
    url = f"{at.clickhouse_url}/?database={at.database}"
    request = urllib.request.Request(url, f"{sql} FORMAT JSONEachRow".encode())
    with urllib.request.urlopen(request, timeout=ANSWER_WITHIN_S) as answer:
        return [json.loads(line) for line in answer.read().splitlines()]


def _get(at: Addresses, path: str) -> Any:
    request = urllib.request.Request(
        f"{at.api_url}{path}", headers={"Authorization": f"Bearer {at.key}"}
    )
    with urllib.request.urlopen(request, timeout=ANSWER_WITHIN_S) as answer:
        return json.load(answer)


def is_counted(at: Addresses, truth: Truth) -> bool:
    """True once facts, counters and profiles include every acknowledged call of `truth`."""
    try:
        facts = read_facts(at, truth.run)
        if _ids(truth, facts)[0].keys() < truth.calls.keys():
            return False
        # Counters of a partition cover a prefix of it: as many as it had facts is enough.
        of_facts = Counter(int(fact["kp"]) for fact in facts if fact["metric"])
        of_counters: Counter[int] = Counter()
        for row in read_counters(at, truth.run):
            if row["metric"] in METRICS.values():
                of_counters[int(row["kp"])] += int(row["value"])
        if any(of_counters[kp] < count for kp, count in of_facts.items()):
            return False
        events = Counter(call["person"] for call in truth.calls.values())
        for person, count in sorted(events.items())[:20]:
            profile = read_profile(at, person)
            if profile is None or profile["computed"]["events"] < count:
                return False
    except (OSError, ValueError):
        return False
    return True


def wait_counted(at: Addresses, truth: Truth, since_s: float) -> float | None:
    """Seconds from `since_s` (monotonic) until `is_counted`; None when it takes too long."""
    while time.monotonic() - since_s < 2 * RESUMES_WITHIN_S:
        if is_counted(at, truth):
            return time.monotonic() - since_s
        time.sleep(0.1)
    return None


# -- judging


def judge(truth: Truth, seen: Seen) -> list[Violation]:
    """Everything that is not as it must be; empty when all is well."""
    found = [
        *_judge_facts(truth, seen.facts),
        *_judge_counters(truth, seen),
        *_judge_profiles(truth, seen),
        *_judge_rejected(truth, seen.rejected),
    ]
    if seen.recovery_s is None or seen.recovery_s > RESUMES_WITHIN_S:
        took = "never" if seen.recovery_s is None else f"after {seen.recovery_s:.0f} s"
        found.append(Violation("P", f"what was acknowledged when the fault ended is there {took}"))
    return found


def _ids(truth: Truth, facts: Iterable[Mapping[str, Any]]) -> tuple[Counter[int], list[str]]:
    """How often each call has a fact, and the facts that belong to no call."""
    by_amount: dict[int, int] = {}
    by_time: dict[int, int] = {}
    for id_, call in (truth.calls | truth.unknown).items():
        if call["amount_micro"]:
            by_amount[call["amount_micro"]] = id_
        else:
            by_time[call["occurred_at_ms"]] = id_
    times: Counter[int] = Counter()
    strangers: list[str] = []
    for fact in facts:
        amount, at_ms = int(fact["amount_micro"]), int(fact["at_ms"])
        of_call = by_amount.get(amount) if amount else by_time.get(at_ms)
        if of_call is None:
            strangers.append(f"amount {amount}, time {at_ms}")
        else:
            times[of_call] += 1
    return times, strangers


def _judge_facts(truth: Truth, facts: list[dict[str, Any]]) -> list[Violation]:
    times, strangers = _ids(truth, facts)
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
    times, _ = _ids(truth, seen.facts)
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
        for call in _visit_starts(calls):
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


def _visit_starts(calls: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first call of every visit: half an hour without a call of the person ends one."""
    by_person: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for call in calls:
        if call["event"] not in EMAILS:
            by_person[call["person"]].append(call)
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
        by_person[call["person"]].append(call)
    is_dated = all(call["occurred_at_ms"] is not None for call in calls)
    visits = Counter(call["person"] for call in _visit_starts(calls)) if is_dated else Counter()
    found = []
    for person, theirs in sorted(by_person.items()):
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
            pairs.append(("visits", computed["visits"], visits[person]))
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
    for place in places.keys() - truth.poison.keys():
        found.append(Violation("R", f"{place} was set aside, and nobody put it there to be"))
    for message_id in good & messages.keys():
        found.append(Violation("R", f"good call {message_id} was set aside"))
    return found


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


def write_addresses(at: Addresses, path: Path) -> None:
    """For `main`, later and by hand."""
    path.write_text(json.dumps(asdict(at)))


if __name__ == "__main__":
    sys.exit(main())
