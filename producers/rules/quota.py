"""May this source send more now?

A token bucket: it holds one second's events and refills steadily, so a short burst passes and a
flood does not. A batch larger than the bucket passes when it is full, or it never would.
"""


class Quota:
    """The bucket of one source; `per_s` of 0 is without limit. The caller tells the time (ms)."""

    __slots__ = ("_level", "_per_s", "_seen_at_ms")

    def __init__(self, per_s: int, now_ms: int) -> None:
        self._per_s = per_s
        self._level = float(per_s)
        self._seen_at_ms = now_ms

    def take(self, events: int, now_ms: int) -> float:
        """0 when `events` may pass, which are then taken; else how long to wait (s)."""
        if self._per_s == 0:
            return 0.0
        # A clock set back refills nothing.
        passed_ms = max(0, now_ms - self._seen_at_ms)
        self._seen_at_ms = now_ms
        self._level = min(float(self._per_s), self._level + passed_ms * self._per_s / 1000)
        needed = min(events, self._per_s)
        if self._level >= needed:
            self._level -= events
            return 0.0
        return (needed - self._level) / self._per_s
