"""When may somebody be told that their decision is in force?

Once it is on the log (all in-sync replicas) and in the overlay, on disk: in this order, so that the
overlay holds nothing that has no proof, and a crash in between is healed by the same request sent
again, which finds the same record id (schemas/decisions.py). A refusal also waits for who was told
that they may send a moment ago: afterwards no message begins that it forbids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from runtime.clock import ClockMs, now_ms
from runtime.consent_overlay import ConsentOverlay, Matters
from runtime.deliveries import Deliveries, Record
from runtime.metrics import counter
from runtime.settings import Settings
from schemas.codec import CONSENT_CHANGED
from schemas.consent import is_grant
from schemas.decisions import Decision, Known, News, Way, newest_of, news_of
from schemas.minors import Age, country_of, lacks_guardian, youngest_of


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


@dataclass(frozen=True, slots=True)
class NeedsGuardian:
    """Nothing is on record: the person is, or may be, below this age, and said yes alone."""

    age_of_consent: int


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
        self._consent = settings.consent
        self._bases = {name: purpose.basis for name, purpose in settings.purposes.items()}

    async def decide(self, wanted: Sequence[Wanted]) -> list[Outcome | NeedsGuardian]:
        """Every decision that is news is on the log and in force; what each came to, in order.

        For every pid of the person (runtime/kin.py), each with a record of its own, of one time. Of
        one who is too large, under the pid that is named: nothing is shown of them or sent to them
        until claims are revoked, and then the stricter wins of what was decided under each pid.

        A yes that needs a guardian's is neither (schemas/minors.py). Where a decision tells no age,
        what the newest record told of it holds.

        What is not news is durable too when it was said or listed. Raises StoreUnavailable or
        StoreRefused; then send the same again.
        """
        named = dict.fromkeys(each.pid for each in wanted)
        people = {pid: (pid,) for pid in named} | await self.overlay.kin.people_found(named)
        pids = list({pid: None for person in people.values() for pid in person})
        found = await self.overlay.read_with_age(pids)
        known = {pid: dict(matters) for pid, (matters, _) in zip(pids, found, strict=True)}
        ages = {pid: age for pid, (_, age) in zip(pids, found, strict=True)}
        outcomes: list[Outcome | NeedsGuardian] = []
        records: list[Record] = []
        put: dict[bytes, list[Known]] = {}
        for each in wanted:
            person, matter = people[each.pid], each.decision.subject_of
            refused = [no for pid in person if (no := self.refusal_of(each, ages[pid]))]
            if refused:
                outcomes.append(refused[0])
                continue
            if len(person) > 1:
                each = replace(each, at_ms=_one_time(each, person, known))
            news = {each.pid: self._news(each, known[each.pid], ages[each.pid])}
            if _is_for_all(each, news[each.pid]):
                for pid in person:
                    news[pid] = self._news(replace(each, pid=pid), known[pid], ages[pid])
            taken: Known | None = None
            # The pid that was named comes last: once it is known there, it is known everywhere.
            for pid, new in reversed(news.items()):
                on_one = known[pid].get(matter, ())
                taken = new.known if new is not None else newest_of(on_one)
                assert taken is not None, "a first decision is always news"
                if new is not None:
                    records.append((self._topic, pid, CONSENT_CHANGED.encode(new.change)))
                    known[pid][matter] = (*on_one, taken)
                    ages[pid] = taken.age or ages[pid]
                # One that is there may not be on disk yet: whoever wrote it was perhaps told 503.
                if new is not None or each.way in ("said", "listed"):
                    put.setdefault(pid, []).append(taken)
            assert taken is not None, "at least the pid that was named is there"
            outcomes.append(Outcome(taken, any(new is not None for new in news.values())))
        await self._deliveries.send(records)
        if put:
            await self.overlay.put(put)
            refusing = [pid for pid, known in put.items() if not all(map(_is_yes, known))]
            if refusing:
                await self.overlay.outlast_sends(refusing)
        counted = counter("headwater_consents_recorded_total")
        for each, came in zip(wanted, outcomes, strict=True):
            if isinstance(came, NeedsGuardian):
                counter("headwater_consents_without_guardian_total").labels(each.way).inc()
            elif came.is_new:
                counted.labels(each.way).inc()
        return outcomes

    def refusal_of(self, wanted: Wanted, known: Age | None = None) -> NeedsGuardian | None:
        """Why a decision is not taken from somebody of the `known` age, unless it tells another."""
        decision = wanted.decision
        proof = decision.proof
        decided_at_ms = _decided_at_ms(wanted)
        if proof.age_band is not None:
            # A band that cannot be read may be a child's.
            at_least = youngest_of(proof.age_band) or 0
        elif known is not None:
            at_least = known.at(decided_at_ms)
        else:
            return None
        limit = self._age_of_consent(wanted, known)
        if lacks_guardian(decision.status, proof.authorised_by, at_least, limit):
            return NeedsGuardian(limit)
        return None

    def _age_of_consent(self, wanted: Wanted, known: Age | None) -> int:
        country = country_of(wanted.decision.proof.jurisdiction)
        if country is None and known is not None:
            country = known.country
        return self._consent.age_in(country)

    def _news(self, wanted: Wanted, matters: Matters, known: Age | None) -> News | None:
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
            age_of_consent=self._age_of_consent(wanted, known),
        )


def _is_for_all(wanted: Wanted, own: News | None) -> bool:
    """True if a decision is the whole person's, and not only of the pid that it names.

    What calls state is the whole person's only where it is news of the one who is named: a device
    and a telephone that each stamp what they remember would else contradict each other in every
    call. And a yes that only a stamp says is that of one device.
    """
    if wanted.way in ("said", "listed"):
        return True
    return own is not None and not (wanted.way == "stamped" and _is_yes(own.known))


def _one_time(wanted: Wanted, person: Sequence[bytes], known: Mapping[bytes, Matters]) -> int:
    """When it is recorded for all of a person: after all that is known of any of them."""
    matter = wanted.decision.subject_of
    recorded = (newest_of(known[pid].get(matter, ())) for pid in person)
    return max(wanted.at_ms, *(0 if k is None else k.consent.recorded_at_ms + 1 for k in recorded))


def _decided_at_ms(wanted: Wanted) -> int:
    begins = wanted.decision.valid_from_ms
    return wanted.at_ms if begins is None else min(begins, wanted.at_ms)


def _is_yes(known: Known) -> bool:
    return is_grant(known.consent)
