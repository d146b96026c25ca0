"""Is what lanes wrote what they should have written?

From the committed records of their outputs alone, against a recount of the inputs that shares no
code with the product.
"""

from collections import Counter, defaultdict
from typing import Any

import orjson

from schemas.codec import (
    ACCEPTED,
    CURSOR,
    ERASED,
    HEADER_BYTES,
    LINKED,
    PARKED,
    REATTRIBUTED,
    REJECTED,
    RETRACTED,
    SUBJECT,
)
from schemas.consent import Basis, allows
from schemas.events import Accepted, Collected, Rejected
from schemas.moves import Linked
from schemas.requests import Erased
from schemas.subjects import CURSOR_KEY, PARKED_PREFIX, PID_BYTES, Consent, Parked, Subject
from tests.lane_log import TOPICS
from tests.model.arrivals import Arrivals, by_pid
from tests.model.campaigns import Said, left_of, wrong_campaigns
from tests.model.memory_kafka import MemoryKafka
from tests.model.merging import (
    may_be_granted,
    persons,
    refused_by_kin,
    related,
    wrong_merges,
)
from tests.stream_log import GAP_MS, ORDER, visits_of

WINDOW_MS = GAP_MS
"""So long after a touch an event belongs to its campaign."""


def broken_promises(
    kafka: MemoryKafka, arrivals: Arrivals, basis: Basis, late_grant_ms: int
) -> set[str]:
    """Names of the promises that the logs break; `basis` is that of analytics."""
    found: set[str] = set()
    said_of: list[list[Said]] = []
    accepted: list[Accepted] = []
    left: list[Accepted] = []
    rejected: list[Rejected] = []
    people: dict[bytes, Subject] = {}
    linked: list[Linked] = []
    parked: dict[bytes, Parked] = {}
    withheld: Counter[str] = Counter()
    for p in range(kafka.partitions):
        said = [decode_said(value) for _, value in _committed(kafka, TOPICS.accepted, p)]
        of_lane = [each for each in said if isinstance(each, Accepted)]
        set_aside = [REJECTED.decode(value) for _, value in _committed(kafka, TOPICS.rejected, p)]
        subjects = _committed(kafka, TOPICS.subjects, p)
        cursors = [CURSOR.decode(value) for key, value in subjects if key == CURSOR_KEY]
        seqs = [each.seq for each in cursors]
        if seqs != list(range(1, len(seqs) + 1)):
            found.add("seq has a gap or a repeat")
        for outputs in (said, set_aside):
            places = [(each.seq, each.index) for each in outputs]
            if places != sorted(set(places)):
                found.add("coordinates do not rise")
            if not {seq for seq, _ in places} <= set(seqs):
                found.add("outputs without their cursor")
        said_of.append(said)
        if _told_of_erased(said):
            found.add("told of an erased person")
        newest = {k[7:]: v for k, v in subjects if k.startswith(PARKED_PREFIX)}
        parked |= {pid: PARKED.decode(v) for pid, v in newest.items() if v is not None}
        people |= {k: SUBJECT.decode(v) for k, v in subjects if len(k) == PID_BYTES}
        if cursors:
            for each in cursors[-1].withheld:
                withheld[each.purpose] += each.count
        accepted += of_lane
        linked += [each for each in said if isinstance(each, Linked)]
        left += left_of(said).values()
        rejected += set_aside
    if _is_in_pieces(kafka):
        found.add("transaction in pieces")
    if not arrivals.was_cut:
        stubs = {pid for pid, each in people.items() if each.erased_at_ms is not None}
        roots = persons([claim for _, claim in arrivals.claims], stubs)
        if wrong_campaigns(said_of, roots, stubs, WINDOW_MS):
            found.add("campaigns differ")
        found |= wrong_merges([claim for _, claim in arrivals.claims], people, linked)
    return (
        found
        | _wrong_counts(arrivals, accepted, rejected, withheld)
        | _wrong_use(arrivals, accepted, left, basis, late_grant_ms)
        | _wrong_parking(parked, arrivals, accepted)
        | _wrong_people(arrivals, people, accepted)
    )


def decode_said(value: bytes) -> Said:
    """A record of `events.accepted`."""
    header = value[:HEADER_BYTES]
    if header == RETRACTED.header:
        return RETRACTED.decode(value)
    if header == LINKED.header:
        return LINKED.decode(value)
    if header == REATTRIBUTED.header:
        return REATTRIBUTED.decode(value)
    return ERASED.decode(value) if header == ERASED.header else ACCEPTED.decode(value)


def _told_of_erased(said: list[Said]) -> bool:
    """True if anything is said of a person after their erasure, be it a second erasure."""
    erased: set[bytes] = set()
    for each in said:
        if (each.root if isinstance(each, Linked) else each.pid) in erased:
            return True
        if isinstance(each, Erased):
            erased.add(each.pid)
    return False


def _allowed(
    event: Accepted | Collected, decisions: list[Consent], basis: str, late_grant_ms: int
) -> bool:
    legal: Basis = "consent" if basis == "consent" else "legitimate_interest"
    times = (event.occurred_at_ms, event.received_at_ms)
    return allows(legal, decisions, *times, late_grant_ms)


def _wrong_use(
    arrivals: Arrivals,
    accepted: list[Accepted],
    left: list[Accepted],
    basis: Basis,
    late_grant_ms: int,
) -> set[str]:
    """Whether what is left is what the stamp rule allows, applied to the whole history at once.

    Withdrawals are under way for long here. One that took an event back, and was recorded before
    that was received, may not have been there yet when the event was applied: the event is not
    parked then, and no late grant counts it again.
    """
    if arrivals.was_cut:
        if arrivals.has_merges:
            return set()  # others of their person decided, and who these are may be lost too
        # What was decided may be lost, of those who decided anything.
        undecided = {
            call.event_id
            for call in arrivals.recount().counted
            if basis != "consent" and call.pid not in arrivals.decided | arrivals.erasable
        }
        return {"lost"} if undecided - {each.event_id for each in accepted} else set()
    decisions: dict[bytes, list[Consent]] = defaultdict(list)
    for _, change in arrivals.consents:
        if change.purpose == "analytics":
            decisions[change.pid].append(
                Consent(
                    "purpose/analytics",
                    change.status,
                    change.valid_from_ms,
                    change.valid_to_ms,
                    change.recorded_at_ms,
                )
            )
    found = set()
    counted = [call for call in arrivals.recount().counted if call.pid not in arrivals.erasable]
    claims = [claim for _, claim in arrivals.claims]
    kin = {pid: related(claims, pid) for pids in arrivals.pids.values() for pid in pids}
    roots = persons(claims, arrivals.erasable)
    refusing = {
        pid for pid, of in decisions.items() if any(each.status != "granted" for each in of)
    }
    # What others decided before they were one is heard of late: it may have taken something back.
    certain = [call for call in counted if not (kin[call.pid] - {call.pid}) & refusing]
    in_time = Counter(
        call.event_id for call in certain if _allowed(call, decisions[call.pid], basis, 0)
    )
    # What comes under an erased pid is not heard, and when it was erased differs by schedule.
    lasting = {pid: of for pid, of in decisions.items() if pid not in arrivals.erasable}
    granted = {
        pid: [each for each in of if pid not in arrivals.erasable or each.status == "granted"]
        for pid, of in decisions.items()
    }
    at_last = Counter(
        call.event_id
        for call in counted
        if may_be_granted(call, kin[call.pid], granted, basis, late_grant_ms)
        and not refused_by_kin(call, roots, lasting, late_grant_ms)
    )
    alone = Counter(
        call.event_id
        for call in counted
        if len(kin[call.pid]) == 1 and _allowed(call, decisions[call.pid], basis, late_grant_ms)
    )
    used = Counter(each.event_id for each in left if each.pid not in arrivals.erasable)
    if used - at_last:
        found.add("used what is not allowed")
    if in_time - used or alone - Counter(each.event_id for each in accepted):
        found.add("lost")
    return found


def _wrong_parking(
    parked: dict[bytes, Parked], arrivals: Arrivals, accepted: list[Accepted]
) -> set[str]:
    """Whether nothing of an erased person, and nothing that counts, is still parked."""
    found = set()
    if parked.keys() & arrivals.erased and not arrivals.was_cut:
        found.add("erased person came back")
    lies = {(each.pid, each.generation, each.source_offset) for each in accepted}
    for pid, each in parked.items():
        offsets = [each.events[at : at + 8] for at in range(0, len(each.events), 25)]
        if any((pid, each.generation, int.from_bytes(at, "big")) in lies for at in offsets):
            found.add("parked although accepted")
    return found


def _is_in_pieces(kafka: MemoryKafka) -> bool:
    """True if a transaction of a lane committed records, and not a cursor with them."""
    with_cursor = set()
    committed = set()
    for log in kafka.logs.values():
        for record, transaction in log.entries:
            if record is not None and transaction is not None and transaction.outcome == "commit":
                committed.add(transaction)
                if record[0] == CURSOR_KEY:
                    with_cursor.add(transaction)
    return committed != with_cursor


def _committed(kafka: MemoryKafka, topic: str, p: int) -> list[tuple[bytes, Any]]:
    log = kafka.logs[topic, p]
    return [
        (key or b"", value) for _, key, value in log.read(0, log.stable_end(), is_committed=True)
    ]


def _wrong_counts(
    arrivals: Arrivals, accepted: list[Accepted], rejected: list[Rejected], withheld: Counter[str]
) -> set[str]:
    found: set[str] = set()
    truth = arrivals.recount()
    counts = Counter(each.event_id for each in accepted)
    expected = Counter(call.event_id for call in truth.counted)
    lost = expected - counts
    if not counts.keys() <= arrivals.ever_sent:
        found.add("accepted what nobody sent")
    if arrivals.was_cut:
        # What a log lost may have been accepted before, and what it kept is read again.
        return found | (
            {"accepted twice"} if any(count > 1 for count in counts.values()) else set()
        )
    if counts - expected:
        found.add("accepted twice")
    of_erasable = [change.pid for _, change in arrivals.consents]
    of_erasable += [claim.pid for _, claim in arrivals.claims]
    consents = sum(pid in arrivals.erasable for pid in of_erasable)
    if not 0 <= withheld["erased"] + withheld["analytics"] - lost.total() <= consents:
        found.add("withheld count is wrong")
    unsure = {place for place, claim in arrivals.claims if claim.pid in arrivals.erasable}
    places = Counter((each.topic, each.partition, each.offset) for each in rejected)
    if Counter({at: n for at, n in places.items() if at not in unsure}) != truth.set_aside:
        found.add("not set aside once")
    return found


def _wrong_people(
    arrivals: Arrivals, people: dict[bytes, Subject], accepted: list[Accepted]
) -> set[str]:
    found: set[str] = set()
    for pid in arrivals.erased:
        known = people.get(pid)
        if known is None or known.erased_at_ms is None:
            if not arrivals.was_cut:  # else the request itself may be lost
                found.add("erased person came back")
        elif known.events or known.consents or known.spent:
            found.add("erased person came back")
    told = by_pid(accepted)
    for pid in (pid for pids in arrivals.pids.values() for pid in pids):
        if pid in arrivals.erasable:
            continue
        known, calls = people.get(pid), told.get(pid, [])
        wanted = sorted(
            change.recorded_at_ms for _, change in arrivals.consents if change.pid == pid
        )
        if known is None:
            if calls or wanted:
                found.add("person is missing")
            continue
        if known.events != len(calls):
            found.add("person counts otherwise")
        changes = sum(change.delta for each in calls for change in each.visit_changes)
        if not len(known.visits) // 34 == changes == visits_of(c.occurred_at_ms for c in calls):
            found.add("visits count otherwise")
        if [(each.currency, each.amount_micro) for each in known.spent] != _spent(calls):
            found.add("money counts otherwise")
        stamps = [each.recorded_at_ms for each in known.consents]
        if stamps != wanted if not arrivals.was_cut else not set(wanted) <= set(stamps):
            found.add("consents differ")
    return found


def _spent(calls: list[Accepted]) -> list[tuple[str, int]]:
    """The money of each order once, whoever tells of it how often."""
    orders: dict[str, int] = {}
    for call in calls:
        if call.event == ORDER:
            properties = orjson.loads(call.clear)["properties"]
            orders.setdefault(properties["order_id"], int(properties["total"]))
    return [("EUR", sum(orders.values()) * 1_000_000)] if orders else []
