"""Which campaign touched a person last before a moment, and for which moments does a touch decide?

A touch decides from its own millisecond until the next one, or until the window has passed (ADR
0021). So one that comes or goes changes one stretch of time: from its own moment to where the next
touch, or the end of its window, takes over. Whatever order touches arrive in, the same set of them
decides the same.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable
from itertools import pairwise
from typing import NamedTuple

from schemas.events import NO_CAMPAIGN
from schemas.touches import TOUCH, Touch, unpack_touches
from schemas.varints import WRITTEN, write_long

MOST_TOUCHES = 256
KEPT_TOUCHES = 192
"""Of a person with more than the most so many are kept. Those go first between two others of the
same campaign that cover their stretch (ADR 0021), the oldest before others; then the oldest at all.
Thinned out by many at once: each pass looks at all of them."""

_TOUCH_BYTES = TOUCH.size
_NOTHING = b"\x00\x00"
_pack = TOUCH.pack
_unpack_from = TOUCH.unpack_from


class Stretch(NamedTuple):
    """Moments from `from_ms`, inclusive, to `until_ms`, exclusive, that changed their campaign."""

    from_ms: int
    until_ms: int
    before: str
    after: str


class Touches:
    """Those of one person, packed as they are written. Changed in place, in order always."""

    __slots__ = ("_last_ms", "campaigns", "names", "packed")

    def __init__(self, campaigns: list[str] | None = None, packed: bytes = b"") -> None:
        self.campaigns = [] if campaigns is None else campaigns
        self.names = b"".join([WRITTEN[name] for name in self.campaigns])  # as they are written
        self.packed = bytearray(packed)
        self._last_ms: int = _unpack_from(packed, len(packed) - TOUCH.size)[0] if packed else -1

    def __len__(self) -> int:
        return len(self.packed) // TOUCH.size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Touches) and self.all() == other.all()

    __hash__ = None  # type: ignore[assignment]

    def all(self) -> list[Touch]:
        """Every touch, in order."""
        return list(unpack_touches(self.campaigns, bytes(self.packed)))

    def campaign_at(self, at_ms: int, window_ms: int) -> str:
        """The campaign of what happened at `at_ms` and names none."""
        packed = self.packed
        if packed:
            touched_at_ms: int
            campaign: int
            touched_at_ms, _, _, campaign = _unpack_from(packed, len(packed) - TOUCH.size)
            if touched_at_ms > at_ms:
                return _campaign_at(self.all(), at_ms, window_ms)
            if at_ms - touched_at_ms < window_ms:
                return self.campaigns[campaign]
        return NO_CAMPAIGN

    def has(self, at_ms: int, tie: bytes) -> bool:
        """True if the event at this place in time names its campaign."""
        touches = self.all()
        at = bisect_left(touches, (at_ms, tie))
        return at < len(touches) and touches[at][:2] == (at_ms, tie)

    def append(self, at_ms: int, tie: bytes, received_at_ms: int, campaign_id: str) -> bool:
        """The touch is known if it is later than all others and there is room; False otherwise."""
        if self._last_ms >= at_ms or len(self.packed) >= MOST_TOUCHES * _TOUCH_BYTES:
            return False
        self._append(at_ms, tie, received_at_ms, campaign_id)
        return True

    def add(self, touch: Touch, window_ms: int) -> list[Stretch]:
        """The touch is known; the moments whose campaign changed by it."""
        packed = self.packed
        if not packed or _unpack_from(packed, len(packed) - TOUCH.size)[:2] < touch[:2]:
            self._append(*touch)
            if len(packed) // TOUCH.size <= MOST_TOUCHES:
                last = packed[-2 * TOUCH.size : -TOUCH.size]
                before = next(unpack_touches(self.campaigns, bytes(last)), None)
                return stretches(before, touch, None, window_ms)
        else:
            touches = self.all()
            touches.insert(bisect_left(touches, touch), touch)
            self.replace(touches)
        touches = self.all()
        at = bisect_left(touches, touch)
        changed = stretches(*_around(touches, at), window_ms)
        if len(touches) > MOST_TOUCHES:
            self.replace(thinned(touches, window_ms, KEPT_TOUCHES))
        return changed

    def remove(self, gone: Collection[Touch], window_ms: int) -> list[Stretch]:
        """They are known no more; the moments whose campaign changed by it, later ones prevail."""
        touches = self.all()
        changed: list[Stretch] = []
        for touch in gone:
            at = bisect_left(touches, touch)
            if at == len(touches) or touches[at] != touch:
                continue  # thinned out before
            before, _, after = _around(touches, at)
            changed += [
                Stretch(each.from_ms, each.until_ms, each.after, each.before)
                for each in stretches(before, touch, after, window_ms)
            ]
            del touches[at]
        self.replace(touches)
        return changed

    def written(self) -> bytes:
        """The fields `touch_campaigns` and `touches` of a record."""
        packed = self.packed
        if not packed:
            return _NOTHING
        count = write_long(len(self.campaigns))
        return b"".join((count, self.names, b"\x00", write_long(len(packed)), packed))

    def replace(self, touches: Iterable[Touch]) -> None:
        """They are `touches`, which stand in order."""
        self.campaigns, self.names, self.packed, self._last_ms = [], b"", bytearray(), -1
        for touch in touches:
            self._append(*touch)

    def _append(self, at_ms: int, tie: bytes, received_at_ms: int, campaign_id: str) -> None:
        campaigns = self.campaigns
        if campaign_id in campaigns:
            place = campaigns.index(campaign_id)
        else:
            place = len(campaigns)
            campaigns.append(campaign_id)
            self.names += WRITTEN[campaign_id]
        self.packed += _pack(at_ms, tie, received_at_ms, place)
        self._last_ms = at_ms


def _campaign_at(touches: list[Touch], at_ms: int, window_ms: int) -> str:
    place = bisect_right(touches, at_ms, key=_time_of)
    if place and at_ms - touches[place - 1].occurred_at_ms < window_ms:
        return touches[place - 1].campaign_id
    return NO_CAMPAIGN


def _time_of(touch: Touch) -> int:
    return touch.occurred_at_ms


def _around(touches: list[Touch], at: int) -> tuple[Touch | None, Touch, Touch | None]:
    before = touches[at - 1] if at else None
    return before, touches[at], touches[at + 1] if at + 1 < len(touches) else None


def stretches(
    before: Touch | None, touch: Touch, after: Touch | None, window_ms: int
) -> list[Stretch]:
    """What `touch` changes between its neighbours; at most two stretches, none of them empty."""
    from_ms = touch.occurred_at_ms
    until_ms = from_ms + window_ms
    if after is not None and after.occurred_at_ms < until_ms:
        until_ms = after.occurred_at_ms
    campaign_id = touch.campaign_id
    turn_ms = from_ms
    found = []
    if before is not None:
        turn_ms = min(until_ms, max(from_ms, before.occurred_at_ms + window_ms))
        if from_ms < turn_ms and before.campaign_id != campaign_id:
            found.append(Stretch(from_ms, turn_ms, before.campaign_id, campaign_id))
    if turn_ms < until_ms and campaign_id != NO_CAMPAIGN:
        found.append(Stretch(turn_ms, until_ms, NO_CAMPAIGN, campaign_id))
    return found


def thinned(touches: list[Touch], window_ms: int, kept: int) -> list[Touch]:
    """So many of them: without the oldest that change nothing, and, if need be, the oldest."""
    excess = len(touches) - kept
    found = touches[:1]
    for touch, after in pairwise(touches[1:]):
        before = found[-1]
        if (
            excess > 0
            and before.campaign_id == touch.campaign_id
            and after.occurred_at_ms - before.occurred_at_ms <= window_ms
        ):
            excess -= 1
        else:
            found.append(touch)
    return [*found, touches[-1]][-kept:]
