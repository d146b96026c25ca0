"""How does a patient reader ask our own port?

It may be restarting just now, so a question is asked again for a while.
"""

import http.client
import json
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from runtime.settings import Http, Role
from schemas.errors import StoreRefused, StoreUnavailable

ANSWER_WITHIN_S = 60.0
GIVES_UP_AFTER_S = 120.0
_PAUSE_S = 0.5
_PASSING = frozenset({429, 500, 502, 503, 504})


class Caller:
    """One kept connection to a Headwater, for one thread.

    `wait` is given seconds to wait and answers True when nobody wants the answer any more.
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

    def get(self, path: str, role: Role) -> dict[str, object]:
        """The JSON object at `path`, asked for in `role`.

        Raises StoreRefused when the answer is no, StoreUnavailable when there is none for minutes.
        """
        return self._ask("GET", path, role, None)

    def post(self, path: str, role: Role, body: Mapping[str, object]) -> dict[str, object]:
        """The JSON object that answers `body`, which may be sent several times. Raises as `get`."""
        return self._ask("POST", path, role, json.dumps(body).encode())

    def _ask(self, method: str, path: str, role: Role, body: bytes | None) -> dict[str, object]:
        until_s = time.monotonic() + GIVES_UP_AFTER_S
        while True:
            status, answer, fault = self._try(method, path, role, body)
            if status in (200, 202):
                found = json.loads(answer)
                assert isinstance(found, dict)
                return found
            if status not in _PASSING:
                raise StoreRefused(f"{method} {_place(path)}: {refusal(status, answer)}")
            if time.monotonic() > until_s or self._wait(_PAUSE_S):
                raise StoreUnavailable(f"{method} {_place(path)} got no answer ({fault})")

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def _try(
        self, method: str, path: str, role: Role, body: bytes | None
    ) -> tuple[int, bytes, str]:
        headers = {"Authorization": f"Bearer {self._keys.get(role, '')}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            return response.status, response.read(), f"status {response.status}"
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return 503, b"", type(error).__name__


def url_of(http_settings: Http) -> str:
    """Where this machine finds the page and the API of `[http]`."""
    host = http_settings.host
    # What listens on every address is asked on this machine's own.
    if host in ("", "0.0.0.0", "::"):  # noqa: S104
        host = "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{http_settings.port}"


def _place(path: str) -> str:
    """The path without what may name a person: '/v1/consents'."""
    return "/".join(path.partition("?")[0].split("/")[:3])


def refusal(status: int, answer: bytes) -> str:
    """Why the answer is no: what a problem says, with the places that are not as expected."""
    try:
        problem = json.loads(answer)
        faults = [f"{fault['path']}: {fault['expected']}" for fault in problem["errors"]]
        return "; ".join([f"{status} {problem['detail']}", *faults])
    except (ValueError, KeyError, TypeError):
        return f"status {status}: {answer[:300]!r}"


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
