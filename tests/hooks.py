"""Somebody who is told by webhooks: a real server on loopback, with the library that receivers use."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook as Receiver

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ENDS_WITHIN_S = 0.02
"""How often the server looks whether it is to end; by itself every half second."""


@dataclass
class Hook:
    """A receiver on loopback: what it got, and what it says."""

    url: str
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    says: int = 200

    def verified(self) -> list[Any]:
        """Bodies, each verified by the receiver's own library."""
        return [Receiver(SECRET).verify(body, headers) for headers, body in self.got]


@contextmanager
def receiver() -> Iterator[Hook]:
    hook = Hook("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            hook.got.append((dict(self.headers.items()), body))
            self.send_response(hook.says)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.url = f"http://127.0.0.1:{server.server_port}/hook?a=b"
    thread = threading.Thread(target=server.serve_forever, args=(ENDS_WITHIN_S,))
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
