"""Do the live counters equal the stamp rule, applied to the whole history at once?

A worker and the sink run all the time on real engines, while events and decisions reach the log in
any order, decisions also long after the events that they are about: withdrawals that take back, and
grants that release what they came too late for. The reference goes once over what was sent, with a
few lines of its own.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater.verify import verify
from runtime.clickhouse import connect
from runtime.settings import ClickHouse, Purpose, Settings
from schemas.codec import CONSENT_CHANGED
from schemas.consent import Basis, allows
from schemas.events import Collected
from schemas.partitioning import partition_of
from schemas.requests import ConsentChanged
from schemas.subjects import PID_BYTES, Consent
from sinks.accepted_to_clickhouse import run_accepted_to_clickhouse
from sinks.migrations.apply import apply_migrations
from tests.sink_log import running
from tests.stream_log import EMAIL, GAP_MS, START_MS, Log, make_event, new_log
from tests.stream_worker import Worker

PARTITIONS = 2
ROUNDS = 25
LATE_MS = 10 * 60_000
NAMED: tuple[dict[str, str], ...] = ({"campaign_id": "a"}, {"campaign_id": "b"}, {})


@pytest.fixture
def log(kafka: str, clickhouse_url: str, fresh_name: Any) -> Iterator[Log]:
    made = new_log(kafka, fresh_name("stamps"), partitions=PARTITIONS)
    database = fresh_name("stamps").replace("-", "_")
    made.settings = made.settings.model_copy(
        update={"clickhouse": ClickHouse(url=clickhouse_url, database=database)}
    )
    with connect(made.settings, database="default") as client:
        apply_migrations(client, database)
        yield made
        client.command(f"DROP DATABASE {database}")


class History:
    """What was sent, and what must be left of it."""

    def __init__(self, seed: int, basis: Basis) -> None:
        self.basis: Basis = basis
        self._chance = random.Random(seed)
        self.people = [self._chance.randbytes(PID_BYTES) for _ in range(8)]
        # Whose withdrawals may have been under way for hours when they reach the log. An event that
        # such a one takes back was never parked: their grants come late enough to release nothing.
        self.slow = set(self.people[:3])
        self.events: list[Collected] = []
        self.decisions: dict[bytes, list[Consent]] = defaultdict(list)
        self.now_ms = START_MS

    def more_events(self) -> list[Collected]:
        chance = self._chance
        made = []
        for _ in range(chance.randint(1, 12)):
            self.now_ms += chance.randrange(20_000)
            made.append(
                make_event(
                    event_id=chance.randbytes(16),
                    pid=chance.choice(self.people),
                    event=chance.choice(("", "Product Viewed", EMAIL)),
                    occurred_at_ms=self.now_ms - chance.randrange(4) * GAP_MS // 2,
                    received_at_ms=self.now_ms,
                    clear={"properties": chance.choice(NAMED)},
                )
            )
        self.events += made
        return made

    def decision(self) -> ConsentChanged:
        """A decision that begins now or before; a grant is recorded now."""
        chance = self._chance
        self.now_ms += chance.randrange(1, 20_000)
        pid, is_grant, is_late = chance.choice(self.people), chance.random() < 0.5, 0
        if pid in self.slow:
            self.now_ms += LATE_MS + 1 if is_grant else 0
            is_late = 0 if is_grant else chance.randrange(4) * GAP_MS
        recorded_at_ms = self.now_ms - is_late
        begins_ms = self.now_ms - chance.randrange(5) * GAP_MS // 2
        ends_ms = begins_ms + GAP_MS if chance.random() < 0.2 else None
        change = ConsentChanged(
            chance.randbytes(16), pid, "analytics", None, None, "consent",
            "granted" if is_grant else "withdrawn", begins_ms, ends_ms, recorded_at_ms, "form",
        )  # fmt: skip
        self.decisions[change.pid].append(
            Consent("purpose/analytics", change.status, begins_ms, ends_ms, recorded_at_ms)
        )
        return change

    def left(self, late_grant_ms: int = LATE_MS) -> list[Collected]:
        return [
            event
            for event in self.events
            if allows(
                self.basis,
                self.decisions[event.pid],
                event.occurred_at_ms,
                event.received_at_ms,
                late_grant_ms,
            )
        ]


def expected_of(events: list[Collected]) -> dict[tuple[str, str, int], int]:
    """(campaign, metric, minute) -> what the counters must say."""
    totals: Counter[tuple[str, str, int]] = Counter()
    ended_at_ms: dict[bytes, int] = {}
    touched: dict[bytes, str] = {}  # all lies within the window of attribution
    metrics = {"": "page_views", "Product Viewed": "product_views", EMAIL: "opened"}
    for event in sorted(events, key=lambda each: (each.occurred_at_ms, each.event_id)):
        at_ms = event.occurred_at_ms
        minute_s = at_ms // 60_000 * 60
        for named in "ab":
            if f'"{named}"'.encode() in event.clear:
                touched[event.pid] = named
        campaign = touched.get(event.pid, "(none)")
        totals[campaign, metrics[event.event], minute_s] += 1
        if event.event == EMAIL:
            continue
        if at_ms - ended_at_ms.get(event.pid, -GAP_MS) >= GAP_MS:
            totals[campaign, "visits", minute_s] += 1
        ended_at_ms[event.pid] = at_ms
    return dict(totals)


def counted(settings: Settings) -> dict[tuple[str, str, int], int]:
    sql = (
        "SELECT campaign_id, metric, toUnixTimestamp(minute), sum(value) AS value "
        "FROM counters FINAL GROUP BY campaign_id, metric, minute HAVING value != 0"
    )
    with connect(settings) as client:
        return {tuple(row[:3]): row[3] for row in client.query(sql).result_rows}


@pytest.mark.parametrize(("seed", "basis"), [(4, "legitimate_interest"), (4, "consent")])
def test_counters_equal_the_stamp_rule_over_the_whole_history(
    log: Log, tmp_path: Path, seed: int, basis: Basis
) -> None:
    history, chance = History(seed, basis), random.Random(seed)
    purposes = {**log.settings.purposes, "analytics": Purpose(basis=basis)}
    log.settings = log.settings.model_copy(update={"purposes": purposes})
    worker = Worker(tmp_path, "w1", log.settings.model_dump_json())
    with worker, running(run_accepted_to_clickhouse, log.settings):
        worker.start().wait_open()
        for _ in range(ROUNDS):
            if chance.random() < 0.6:
                log.send(history.more_events())
            else:
                change = history.decision()
                p = partition_of(change.pid, PARTITIONS)
                value = CONSENT_CHANGED.encode(change)
                log.send_raw(log.topics.consents, value, change.pid, p)
            if chance.random() < 0.3:
                log.wait_applied(worker)
        log.wait_applied(worker)
        verdict = verify(log.settings, wait_s=60)
    left = history.left()
    assert counted(log.settings) == expected_of(left)
    assert verdict.is_verified, verdict.lines()
    assert len(left) < len(history.events), "the schedule withdrew nothing that matters"
    assert len(left) > len(history.left(0)), "the schedule released nothing"
