"""How does a patient client of our own port behave?

As an SDK must: a batch that was not acknowledged is sent again, the same bytes, until it is. The
same message ids then count once, so patience loses nothing and doubles nothing.
"""

import base64
import http.client
import json
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from runtime.settings import Role
from schemas.errors import StoreRefused, StoreUnavailable

ANSWER_WITHIN_S = 60.0
GIVES_UP_AFTER_S = 120.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_PASSING = frozenset({429, 500, 502, 503, 504})


class Caller:
    """One kept connection to a Headwater, for one thread.

    `wait` is given seconds to wait and answers True when nobody wants the call any more.
    """

    def __init__(
        self, url: str, keys: Mapping[Role, str], wait: Callable[[float], bool] | None = None
    ) -> None:
        at = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            at.hostname or "127.0.0.1", at.port or 80, timeout=ANSWER_WITHIN_S
        )
        self._keys = keys
        self._wait = wait if wait is not None else _sleep

    def post_batch(self, body: bytes) -> None:
        """The collector has acknowledged `body`, a whole POST /v1/batch.

        Raises StoreRefused when it says no, StoreUnavailable when it takes nothing for minutes.
        """
        user = base64.b64encode(f"{self._keys['write']}:".encode()).decode()
        headers = {"Authorization": f"Basic {user}", "Content-Type": "application/json"}
        self._ask("POST", "/v1/batch", body, headers)

    def get(self, path: str, role: Role) -> dict[str, object]:
        """The JSON object at `path`, asked for in `role`. Raises as `post_batch` does."""
        headers = {"Authorization": f"Bearer {self._keys[role]}"}
        answer = json.loads(self._ask("GET", path, None, headers))
        assert isinstance(answer, dict)
        return answer

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> bytes:
        until_s = time.monotonic() + GIVES_UP_AFTER_S
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                self._connection.request(method, path, body, headers)
                response = self._connection.getresponse()
                answer = response.read()
                status = response.status
                fault = f"status {status}"
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                status, answer, fault = 503, b"", type(error).__name__
            if status == 200:
                return answer
            if status not in _PASSING:
                raise StoreRefused(f"{method} {path}: status {status}: {answer[:300]!r}")
            if time.monotonic() > until_s:
                raise StoreUnavailable(
                    f"{method} {path} got no answer for {GIVES_UP_AFTER_S:.0f} s ({fault})"
                )
            if self._wait(pause_s):
                raise StoreUnavailable(f"{method} {path} was given up")
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
