"""How far is an erasure, as the stores themselves say?

Nothing is taken from what the role did before: each look asks every store again, so a step that a
crash left undone, a store that was put back from a copy, or a write of somebody who should be dead
is found like what was never done, and done again. All steps may be repeated at any time.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec.structs

from consumers.erasures.rewrites import Rewrites
from consumers.erasures.stores import Limits, Stores
from consumers.rules.erasure import (
    IDLE,
    Erasure,
    Look,
    forget_at_ms,
    is_empty,
    pending_of,
    unmark_at_ms,
)
from runtime.clock import ClockMs
from runtime.vault import Erased
from schemas.codec import SUBJECT, Malformed
from schemas.requests import FORGET, ErasureRequested

Named = tuple[Erasure, str]
"""An erasure that is not final, and the hash of its subject ("" if nobody told it)."""


class Examiner:
    """Looks into every store and does what is left to do there; for one thread.

    Methods raise StoreUnavailable or StoreRefused, and may then be called again with the same.
    """

    def __init__(self, stores: Stores, limits: Limits, clock: ClockMs) -> None:
        self._stores = stores
        self._limits = limits
        self._clock = clock
        self._rewrites = Rewrites(stores, limits, clock)

    def examine(self, named: Sequence[Named]) -> list[Erasure]:
        """Each as it stands now; one is provisional or final only if these very looks say so."""
        if not named:
            return []
        erasures = [erasure for erasure, _ in named]
        before = {each.erasure_id: each for each in erasures}
        looks: dict[str, list[Look]] = {each.erasure_id: [] for each in erasures}

        def note(each: Erasure, store: str, looked_for: str, how: str, remaining: int) -> None:
            look = Look(store, looked_for, how, int(remaining), self._clock())
            looks[each.erasure_id].append(look)

        back = self._look_vault(named, note)
        self._look_messages(erasures, note)
        marks, with_profile = self._look_profiles(erasures, note)
        self._look_subjects(erasures, marks, note)
        self._look_facts(erasures, note)
        # What came back, by a copy that was put back say, is in Redis' files once more.
        at_first = [
            self._provisional(
                msgspec.structs.replace(each, files_rewritten_at_ms=0)
                if each.erasure_id in back | with_profile
                else each,
                looks[each.erasure_id],
            )
            for each in erasures
        ]
        waiting = [each for each in at_first if each.provisional_at_ms]
        gone = self._look_logs(waiting, note) if waiting else {}
        done = []
        stepped = self._unmark(self._forget(at_first, gone), gone)
        for each in self._rewrites.after_looks(stepped, before):
            is_over = gone.get(each.erasure_id) == (True, True, True)
            found = tuple(looks[each.erasure_id])
            # What the steps after the looks changed is seen by the next looks only.
            is_settled = _steps_of(each) == _steps_of(before[each.erasure_id])
            done.append(self._settle(each, found, is_over and is_settled))
        return done

    def clean(self, erasures: Sequence[Erasure]) -> list[Erasure]:
        """Final ones, as they are once Redis' files forgot their pids, if it is time for that."""
        return self._rewrites.files(erasures, {each.erasure_id for each in erasures})

    # -- one store each

    def _look_vault(self, named: Sequence[Named], note: "Note") -> set[str]:
        """Those that had something left when this began."""
        erased = [_erased(each, subject) for each, subject in named]
        remains = self._stores.vault.remains_of(erased)
        had = {each.erasure_id for (each, _), n in zip(named, remains, strict=True) if n}
        if any(remains):
            # Not yet suppressed, or a vault that was put back from a copy.
            left = zip(erased, remains, strict=True)
            self._stores.vault.suppress_erased([one for one, n in left if n and one.subject])
            remains = self._stores.vault.remains_of(erased)
        for (each, _), n in zip(named, remains, strict=True):
            note(
                each,
                "vault",
                "row of the identifier, data key, decisions and claims of the pid, no suppression",
                "EXISTS key consent claims claimed, GET id, EXISTS suppressed",
                n,
            )
            if each.forgotten_at_ms and each.unmarked_at_ms:
                text = "files of Redis from before the deletion"
                how = "INFO persistence after BGREWRITEAOF"
                note(each, "vault", text, how, not each.files_rewritten_at_ms)
        return had

    def _look_messages(self, erasures: Sequence[Erasure], note: "Note") -> None:
        messages, pids = self._stores.messages, [bytes.fromhex(each.pid) for each in erasures]
        if any(messages.remains_of(pids)):
            # Those that wait go with the rest: nothing is sent to an erased person.
            messages.forget(pids)
        for each, n in zip(erasures, messages.remains_of(pids), strict=True):
            text = "messages of the pid: waiting, decided over, counted, in the outbox"
            note(each, "messages", text, "EXISTS person sent undeliverable", n)

    def _look_profiles(
        self, erasures: Sequence[Erasure], note: "Note"
    ) -> tuple[dict[str, tuple[int, int]], set[str]]:
        """The marks, by erasure; and those that have a profile."""
        found = self._stores.profiles.read([each.pid for each in erasures])
        marks, with_profile = {}, set()
        for each, profile in zip(erasures, found, strict=True):
            if profile.has_profile:
                with_profile.add(each.erasure_id)
            if profile.mark is not None:
                marks[each.erasure_id] = profile.mark
            is_left = profile.has_profile or (profile.mark is None and not each.forgotten_at_ms)
            note(each, "profiles", "profile of the pid", "HMGET profile p d", int(is_left))
        return marks, with_profile

    def _look_subjects(
        self, erasures: Sequence[Erasure], marks: Mapping[str, tuple[int, int]], note: "Note"
    ) -> None:
        topic, generation = self._limits.topics.subjects, self._limits.generation
        at: dict[int, dict[int, Erasure]] = {}
        whole: dict[int, list[Erasure]] = {}
        for each in erasures:
            mark = marks.get(each.erasure_id)
            if not each.forgotten_at_ms and mark is None:
                text = "newest record of the pid: an erased stub"
                note(each, "subjects", text, "no profile was erased by one yet", 1)
            elif not each.forgotten_at_ms and mark is not None and mark[0] == generation:
                at.setdefault(each.partition, {})[mark[1]] = each
            else:
                whole.setdefault(each.partition, []).append(each)
        for p, by_offset in at.items():
            values = self._stores.logs.values_at(topic, p, list(by_offset))
            for offset, each in by_offset.items():
                how = f"read {topic}[{p}]@{offset}, which erased the profile"
                is_stub = offset in values and _is_stub(values[offset])
                note(each, "subjects", "newest record of the pid: an erased stub", how, not is_stub)
        for p, some in whole.items():
            keys = [bytes.fromhex(each.pid) for each in some]
            found = self._stores.logs.of_keys(topic, p, keys)
            how = f"read {topic}[{p}] from its first record to its last"
            for each, key in zip(some, keys, strict=True):
                if each.forgotten_at_ms:
                    note(each, "subjects", "records of the pid", how, found[key].records)
                else:
                    is_stub = found[key].records > 0 and _is_stub(found[key].newest)
                    text = "newest record of the pid: an erased stub"
                    note(each, "subjects", text, how, not is_stub)

    def _look_facts(self, erasures: Sequence[Erasure], note: "Note") -> None:
        facts, pids = self._stores.facts, [each.pid for each in erasures]
        found = facts.count(pids)
        # Only under its mark: before it, the sums that stay are not there yet.
        left = [pid for pid, of in found.items() if of.marks and (of.facts or of.idle_links)]
        if left:
            facts.delete_facts(left)
            found = facts.count(pids)
        for each in erasures:
            of = found[each.pid]
            if each.unmarked_at_ms:
                if of.facts or of.marks or of.links:
                    facts.delete_all([each.pid])
                    of = facts.count([each.pid])[each.pid]
                remaining = of.facts + of.marks + of.links
                note(each, "facts", "rows and links of the pid", "SELECT count()", remaining)
                parts = facts.old_parts(each.rewritten_at_s) if each.rewritten_at_s else 1
                text = "parts on the disk that may have deleted rows"
                note(each, "facts", text, "SELECT count() FROM system.parts", parts)
                text = "statements kept that name the pid"
                kept = facts.statements_of(each.pid)
                note(each, "facts", text, "SELECT count() FROM system.mutations", kept)
            else:
                remaining = of.facts + (not of.marks) + of.idle_links
                text = "rows of the pid but for the mark that hides late ones, links of the erased"
                note(each, "facts", text, "SELECT count()", remaining)

    def _look_logs(
        self, erasures: Sequence[Erasure], note: "Note"
    ) -> dict[str, tuple[bool, bool, bool]]:
        """Of each erasure, whether all that may be hers has gone from collected, accepted and the
        others; noted once a horizon has passed, because before it nobody claims anything."""
        topics, horizons, now_ms = self._limits.topics, self._limits.horizons, self._clock()
        every = range(self._limits.partitions)
        ages = (
            (topics.collected, horizons.collected_ms, False),
            (topics.accepted, horizons.accepted_ms, False),
            (topics.rejected, horizons.rejected_ms, True),
            (topics.moves, horizons.told_ms, True),
            (topics.journeys, horizons.told_ms, False),
            (topics.segments_changed, horizons.told_ms, False),
        )
        oldest: dict[str, dict[int, int | None]] = {}
        found = {}
        for each in erasures:
            gone = []
            for topic, lives_ms, is_everywhere in ages:
                if each.provisional_at_ms + lives_ms > now_ms:
                    gone.append(False)
                    continue
                if topic not in oldest:
                    oldest[topic] = self._stores.logs.oldest_ms(topic, list(every))
                where = every if is_everywhere else [each.partition]
                is_gone = all(_is_later(oldest[topic][p], each.provisional_at_ms) for p in where)
                gone.append(is_gone)
                how = f"age of the oldest record of {topic}"
                note(each, topic, "records from before the erasure", how, not is_gone)
            found[each.erasure_id] = (gone[0], gone[1], all(gone[2:]))
        return found

    # -- steps that time allows

    def _provisional(self, each: Erasure, looks: Sequence[Look]) -> Erasure:
        if each.provisional_at_ms or not is_empty(looks):
            return each
        return msgspec.structs.replace(each, status="provisional", provisional_at_ms=self._clock())

    def _forget(
        self, erasures: Sequence[Erasure], gone: Mapping[str, tuple[bool, bool, bool]]
    ) -> list[Erasure]:
        """Where no event can come any more, the lane is told to drop the stub."""
        now_ms, horizons = self._clock(), self._limits.horizons
        due = {
            each.erasure_id
            for each in erasures
            if gone.get(each.erasure_id, (False,))[0]
            and not each.forgotten_at_ms
            and forget_at_ms(each, horizons) <= now_ms
        }
        told = [each for each in erasures if each.erasure_id in due]
        if told:
            self._stores.tell([request_of(each, FORGET) for each in told])
        return [
            msgspec.structs.replace(each, forgotten_at_ms=now_ms)
            if each.erasure_id in due
            else each
            for each in erasures
        ]

    def _unmark(
        self, erasures: Sequence[Erasure], gone: Mapping[str, tuple[bool, bool, bool]]
    ) -> list[Erasure]:
        """Where no fact can come any more, ClickHouse's mark goes."""
        now_ms, horizons = self._clock(), self._limits.horizons
        due = {
            each.pid: each.erasure_id
            for each in erasures
            if all(gone.get(each.erasure_id, (False, False))[:2])
            and not each.unmarked_at_ms
            and unmark_at_ms(each, horizons) <= now_ms
        }
        if due:
            self._stores.facts.delete_all(list(due))
        return [
            msgspec.structs.replace(each, unmarked_at_ms=now_ms, rewritten_at_s=0)
            if each.pid in due
            else each
            for each in erasures
        ]

    def _settle(self, each: Erasure, looks: tuple[Look, ...], is_over: bool) -> Erasure:
        horizons, now_ms = self._limits.horizons, self._clock()
        if not each.provisional_at_ms:
            return msgspec.structs.replace(each, looks=looks)
        pending = pending_of(each, horizons)
        if all(_steps_of(each)) and is_over and is_empty(looks) and pending[-1].until_ms <= now_ms:
            self._stores.profiles.remove_marks([each.pid])
            (profile,) = self._stores.profiles.read([each.pid])
            is_left = profile.has_profile or profile.mark is not None
            how = "HMGET profile p d"
            look = Look("profiles", "mark of the pid", how, int(is_left), self._clock())
            if not is_left:
                pid = each.pid if self._limits.keeps_proof else ""
                return msgspec.structs.replace(
                    each,
                    status="final",
                    looks=(*looks, look),
                    pending=(),
                    pid=pid,
                    files_rewritten_at_ms=0,
                )
        return msgspec.structs.replace(each, looks=looks, pending=pending)


Note = Callable[[Erasure, str, str, str, int], None]
"""(erasure, store, looked for, how, remaining)."""


def request_of(each: Erasure, phase: str) -> ErasureRequested:
    """The record that tells the lane."""
    return ErasureRequested(
        bytes.fromhex(each.erasure_id),
        bytes.fromhex(each.pid),
        each.requested_at_ms,
        each.reason,
        [],
        phase,
    )


def _steps_of(each: Erasure) -> tuple[int, int, int, int]:
    return (
        each.forgotten_at_ms,
        each.unmarked_at_ms,
        each.rewritten_at_s,
        each.files_rewritten_at_ms,
    )


def _erased(each: Erasure, subject: str) -> Erased:
    return Erased(
        subject,
        bytes.fromhex(each.pid),
        each.requested_at_ms,
        bytes.fromhex(each.erasure_id),
        is_idle=each.reason == IDLE,
    )


def _is_stub(value: bytes | None) -> bool:
    try:
        return SUBJECT.decode(value).erased_at_ms is not None
    except Malformed:
        return False


def _is_later(oldest_ms: int | None, than_ms: int) -> bool:
    return oldest_ms is None or oldest_ms > than_ms
