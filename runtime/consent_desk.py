"""When may somebody be told that their decision is in force?

Once it is on the log (all in-sync replicas) and in the overlay, on disk: in this order, so that the
overlay holds nothing that has no proof, and a crash in between is healed by the same request sent
again, which finds the same record id (schemas/decisions.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.clock import ClockMs, now_ms
from runtime.consent_overlay import ConsentOverlay, Matters
from runtime.deliveries import Deliveries, Record
from runtime.metrics import counter
from runtime.settings import Settings
from schemas.codec import CONSENT_CHANGED
from schemas.decisions import Decision, Known, News, Way, newest_of, news_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """Somebody's decision as it came; `at_ms` is when it reached us."""

    pid: bytes
    decision: Decision
    way: Way
    at_ms: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is on record on the matter now: by this decision if `is_new`, else as it was."""

    known: Known
    is_new: bool


class ConsentDesk:
    """Records decisions, through a producer and an overlay that somebody else starts and closes."""

    def __init__(
        self,
        settings: Settings,
        overlay: ConsentOverlay,
        deliveries: Deliveries,
        *,
        clock: ClockMs = now_ms,
    ) -> None:
        self.clock = clock
        self.overlay = overlay
        self._deliveries = deliveries
        self._topic = settings.topic_names.consents
        self._skew_ms = settings.time.skew_limit_s * 1000
        self._bases = {name: purpose.basis for name, purpose in settings.purposes.items()}

    async def decide(self, wanted: Sequence[Wanted]) -> list[Outcome]:
        """Every decision that is news is on the log and in force; what each came to, in order.

        What is not news is durable too when it was said or listed. Raises StoreUnavailable or
        StoreRefused; then send the same again.
        """
        pids = list(dict.fromkeys(each.pid for each in wanted))
        known = dict(zip(pids, map(dict, await self.overlay.read(pids)), strict=True))
        outcomes: list[Outcome] = []
        records: list[Record] = []
        put: dict[bytes, list[Known]] = {}
        for each in wanted:
            matters = known[each.pid]
            news = self._news(each, matters)
            on_one = matters.get(each.decision.subject_of, ())
            if news is not None:
                records.append((self._topic, each.pid, CONSENT_CHANGED.encode(news.change)))
                matters[each.decision.subject_of] = (*on_one, news.known)
                outcome = Outcome(news.known, is_new=True)
            else:
                newest = newest_of(on_one)
                assert newest is not None, "a first decision is always news"
                outcome = Outcome(newest, is_new=False)
            outcomes.append(outcome)
            # One that is there may not be on disk yet: whoever wrote it was perhaps told 503.
            if outcome.is_new or each.way in ("said", "listed"):
                put.setdefault(each.pid, []).append(outcome.known)
        await self._deliveries.send(records)
        if put:
            await self.overlay.put(put)
        counted = counter("headwater_consents_recorded_total")
        for each, outcome in zip(wanted, outcomes, strict=True):
            if outcome.is_new:
                counted.labels(each.way).inc()
        return outcomes

    def _news(self, wanted: Wanted, matters: Matters) -> News | None:
        decision = wanted.decision
        kind, _, name = decision.subject_of.partition("/")
        # A subscription needs consent everywhere (ePrivacy Directive Art. 13).
        basis = self._bases.get(name, "consent") if kind == "purpose" else "consent"
        return news_of(
            wanted.pid,
            decision,
            matters.get(decision.subject_of, ()),
            way=wanted.way,
            legal_basis=basis,
            now_ms=wanted.at_ms,
            skew_ms=self._skew_ms,
        )
