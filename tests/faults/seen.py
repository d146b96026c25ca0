"""What does Headwater show of a run: in ClickHouse, on the log, and by its API?

Shares no code with the product: plain SQL over HTTP, a plain Kafka client, plain GET.
"""

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.explanations import read_explanations
from tests.faults.people_seen import CHANGED, DUE, read_definitions, read_records, read_topic
from tests.faults.truth import METRICS, Truth, ids_of

ANSWER_WITHIN_S = 30
READERS = 8
TYPES = ("user", "anonymous", "email", "phone")
"""Of identifiers; of who is named without one it is `user`."""
RESUMES_WITHIN_S = 60.0


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
    redis_url: str = ""
    redis_prefix: str = ""
    """Before the pid of each profile."""


@dataclass
class Seen:
    """What Headwater shows of a run."""

    facts: list[dict[str, Any]] = field(default_factory=list)
    counters: list[dict[str, Any]] = field(default_factory=list)
    profiles: dict[str, dict[str, Any]] = field(default_factory=dict)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    campaigns: dict[str, dict[str, int]] = field(default_factory=dict)
    """Campaign -> its numbers by name, as the API shows them."""
    recovery_s: float | None = 0.0
    """From the end of the fault until everything acknowledged by then was counted; None: never."""
    looked_at_ms: int = 0
    """When this was read; what follows is read of a run of people with several identifiers."""
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name of an identifier -> what its lane wrote of it, as Redis keeps it."""
    links: list[tuple[str, str]] = field(default_factory=list)
    """Root and member, pids in hex, of each link in force in ClickHouse."""
    changes: list[dict[str, Any]] = field(default_factory=list)
    """Who entered and left segments, in order."""
    due: list[dict[str, Any]] = field(default_factory=list)
    """Messages about carts."""
    definitions: list[dict[str, Any]] | None = None
    """The segments that were applied last."""


# -- looking


def look(at: Addresses, truth: Truth, *, recovery_s: float | None = 0.0) -> Seen:
    """Everything that Headwater shows of the run. Raises OSError when it does not answer."""
    seen = Seen(
        facts=read_facts(at, truth.run),
        counters=read_counters(at, truth.run),
        profiles=read_profiles(at, truth.people),
        rejected=read_explanations(at.kafka, truth.explained_from),
        campaigns=read_campaigns(at, truth.run),
        recovery_s=recovery_s,
    )
    if pids := set(truth.pids.values()):
        seen.changes = read_topic(at.kafka, CHANGED, pids)
        seen.due = read_topic(at.kafka, DUE, pids)
        seen.definitions = read_definitions(at.kafka)
        seen.links = read_links(at, pids)
        seen.records = read_records(at.redis_url, at.redis_prefix, truth.pids)
        seen.looked_at_ms = time.time_ns() // 1_000_000
    return seen


def read_facts(at: Addresses, run: str) -> list[dict[str, Any]]:
    """The facts of events: campaign, metric, ms of event time, amount, partition, offset."""
    return _ask(
        at,
        "SELECT campaign_id, metric, toUnixTimestamp64Milli(occurred_at) AS at_ms, amount_micro, "
        "kp, off, src_topic, src_partition, src_offset FROM facts FINAL "
        f"WHERE idx = 0 AND startsWith(campaign_id, '{run}/')",
    )


def read_links(at: Addresses, pids: Collection[str]) -> list[tuple[str, str]]:
    """Root and member of each link in force between these pids."""
    rows = _ask(
        at,
        "SELECT lower(hex(root)) AS root, lower(hex(member)) AS member FROM links FINAL "
        "GROUP BY root, member HAVING argMax(is_linked, (generation, off)) = 1",
    )
    return [(row["root"], row["member"]) for row in rows if row["root"] in pids]


def read_counters(at: Addresses, run: str) -> list[dict[str, Any]]:
    """The counters by campaign, metric, currency, minute and partition."""
    return _ask(
        at,
        "SELECT campaign_id, metric, currency, toUnixTimestamp(minute) AS minute_s, kp, "
        "toString(sum(value)) AS value FROM counters FINAL "
        f"WHERE startsWith(campaign_id, '{run}/') GROUP BY ALL",
    )


def read_campaigns(at: Addresses, run: str) -> dict[str, dict[str, int]]:
    """The numbers of the run's campaigns, people included."""
    shown = _get(at, "/v1/campaigns")["campaigns"]
    return {
        each["campaign_id"]: each["counters"]
        for each in shown
        if each["campaign_id"].startswith(f"{run}/")
    }


def read_profiles(at: Addresses, people: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What is shown of each of them who is known."""
    names = sorted(people)
    with ThreadPoolExecutor(READERS) as readers:
        found = readers.map(partial(read_profile, at), names)
        return {name: shown for name, shown in zip(names, found, strict=True) if shown}


def read_profile(at: Addresses, person: str) -> dict[str, Any] | None:
    """What is shown of one person; None when nobody is known."""
    try:
        named = person if person.partition(":")[0] in TYPES else f"user:{person}"
        return dict(_get(at, f"/v1/profiles/{urllib.parse.quote(named, safe=':')}"))
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
        if ids_of(truth, facts)[0].keys() < truth.calls.keys():
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


def write_addresses(at: Addresses, path: Path) -> None:
    """For `main`, later and by hand."""
    path.write_text(json.dumps(asdict(at)))
