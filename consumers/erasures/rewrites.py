"""When do the disks forget what the stores no longer answer?

ClickHouse masks deleted rows and keeps them in their parts; Redis keeps deleted values in its file.
Both forget when they write anew, which costs a pass over everything: so it is done for all who need
it together, and at most every `[erasure] rewrite_every_hours`; one that failed is tried again
sooner. No provisional certificate waits for it; the final one does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec.structs

from consumers.erasures.stores import Limits, Stores
from consumers.rules.erasure import Erasure
from runtime.clock import ClockMs
from runtime.logs import get_logger

TRIES_AGAIN_AFTER_MS = 600_000
"""After one that failed. Looks come as often as they like: a disk that is full is not asked with
each."""


@dataclass(slots=True)
class _Times:
    """When one kind of rewrite was begun last, and when last so that it was done."""

    tried_at_ms: int = 0
    done_at_ms: int = 0


class Rewrites:
    """Rewrites for many erasures at once; for one thread. Methods raise StoreUnavailable or
    StoreRefused, and may then be called again."""

    def __init__(self, stores: Stores, limits: Limits, clock: ClockMs) -> None:
        self._stores = stores
        self._every_ms = limits.rewrite_every_ms
        self._clock = clock
        self._facts = _Times()
        self._files = _Times()

    def after_looks(
        self, erasures: Sequence[Erasure], before: Mapping[str, Erasure]
    ) -> list[Erasure]:
        """Each that was provisional before these looks knows when its deleted rows left their
        parts, and its deleted values Redis' files, if that was to be done now."""
        waiting = {id_ for id_, each in before.items() if each.provisional_at_ms}
        of_facts = {each.erasure_id for each in erasures if not each.rewritten_at_s} & waiting
        done = list(erasures)
        if of_facts and self._begins(self._facts):
            at_s = self._stores.facts.rewrite()
            self._facts.done_at_ms = self._clock()
            done = [
                msgspec.structs.replace(each, rewritten_at_s=at_s)
                if each.erasure_id in of_facts
                else each
                for each in done
            ]
        return self.files(done, waiting)

    def files(self, erasures: Sequence[Erasure], waiting: set[str]) -> list[Erasure]:
        """Those of `waiting` whose deleted values are still in Redis' files know when they left."""
        needing = {each.erasure_id for each in erasures if not each.files_rewritten_at_ms} & waiting
        if not needing or not self._begins(self._files):
            return list(erasures)
        now_ms = self._files.tried_at_ms
        if not self._stores.rewrite_files():
            get_logger().error(
                "redis_files_not_rewritten",
                remedy="let the user of [vault] url and [redis] url run BGREWRITEAOF, BGSAVE, INFO "
                "and CONFIG GET: no erasure becomes final without",
            )
            return list(erasures)
        self._files.done_at_ms = now_ms
        return [
            msgspec.structs.replace(each, files_rewritten_at_ms=now_ms)
            if each.erasure_id in needing
            else each
            for each in erasures
        ]

    def _begins(self, of: _Times) -> bool:
        """True if it is to be done now, which counts as a try."""
        now = self._clock()
        pause_ms = min(self._every_ms, TRIES_AGAIN_AFTER_MS)
        if now < of.done_at_ms + self._every_ms or now < of.tried_at_ms + pause_ms:
            return False
        of.tried_at_ms = now
        return True
