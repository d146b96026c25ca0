"""How does a batch reach a collector that may be restarting, busy or far away?

It is sent again, the same bytes, until it is acknowledged: the calls keep their messageId, so what
arrived twice counts once. Pauses grow and are random, so that a thousand clients do not return to a
recovering collector in the same instant.
"""

import base64
import http.client
import json
import random
import ssl
import threading
import time
from urllib.parse import urlsplit

from schemas.errors import SettingInvalid, StoreRefused, StoreUnavailable

MOST_BATCH_BYTES = 450_000  # a collector takes 500 KB
MOST_CALL_BYTES = 32 * 1024
ANSWER_WITHIN_S = 30.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


class Poster:
    """One kept connection to a collector; for one thread, except `stop`.

    `gives_up_after_s` is how long one batch is tried; None is without end.
    """

    def __init__(self, url: str, write_key: str, *, gives_up_after_s: float | None = None) -> None:
        at = urlsplit(url)
        if at.scheme not in ("http", "https") or not at.hostname:
            raise SettingInvalid(f"url: expected http://host:port or https://host, got {url!r}")
        self._connection = (
            http.client.HTTPSConnection(
                at.hostname, at.port, timeout=ANSWER_WITHIN_S, context=ssl.create_default_context()
            )
            if at.scheme == "https"
            else http.client.HTTPConnection(at.hostname, at.port, timeout=ANSWER_WITHIN_S)
        )
        self._path = f"{at.path.rstrip('/')}/v1/batch"
        user = base64.b64encode(f"{write_key}:".encode()).decode()
        self._headers = {"Authorization": f"Basic {user}", "Content-Type": "application/json"}
        self._gives_up_after_s = gives_up_after_s
        self._is_stopped = threading.Event()

    def post(self, body: bytes) -> None:
        """The collector has acknowledged `body`, the JSON of one POST /v1/batch.

        Raises StoreRefused when it says that this will never do (key, size, not JSON), and
        StoreUnavailable when it was tried for `gives_up_after_s`, or `stop` was called.
        """
        began_s = time.monotonic()
        pause_s = _FIRST_PAUSE_S
        while True:
            status, answer, asked_pause_s = self._try(body)
            if status == 200:
                return
            if status and status not in _PASSING:
                raise StoreRefused(f"the collector refused a batch: {status} {_detail(answer)}")
            # A whole pause more than asked would waste a restart; some of it keeps clients apart.
            wait_s = asked_pause_s + random.uniform(pause_s / 2, pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)
            limit_s = self._gives_up_after_s
            if limit_s is not None and time.monotonic() + wait_s > began_s + limit_s:
                raise StoreUnavailable(
                    f"the collector took nothing for {limit_s:.0f} s "
                    f"({f'status {status}' if status else 'no connection'})"
                )
            if self._is_stopped.wait(wait_s):
                raise StoreUnavailable("stopped before the collector acknowledged a batch")

    def stop(self) -> None:
        """Whoever waits in `post` gives up now; from any thread."""
        self._is_stopped.set()

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def _try(self, body: bytes) -> tuple[int, bytes, float]:
        """Status (0 without an answer), the answer, and the pause that it asks for."""
        try:
            self._connection.request("POST", self._path, body, self._headers)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return 0, b"", 0.0
        asked = response.headers.get("Retry-After", "")
        return response.status, answer, float(asked) if asked.isascii() and asked.isdigit() else 0.0


def _detail(answer: bytes) -> str:
    """What the collector says in words: it repeats no value of a call."""
    try:
        problem = json.loads(answer)
    except ValueError:
        return ""
    return str(problem.get("detail", ""))[:300] if type(problem) is dict else ""
