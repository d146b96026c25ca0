"""What answers on the one port?

The collector and the API as one ASGI application, in one process. Each part is made here, starts
with the application and stops with it; the roles say which. Bodies, paths and queries are never
logged: they hold people.
"""

import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consumers import health_api, identities_api, rejected_api
from consumers.accesses import Accesses
from consumers.campaigns import api as campaigns_api
from consumers.campaigns import page_api as campaigns_page
from consumers.campaigns import verification_api
from consumers.clickhouse_reader import ClickHouseReader
from consumers.consents import api as consents_api
from consumers.consents import links_api as consent_links_api
from consumers.consents import lists_api as consent_lists_api
from consumers.consents import pages as consent_pages
from consumers.consents import sends_api
from consumers.consents.send_gate import SendGate
from consumers.erasures import api as erasures_api
from consumers.erasures.store import ErasureStore
from consumers.exports import export_api
from consumers.exports.subject_to_export import Exporter
from consumers.health_api import Check, Readiness
from consumers.messages import api as messages_api
from consumers.messages import outbox_api
from consumers.profiles import profiles_api
from consumers.segments import api as segments_api
from producers import http_to_collected
from producers.calls_to_collected import Collector
from runtime.access import Access
from runtime.deliveries import Deliveries
from runtime.metrics import counter, histogram
from runtime.metrics_of_all import MetricsOfAll
from runtime.problems import install_problems
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.errors import SettingInvalid, StoreRefused, StreamError

COLLECTOR, API = "collector", "api"
BACKLOG = 2048
GRACE_S = 10
"""Requests under way get this long to end when the process is asked to stop."""


def serve(
    settings: Settings,
    roles: Sequence[str],
    on_ready: Callable[[], None],
    others: Mapping[str, Path] | None = None,
) -> None:
    """Answer on [http] host and port until SIGTERM or Ctrl-C; then finish what is under way.

    `on_ready` is called once connections are accepted. `others` names the processes whose numbers
    /metrics shows beside ours, and the files that hold their addresses. Raises SettingInvalid when
    the port is taken, StoreUnavailable or StoreRefused when a part does not start.
    """
    listener = _listen(settings)
    with listener:
        app = build_app(settings, roles, others)
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACE_S,
        )
        parts: Parts = app.state.parts
        try:
            _Server(config, on_ready, parts.end_streams).run([listener])
        except SystemExit:
            # uvicorn's way to say that the application did not start.
            raise parts.fault or StoreRefused("the HTTP server did not start") from None


class _Server(uvicorn.Server):
    """Tells when it is ready, ends endless answers before it waits, and returns after a signal."""

    def __init__(
        self, config: uvicorn.Config, on_ready: Callable[[], None], end_streams: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._end_streams = end_streams

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._end_streams()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn's own raises the signal again when done, which would make a clean stop look like
        # a death by signal. Only the main thread hears signals.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.http.host, settings.http.port
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingInvalid(
            f"cannot listen on [http] host {host} port {port}: {error.strerror}; choose another "
            "with --port or HEADWATER_HTTP_PORT"
        ) from error
    return listener


Step = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class Parts:
    """What the roles of one process are made of."""

    checks: dict[str, Check] = field(default_factory=dict)
    lives: list[tuple[Step | None, Step]] = field(default_factory=list)
    """(start, stop) of each; a part that has started is stopped, the last one first."""
    stream_ends: list[Callable[[], None]] = field(default_factory=list)
    fault: StreamError | None = None
    """Why the start failed."""

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """Every part is started inside, and stopped after it."""
        async with AsyncExitStack() as stack:
            for start, stop in self.lives:
                stack.push_async_callback(stop)
                try:
                    if start is not None:
                        await start()
                except StreamError as fault:
                    self.fault = fault
                    raise
            yield

    def end_streams(self) -> None:
        """Answers that would go on for ever end now."""
        for end in self.stream_ends:
            end()


def build_app(
    settings: Settings, roles: Sequence[str], others: Mapping[str, Path] | None = None
) -> FastAPI:
    """The application of `roles`; its Parts are in `app.state.parts`. `others`: see `serve`."""
    access = Access(settings.http.keys)
    parts = Parts()
    app = FastAPI(
        title="Headwater",
        summary="Real-time customer data: exact counters, consented profiles",
        version=_version(),
        lifespan=parts.running,
        redirect_slashes=False,
    )
    app.state.parts = parts
    if COLLECTOR in roles:
        _add_collector(app, settings, parts)
    if API in roles:
        _add_api(app, settings, access, parts)
    metrics = MetricsOfAll("http", others, settings.http.keys.get("operator", ""))
    parts.checks["kafka"] = health_api.check_kafka(settings)
    app.include_router(health_api.build_router(Readiness(parts.checks), access, metrics.text))
    install_problems(app)
    app.add_middleware(Observed)
    describe = app.openapi

    def describe_all() -> dict[str, Any]:
        described = describe()
        schemes = described.setdefault("components", {}).setdefault("securitySchemes", {})
        schemes |= http_to_collected.SECURITY_SCHEMES
        return described

    app.openapi = describe_all  # type: ignore[method-assign]
    return app


def _version() -> str:
    try:
        return version("headwater")
    except PackageNotFoundError:
        return "of a checkout that is not installed"


def _add_collector(app: FastAPI, settings: Settings, parts: Parts) -> None:
    collector = Collector.from_settings(settings)
    parts.lives.append((collector.start, collector.close))
    parts.checks["collector"] = collector.check
    app.include_router(http_to_collected.collector_router(collector))


def _add_api(app: FastAPI, settings: Settings, access: Access, parts: Parts) -> None:
    reader = ClickHouseReader(settings.clickhouse)
    campaigners = campaigns_api.Campaigners(reader, settings.topic_names)
    accesses = Accesses(reader)
    profiles = profiles_api.Profiles(settings, Vault.from_settings(settings))
    segments = segments_api.Segments(settings, profiles)
    gate = SendGate(settings, Vault.from_settings(settings), profiles)
    exporter = Exporter(settings, Vault.from_settings(settings), reader, accesses)
    rejected = rejected_api.RejectedReader(settings)
    consenting = consents_api.Consenting(settings, accesses)
    identities = identities_api.Identities(settings, Vault.from_settings(settings), accesses)
    messages = messages_api.Messages(settings, Vault.from_settings(settings))
    outbox = outbox_api.Outbox(messages.store, Vault.from_settings(settings))
    verification = verification_api.Verification(reader, settings.topic_names)
    erasures = erasures_api.Erasures(
        settings,
        Vault.from_settings(settings),
        ErasureStore.from_settings(settings),
        Deliveries(settings.kafka.bootstrap_servers),
    )

    async def check_clickhouse() -> None:
        await campaigners.counts.progress()

    parts.checks |= {
        "clickhouse": check_clickhouse,
        "redis": health_api.check_redis(settings.redis.url),
        "vault": health_api.check_redis(settings.vault_url),
    }
    parts.lives += [
        (None, reader.close),
        (None, profiles.close),
        (None, segments.close),
        (None, gate.close),
        (None, exporter.close),
        (None, messages.close),
        (None, outbox.close),
        (consenting.start, consenting.close),
        (identities.start, identities.close),
        (campaigners.live.start, campaigners.live.stop),
        (erasures.start, erasures.close),
    ]
    parts.stream_ends.append(campaigners.live.end_streams)
    app.include_router(campaigns_page.build_router())
    app.include_router(campaigns_api.build_router(campaigners, access))
    app.include_router(verification_api.build_router(verification, access))
    app.include_router(profiles_api.build_router(profiles, accesses, settings, access))
    app.include_router(segments_api.build_router(segments, accesses, access))
    app.include_router(consent_pages.build_router(consent_pages.Pages(consenting)))
    app.include_router(consent_lists_api.build_router(consenting, access))
    app.include_router(consent_links_api.build_router(consenting, access))
    app.include_router(consents_api.build_router(consenting, access))
    app.include_router(sends_api.build_router(gate, access))
    app.include_router(messages_api.build_router(messages, access))
    app.include_router(outbox_api.build_router(outbox, accesses, access))
    app.include_router(export_api.build_router(exporter, accesses, access))
    app.include_router(rejected_api.build_router(rejected, access))
    app.include_router(erasures_api.build_router(erasures, access))
    app.include_router(identities_api.build_router(identities, access))


class Observed:
    """ASGI middleware: counts answers and times them to their first byte; keeps ours uncached."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._answers = counter("headwater_http_answers_total")
        self._seconds = histogram("headwater_http_answer_seconds")
        # Looking a labelled child up costs more than counting with it.
        self._known: dict[tuple[str, int], tuple[Counter, Histogram]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.perf_counter()

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(scope, message["status"], time.perf_counter() - began_s)
                if scope["path"].startswith("/v1/"):
                    message["headers"] = [*message["headers"], *_UNCACHED]
            await send(message)

        await self._app(scope, receive, note)

    def _note(self, scope: Scope, status: int, took_s: float) -> None:
        # The pattern, never the path: paths hold people.
        route = getattr(scope.get("route"), "path", "none")
        known = self._known.get((route, status))
        if known is None:
            known = self._answers.labels(route, status), self._seconds.labels(route)
            self._known[route, status] = known
        known[0].inc()
        known[1].observe(took_s)


_UNCACHED = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
