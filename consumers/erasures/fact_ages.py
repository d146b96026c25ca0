"""How do facts go when they are older than `[tables.facts] retention_days`?

Data are kept no longer than they are needed (GDPR Art. 5(1)(e)); sums stay, because they are of
nobody. Counters are verified from facts, so it is first written down, as one insert, until which
day facts are gone, and how many events of each day and campaign had some: from then on nobody looks
for them (headwater/verify.py, headwater/recount.py, campaign_counts.py), and only then they are
deleted. A crash in between leaves facts that the next look deletes.

A fact is as old as the later of the times when it was received and occurred. So no fact of a minute
after the limit goes, whenever it was received, and what is left can be verified whole.
"""

from datetime import date, timedelta
from typing import Any

from clickhouse_connect.driver.client import Client

from runtime.clickhouse import answering, connect
from runtime.settings import Settings
from schemas.counters import ERASED_PIDS, ERASED_RECORDS, FACT_TIME, KEPT_FROM
from schemas.errors import StoreUnavailable
from schemas.topics import DAY_MS

DELETED_WITHIN_S = 3600.0
STEPS = 10
"""Deleting rewrites the parts of the table, so it is done once in a tenth of the limit."""
_EPOCH = date(1970, 1, 1)
_SYNCHRONOUS = {"mutations_sync": 2}

# Stand-ins of erased people (sinks/rules/residuals.py) tell by day of how many events they are.
_EVENTS = f"""
SELECT toDate({FACT_TIME}) AS day, kp, campaign_id,
       countIf(idx = 0 AND campaign_id != '' AND pid NOT IN {ERASED_PIDS})
           + sumIf(value, campaign_id = '' AND metric = '{ERASED_RECORDS}')
FROM facts FINAL
WHERE {FACT_TIME} >= greatest({KEPT_FROM}, toDateTime('1970-01-02', 'UTC'))
    AND {FACT_TIME} < toDateTime({{until:Date}}, 'UTC')
GROUP BY day, kp, campaign_id ORDER BY day, kp, campaign_id
"""  # noqa: S608 - constants
_OLD = f"src_topic != '' AND {FACT_TIME} < {{until}}"


def drop_old_facts(settings: Settings, at_ms: int) -> int:
    """No fact is older than the limit and a tenth of it; how many rows went just now.

    May be repeated, and run at several places at once. Raises StoreUnavailable or StoreRefused.
    """
    days = settings.tables.facts.retention_days
    if not days:
        return 0
    with connect(settings, answer_within_s=DELETED_WITHIN_S) as client:
        until = _EPOCH + timedelta(days=at_ms // DAY_MS - days)
        gone_until = _gone_until(client)
        if gone_until is None or (until - gone_until).days >= max(1, days // STEPS):
            _write_down(client, until)
            gone_until = until
        return _delete(client, gone_until)


def _gone_until(client: Client) -> date | None:
    """The first day whose facts are kept; None while all are."""
    ((rows, newest),) = _ask(client, "SELECT count(), max(day) FROM aged_facts")
    return newest + timedelta(days=1) if rows else None


def _write_down(client: Client, until: date) -> None:
    events = _ask(client, _EVENTS, until=until)
    # An erasure moves events from facts to its stand-ins; what a reader sees of both in that very
    # moment may be neither sum, but is not the same twice.
    if _ask(client, _EVENTS, until=until) != events:
        raise StoreUnavailable("facts changed while they were counted; looking again soon")
    # Whatever there was: it says until when.
    events.append((until - timedelta(days=1), 0, "", 0))
    with answering("an insert into aged_facts"):
        client.insert("aged_facts", events, column_names=["day", "kp", "campaign_id", "events"])


def _delete(client: Client, until: date) -> int:
    old = _OLD.format(until=f"toDateTime('{until.isoformat()}', 'UTC')")
    ((rows,),) = _ask(client, f"SELECT count() FROM facts WHERE {old}")  # noqa: S608 - a date
    if rows:
        with answering("a deletion of old facts"):
            client.command(f"ALTER TABLE facts DELETE WHERE {old}", settings=dict(_SYNCHRONOUS))
    return int(rows)


def _ask(client: Client, sql: str, **parameters: Any) -> list[Any]:
    with answering("how old facts are"):
        return list(client.query(sql, parameters=parameters).result_rows)
