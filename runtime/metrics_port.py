"""How does a process without the one port show its numbers?

By a small HTTP server in a thread of its own, which answers also while the work beside it is stuck.
As on the one port, the operator's key is asked for.
"""

import hmac
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from schemas.errors import SettingInvalid

PATH = "/metrics"


def serve_metrics(host: str, port: int, keys: Sequence[str]) -> int:
    """`GET /metrics` is answered from now on to whoever has one of `keys`; the port.

    `port` 0 takes a free one. Raises SettingInvalid when it is taken.
    """

    class Handler(_Handler):
        accepted = tuple(f"Bearer {key}".encode() for key in keys if key)

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise SettingInvalid(
            f"cannot listen on [metrics] host {host} port {port}: {error.strerror}; choose another "
            "with HEADWATER_METRICS_PORT, or 0 for none"
        ) from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return int(server.server_address[1])


class _Handler(BaseHTTPRequestHandler):
    accepted: ClassVar[tuple[bytes, ...]] = ()
    timeout = 10  # of a caller that says nothing

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        is_known = any(hmac.compare_digest(given, known) for known in self.accepted)
        if self.path != PATH:
            self._answer(404, b"")
        elif not is_known:
            self._answer(401, b"", ("WWW-Authenticate", 'Bearer realm="headwater"'))
        else:
            self._answer(200, generate_latest(), ("Content-Type", CONTENT_TYPE_LATEST))

    def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: a scrape a second is no event."""
