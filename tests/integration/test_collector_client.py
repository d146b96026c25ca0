"""The client for Python services, against a collector that comes and goes."""

import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pytest

from producers.client import Client
from producers.posting import Poster
from schemas.errors import SettingInvalid, StoreRefused, StoreUnavailable
from tests.collecting import WRITE_KEY, Running, collect_settings, running_collector
from tests.hooks import ENDS_WITHIN_S


@pytest.fixture(scope="module")
def collector(
    kafka: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    directory: Path = tmp_path_factory.mktemp("client")
    settings = collect_settings(directory, kafka, redis_url, f"p{uuid4().hex[:8]}")
    with running_collector(settings) as running:
        yield running


class Moody(BaseHTTPRequestHandler):
    """Answers as the test says, in order, and 200 from then on; None drops the connection."""

    moods: list[int | None]
    bodies: list[Any]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        mood = self.moods.pop(0) if self.moods else 200
        if mood is None:
            self.close_connection = True
            return
        self.bodies.append((mood, json.loads(body)))
        answer = b'{"detail": "as the test says"}'
        self.send_response(mood)
        self.send_header("Content-Length", str(len(answer)))
        if mood == 429:
            self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def moody() -> Iterator[tuple[str, type[Moody]]]:
    handler = type("Handler", (Moody,), {"moods": [], "bodies": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(ENDS_WITHIN_S,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def test_every_kind_of_call_arrives(collector: Running) -> None:
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    with Client(collector.url, WRITE_KEY) as client:
        sent = [
            client.track(
                "Order Completed",
                user_id=42,
                properties={"total": Decimal("27.50"), "currency": "EUR", "on": at.date()},
                context={"campaign": {"name": "spring"}},
                timestamp=at,
            ),
            client.identify(user_id="42", traits={"email": "a@b.c", "left": None}),
            client.page("Home", anonymous_id="a"),
            client.screen(anonymous_id="a"),
            client.group("g", user_id="42", traits={"size": 3}),
            client.alias("a", user_id="42", message_id="mine"),
        ]
    found = {collector.opened(e)["message_id"]: e for e in collector.collected()}
    kinds = [found[message_id].type for message_id in sent]
    assert kinds == ["track", "identify", "page", "screen", "group", "alias"]
    assert sent[-1] == "mine"
    order = found[sent[0]]
    assert order.occurred_at_ms == at.timestamp() * 1000
    assert orjson.loads(order.clear)["properties"] == {"total": "27.50", "currency": "EUR"}
    assert collector.opened(order)["properties"] == {"on": "2026-01-31"}
    assert len(found[sent[1]].traits) == 2


def test_batch_is_sent_again_with_its_message_ids(moody: tuple[str, type[Moody]]) -> None:
    url, handler = moody
    handler.moods[:] = [503, None, 429, 500]
    # Three calls are one batch however long this machine takes over them: `flush` ends the waiting.
    with Client(url, WRITE_KEY, linger_s=60) as client:
        sent = [client.track("E", user_id=n) for n in range(3)]
        client.flush(30)
    assert [mood for mood, _ in handler.bodies] == [503, 429, 500, 200]
    assert len({json.dumps(body) for _, body in handler.bodies}) == 1
    assert [call["messageId"] for call in handler.bodies[-1][1]["batch"]] == sent


def test_batches_stay_below_the_limits(moody: tuple[str, type[Moody]]) -> None:
    url, handler = moody
    with Client(url, WRITE_KEY, linger_s=60) as client:
        for _ in range(250):
            client.track("small", user_id="u")
        for _ in range(40):
            client.track("large", user_id="u", properties={"a": "x" * 30_000})
    sizes = [(len(body["batch"]), len(json.dumps(body))) for _, body in handler.bodies]
    assert sum(calls for calls, _ in sizes) == 290
    assert max(calls for calls, _ in sizes) == 100
    assert max(size for _, size in sizes) < 500 * 1024


def test_refused_batch_is_told_and_the_next_goes_on(moody: tuple[str, type[Moody]]) -> None:
    url, handler = moody
    handler.moods[:] = [401]
    heard: list[tuple[str, int]] = []
    with Client(url, WRITE_KEY, on_refused=lambda *told: heard.append(told)) as client:
        client.track("E", user_id="u")
        client.flush(30)
        client.track("F", user_id="u")
    assert heard == [("the collector refused a batch: 401 as the test says", 1)]
    assert [mood for mood, _ in handler.bodies] == [401, 200]


def test_full_queue_and_closed_client_say_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = Client(f"http://127.0.0.1:{taken.getsockname()[1]}", WRITE_KEY, most_waiting=5)
        for _ in range(5):
            client.track("E", user_id="u")
        with pytest.raises(StoreUnavailable, match="5 calls wait"):
            client.track("E", user_id="u")
        with pytest.raises(StoreUnavailable, match="5 calls still wait"):
            client.flush(0.1)
        with pytest.raises(StoreUnavailable, match="5 calls still wait"):
            client.close(0.1)
        with pytest.raises(StoreUnavailable, match="closed"):
            client.track("E", user_id="u")


@pytest.mark.parametrize(
    "properties", [{"a": float("nan")}, {"a": "x" * 33_000}, {"a": object()}, {"a": {1, 2}}]
)
def test_call_that_cannot_be_sent_is_refused_at_once(properties: dict[str, Any]) -> None:
    client = Client("http://127.0.0.1:1", WRITE_KEY)
    with pytest.raises((ValueError, TypeError)):
        client.track("E", user_id="u", properties=properties)
    client.close(1)


def test_poster_gives_up_when_told(moody: tuple[str, type[Moody]]) -> None:
    url, handler = moody
    handler.moods[:] = [503] * 50
    with pytest.raises(StoreUnavailable, match="status 503"):
        Poster(url, WRITE_KEY, gives_up_after_s=0.3).post(b"{}")
    handler.moods[:] = [400]
    with pytest.raises(StoreRefused, match="400 as the test says"):
        Poster(url, WRITE_KEY).post(b"{}")


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "http://"])
def test_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(SettingInvalid, match="url"):
        Poster(url, WRITE_KEY)
