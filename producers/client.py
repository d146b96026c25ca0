"""How does a Python service send what its customers do?

    client = Client("http://headwater:8080", write_key)
    client.track("Order Completed", user_id="42", properties={"total": "27.50", "currency": "EUR"})
    client.close()

A call is written down at once and sent in the background, in batches, until the collector has
acknowledged it: the service neither waits nor loses calls while the collector restarts. What is
waiting when the service itself dies is lost; `flush` returns once nothing waits.
"""

import atexit
import json
import threading
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from producers.posting import MOST_BATCH_BYTES, MOST_CALL_BYTES, Poster
from runtime.logs import get_logger
from schemas.errors import StoreRefused, StoreUnavailable

MOST_CALLS = 100
_CLOSES_WITHIN_S = 10.0

Values = Mapping[str, Any]


class Client:
    """A sender of calls, to be shared by all threads of a service.

    At most `most_waiting` calls wait; the next one raises StoreUnavailable, so that memory ends
    before it harms the service. `on_refused` hears of batches that the collector will never take
    (a wrong key, say): the reason and how many calls.
    """

    def __init__(
        self,
        url: str,
        write_key: str,
        *,
        most_waiting: int = 10_000,
        linger_s: float = 0.2,
        on_refused: Callable[[str, int], object] | None = None,
    ) -> None:
        self._poster = Poster(url, write_key)
        self._most_waiting = most_waiting
        self._linger_s = linger_s
        self._on_refused = on_refused if on_refused is not None else _log_refused
        self._waiting: deque[bytes] = deque()
        self._sending = 0
        self._flushing = 0
        self._is_closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="headwater-client", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def track(self, event: str, *, properties: Values | None = None, **who_and_when: Any) -> str:
        """Something happened. Answers the call's messageId.

        `who_and_when`, here and below: `user_id`, `anonymous_id`, `context`, `timestamp` (a
        datetime; now by default), `message_id`.
        """
        return self._call("track", {"event": event, "properties": properties}, **who_and_when)

    def identify(self, *, traits: Values | None = None, **who_and_when: Any) -> str:
        """A person has these traits; one set to None is removed."""
        return self._call("identify", {"traits": traits}, **who_and_when)

    def page(
        self, name: str | None = None, *, properties: Values | None = None, **who_and_when: Any
    ) -> str:
        """A page was seen."""
        return self._call("page", {"name": name, "properties": properties}, **who_and_when)

    def screen(
        self, name: str | None = None, *, properties: Values | None = None, **who_and_when: Any
    ) -> str:
        """A screen of an app was seen."""
        return self._call("screen", {"name": name, "properties": properties}, **who_and_when)

    def group(self, group_id: str, *, traits: Values | None = None, **who_and_when: Any) -> str:
        """A person belongs to a group with these traits."""
        return self._call("group", {"groupId": group_id, "traits": traits}, **who_and_when)

    def alias(self, previous_id: str, **who_and_when: Any) -> str:
        """A person was known under another identifier before."""
        return self._call("alias", {"previousId": previous_id}, **who_and_when)

    def enqueue(self, call: Values) -> str:
        """Send any call of Segment's protocol; one without a messageId gets one, which is answered.

        Raises ValueError when the call is not JSON or over 32 KB, StoreUnavailable when too many
        calls wait already or the client is closed.
        """
        message_id = str(call.get("messageId") or uuid4())
        whole = dict(call) | {"messageId": message_id}
        raw = json.dumps(
            whole, allow_nan=False, separators=(",", ":"), ensure_ascii=False, default=_plain
        ).encode()
        if len(raw) > MOST_CALL_BYTES:
            raise ValueError(
                f"a call may have {MOST_CALL_BYTES} bytes of JSON; this has {len(raw)}"
            )
        with self._changed:
            if self._is_closed:
                raise StoreUnavailable("the client is closed")
            if len(self._waiting) + self._sending >= self._most_waiting:
                raise StoreUnavailable(
                    f"{self._most_waiting} calls wait for the collector already; send more slowly, "
                    "or keep this one and come again"
                )
            self._waiting.append(raw)
            self._changed.notify_all()
        return message_id

    def flush(self, within_s: float | None = None) -> None:
        """No call waits any more: each was acknowledged, or refused for good (`on_refused`).

        Raises StoreUnavailable when some still wait after `within_s`; they go on being sent.
        """
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            try:
                is_empty = self._changed.wait_for(lambda: not self._left, within_s)
                if not is_empty:
                    raise StoreUnavailable(f"{self._left} calls still wait for the collector")
            finally:
                self._flushing -= 1

    def close(self, within_s: float = _CLOSES_WITHIN_S) -> None:
        """Take no more calls, send what waits, and end. Raises StoreUnavailable as `flush` does;
        then what waits is given up."""
        atexit.unregister(self.close)
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        try:
            self.flush(within_s)
        finally:
            self._poster.stop()
            self._thread.join(within_s)
            self._poster.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _left(self) -> int:
        return len(self._waiting) + self._sending

    def _call(
        self,
        kind: str,
        own: Values,
        *,
        user_id: str | int | None = None,
        anonymous_id: str | None = None,
        context: Values | None = None,
        timestamp: datetime | None = None,
        message_id: str | None = None,
    ) -> str:
        happened_at = timestamp if timestamp is not None else datetime.now(UTC)
        call = {
            "type": kind,
            "messageId": message_id,
            "userId": user_id,
            "anonymousId": anonymous_id,
            "timestamp": happened_at,
            "context": context,
            **own,
        }
        return self.enqueue({name: value for name, value in call.items() if value is not None})

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            try:
                self._poster.post(b'{"batch":[' + b",".join(batch) + b"]}")
            except StoreRefused as refused:
                self._on_refused(str(refused), len(batch))
            except StoreUnavailable:
                return  # closed while it waited: `close` tells what was left
            with self._changed:
                self._sending = 0
                self._changed.notify_all()

    def _next_batch(self) -> list[bytes] | None:
        """The next calls to send together, or None once closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if not self._waiting:
                return None
            # Wait a little for company, unless somebody waits for us.
            self._changed.wait_for(
                lambda: len(self._waiting) >= MOST_CALLS or self._flushing or self._is_closed,
                self._linger_s,
            )
            batch: list[bytes] = []
            size = 0
            while self._waiting and len(batch) < MOST_CALLS:
                size += len(self._waiting[0]) + 1
                if batch and size > MOST_BATCH_BYTES:
                    break
                batch.append(self._waiting.popleft())
            self._sending = len(batch)
            return batch


def _plain(value: object) -> str:
    """What JSON lacks, as the collector reads it."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


def _log_refused(reason: str, calls: int) -> None:
    get_logger().error("calls_refused", reason=reason, calls=calls)
