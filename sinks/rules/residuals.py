"""What stays of a person's facts so that every number stays, and no person does?

Counters are sums of facts, people are counted by distinct pids, and `headwater verify` counts both
again. So anonymous rows take the facts' place: sums by campaign, metric, currency and minute, and
for each count of people in each campaign a pid of its own, which nobody can link to another one or
to the person. They come with a *mark*, in one insert: whatever facts the marked pid has, now or by
a late write of somebody who should be dead, no reader counts any more (schemas/counters.py).

All of it is a function of the `Erased` record and the facts before it, so it may be written again.
Ids are keyed by the record's salt, which goes with the log's retention: from then on the rows of
one person cannot be told from those of others.
"""

import hashlib
import hmac
from collections import defaultdict
from collections.abc import Iterable

from schemas.counters import ERASED_MARK, ERASED_RECORDS, MINUTE_MS, NO_CAMPAIGN_AT_ALL
from schemas.requests import Erased
from sinks.rules.retract import KnownFact
from sinks.rules.rows import DAY_MS, Fact

PEOPLE_METRICS = frozenset({"opened", "clicked", "orders"})
"""Metrics whose facts are also counted by distinct pids; visitors have a flag of their own."""

VISITOR = "visitor"
ID_BYTES = 16
OFFSET = 0
"""Of every row: in sight of every reader, and covered by every counter."""
IDX = 1
"""Of every row: 0 would make it an event."""

_Sum = tuple[str, str, str, int, int, int, int]
"""(campaign, metric, currency, minute in ms, partition, generation, generation that took it back or
0)."""


def residuals(erased: Erased, kp: int, facts: Iterable[KnownFact]) -> list[KnownFact]:
    """The rows that take the place of `facts`, all of the person; the mark first.

    `kp` is the partition of the record; facts of an older generation may be of others. Facts that
    were taken back in their own generation add nothing and leave nothing.
    """
    values: defaultdict[_Sum, int] = defaultdict(int)
    amounts: defaultdict[_Sum, int] = defaultdict(int)
    visited: set[_Sum] = set()
    records: defaultdict[tuple[int, int, int], int] = defaultdict(int)
    for known in facts:
        fact = known.fact
        campaign, generation, of_kp, idx, metric = fact[0], fact[2], fact[3], fact[5], fact[10]
        if campaign == NO_CAMPAIGN_AT_ALL:
            continue
        # By the day from which they grow old: facts may go with age before their person or after.
        grows_old_ms = max(fact[8], fact[9]) // DAY_MS * DAY_MS
        records[of_kp, generation, grows_old_ms] += idx == 0
        taken_back_in = known.retracted_at[0] if known.retracted_at is not None else 0
        if taken_back_in == generation:
            continue
        minute_ms = fact[8] // MINUTE_MS * MINUTE_MS
        if metric:
            key = (campaign, metric, fact[13], minute_ms, of_kp, generation, taken_back_in)
            values[key] += fact[11]
            amounts[key] += fact[12]
        if fact[14] and not taken_back_in:
            visited.add((campaign, "", "", minute_ms, of_kp, generation, 0))
    rows = [_row(erased, (NO_CAMPAIGN_AT_ALL, ERASED_MARK, "", 0, kp, 0, 0), erased.pid)]
    for (of_kp, generation, day_ms), count in sorted(records.items()):
        key = (NO_CAMPAIGN_AT_ALL, ERASED_RECORDS, "", day_ms, of_kp, generation, 0)
        rows.append(_row(erased, key, _id(erased, *key), value=count))
    for key in sorted(values):
        if values[key] or amounts[key]:
            campaign, metric = key[:2]
            is_of_people = metric in PEOPLE_METRICS
            pid = _id(erased, campaign, metric) if is_of_people else _id(erased, *key)
            rows.append(_row(erased, key, pid, values[key], amounts[key]))
    for key in sorted(visited):
        rows.append(_row(erased, key, _id(erased, key[0], VISITOR), is_visitor=1))
    return rows


def names_of_people(erased: Erased, facts: Iterable[KnownFact]) -> dict[tuple[str, str], bytes]:
    """(campaign, metric or VISITOR) -> the pid of the rows that stand there for the person."""
    found: dict[tuple[str, str], bytes] = {}
    for known in residuals(erased, 0, facts):
        fact = known.fact
        if fact[0] != NO_CAMPAIGN_AT_ALL and (fact[10] in PEOPLE_METRICS or fact[14]):
            found[fact[0], fact[10] or VISITOR] = fact[6]
    return found


def _row(
    erased: Erased,
    key: _Sum,
    pid: bytes,
    value: int = 0,
    amount_micro: int = 0,
    is_visitor: int = 0,
) -> KnownFact:
    campaign, metric, currency, minute_ms, kp, generation, taken_back_in = key
    fact: Fact = (
        campaign,
        minute_ms // DAY_MS,
        generation,
        kp,
        OFFSET,
        IDX,
        pid,
        _id(erased, "row", *key),
        minute_ms,
        minute_ms,
        metric,
        value,
        amount_micro,
        currency,
        is_visitor,
        "",
        0,
        0,
        0,
        0,
        0,
        "",
        0,
    )
    return KnownFact(fact, (taken_back_in, OFFSET) if taken_back_in else None)


def _id(erased: Erased, *parts: str | int) -> bytes:
    """An id that only the salt can find again."""
    text = "|".join(map(str, parts)).encode()
    return hmac.digest(erased.salt, text, hashlib.sha256)[:ID_BYTES]
