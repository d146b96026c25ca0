"""How does the demo's synthetic shop reach a collector?

A seller's sites, apps and e-mail tool post batches of calls. The shop posts its own (see
`rules/shop_traffic.py`) the same way, and tells its ledger of a batch only when the collector has
acknowledged it: what was never acknowledged may or may not count, and belongs to no ledger.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from producers.rules.shop_ledger import Ledger
from producers.rules.shop_traffic import ShopCall, shop_calls

__all__ = ["Batch", "Ledger", "Pace", "ShopCall", "send_shop", "shop_batches", "shop_calls"]

_MOST_CALLS: Final = 100
_MOST_BYTES: Final = 450_000  # a collector takes 500 KB


@dataclass(frozen=True, slots=True)
class Batch:
    """The body of one `POST /v1/batch` (JSON) and the calls in it."""

    body: bytes
    calls: tuple[ShopCall, ...]


class Pace:
    """Keeps a sender at `rate_per_s` calls a second, on the clock and the sleep passed in (s)."""

    def __init__(
        self, rate_per_s: float, clock_s: Callable[[], float], sleep_s: Callable[[float], object]
    ) -> None:
        self._rate_per_s = rate_per_s
        self._clock_s = clock_s
        self._sleep_s = sleep_s
        self._due_s = clock_s()

    @property
    def calls_in_batch(self) -> int:
        """So many that a slow shop still posts some ten times a second."""
        return max(1, min(_MOST_CALLS, int(self._rate_per_s / 10)))

    def wait(self, calls: int) -> None:
        """Return when `calls` more may be sent; time lost is not caught up with a burst."""
        now_s = self._clock_s()
        if self._due_s > now_s:
            self._sleep_s(self._due_s - now_s)
        self._due_s = max(self._due_s, now_s) + calls / self._rate_per_s


def shop_batches(calls: Iterable[ShopCall], most_calls: int = _MOST_CALLS) -> Iterator[Batch]:
    """The calls in their order, in bodies below the collector's limit, made as they are needed."""
    bodies: list[bytes] = []
    batched: list[ShopCall] = []
    size = 0
    for call in calls:
        body = orjson.dumps(call.body)
        if batched and size + len(body) > _MOST_BYTES:
            yield _batch(bodies, batched)
            bodies, batched, size = [], [], 0
        bodies.append(body)
        batched.append(call)
        size += len(body) + 1
        if len(batched) == most_calls:
            yield _batch(bodies, batched)
            bodies, batched, size = [], [], 0
    if batched:
        yield _batch(bodies, batched)


def send_shop(
    calls: Iterable[ShopCall],
    post: Callable[[bytes], object],
    ledger: Ledger,
    *,
    pace: Pace | None = None,
    on_progress: Callable[[int], object] = lambda sent: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Post every call and note it in `ledger`; answers how many were sent.

    `post` returns once the collector has acknowledged the batch (200), after whatever retries it
    needs, and raises otherwise: then the batches before are noted, this one is not. After each
    batch `on_progress` hears how many calls it held. `should_stop` is asked between batches.
    """
    sent = 0
    for batch in shop_batches(calls, pace.calls_in_batch if pace else _MOST_CALLS):
        if pace:
            pace.wait(len(batch.calls))
        post(batch.body)
        for call in batch.calls:
            ledger.note(call.note)
        sent += len(batch.calls)
        on_progress(len(batch.calls))
        if should_stop():
            break
    return sent


def _batch(bodies: list[bytes], calls: list[ShopCall]) -> Batch:
    return Batch(b'{"batch":[' + b",".join(bodies) + b"]}", tuple(calls))
