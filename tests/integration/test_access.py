"""Who gets in where: every route by every role, and what the port answers to everybody else."""

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from headwater.http import build_app
from runtime.access import Access
from runtime.problems import UnforeseenAsProblem, install_problems
from runtime.processes import free_ports
from runtime.settings import ROLES, Settings
from schemas.errors import StoreUnavailable
from tests.integration.serving import KEYS, Served, serving, settings_of
from tests.waiting import eventually

OPEN = None
ERASURE = "f" * 32
NEEDS = {
    "/v1/campaigns": "viewer",
    "/v1/campaigns/spring/series?metric=orders": "viewer",
    "/v1/campaigns/stream": "viewer",
    "/v1/verification": "viewer",
    "/v1/segments": "activation",
    "/v1/segments/repeat_buyers/members": "activation",
    "POST /v1/segments/preview": "activation",
    "/v1/profiles/user:42": "activation",
    "/v1/consents/user:42": "consent_desk",
    "/v1/subjects/user:42/export": "privacy_officer",
    "POST /v1/consents": "consent_desk",
    "POST /v1/consents/links": "consent_desk",
    "POST /v1/sends/permissions": "activation",
    "POST /v1/consents/lists": "consent_desk",
    "POST /v1/erasures": "privacy_officer",
    f"/v1/erasures/{ERASURE}": "privacy_officer",
    "/v1/identities/user:42": "privacy_officer",
    "POST /v1/identities/links": "privacy_officer",
    "/v1/events/rejected": "operator",
    "/v1/messages": "operator",
    "/v1/outbox": "operator",
    "/outbox": OPEN,
    "/metrics": "operator",
    "/consent/unsubscribe/link": OPEN,
    "/consent/preferences/link": OPEN,
    "/consent/confirm/link": OPEN,
    "/": OPEN,
    "/page/app.js": OPEN,
    "/healthz": OPEN,
    "/readyz": OPEN,
    "/openapi.json": OPEN,
    "/docs": OPEN,
}
"""Method (GET, if none is named) and path -> the role that it needs, besides admin."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """No server is there: who is let in gets 503, or an answer that needs none."""
    with serving(settings_of(tmp_path_factory.mktemp("access"))) as port:
        yield port


def status(served: Served, path: str, headers: Mapping[str, str] | Mapping[bytes, bytes]) -> int:
    method, _, path = path.rpartition(" ")
    url = f"{served.url}{path}"
    with httpx.stream(method or "GET", url, headers=headers, timeout=30) as answer:
        return answer.status_code


@pytest.mark.parametrize("path", NEEDS)
def test_each_route_lets_in_its_role_and_admin_and_nobody_else(served: Served, path: str) -> None:
    needed = NEEDS[path]
    if needed is OPEN:
        # A link that we did not make is over.
        answers = (410,) if path.startswith("/consent/") else (200, 503)
        assert status(served, path, {}) in answers
        assert status(served, path, {"Authorization": "Bearer wrong"}) in answers
        return
    for role in ROLES:
        found = status(served, path, {"Authorization": f"Bearer {KEYS[role]}"})
        # Without a body there is nothing that could be done for whoever may post.
        let_in = (400,) if path.startswith("POST ") else (200, 503)
        assert found in (let_in if role in (needed, "admin") else (403,)), role
    basic = base64.b64encode(f"{KEYS['admin']}:".encode()).decode()
    for header in ("Bearer wrong", "Bearer", f"Basic {basic}", KEYS["admin"], "Bearer é"):
        assert status(served, path, {b"Authorization": header.encode()}) == 401, header
    assert status(served, path, {}) == 401


def test_the_table_above_names_every_route(served: Served) -> None:
    app = build_app(served.settings, ["api"])
    routes = {route.path for route in app.routes if isinstance(route, APIRoute)}
    described = served.get("/openapi.json", role=None).json()["paths"]
    named = {path.split("?")[0].removeprefix("POST ") for path in NEEDS}
    for route in set(described) | routes:
        pattern = route.replace("{campaign_id:path}", "spring").replace("{campaign_id}", "spring")
        pattern = pattern.replace("{subject:path}", "user:42").replace("{subject}", "user:42")
        pattern = pattern.replace("{erasure_id}", ERASURE)
        pattern = pattern.replace("{segment_id}", "repeat_buyers")
        assert pattern.replace("{name}", "app.js").replace("{token}", "link") in named
    assert named - {"/openapi.json", "/docs"} <= {
        p.replace("{campaign_id}", "spring")
        .replace("{subject}", "user:42")
        .replace("{name}", "app.js")
        .replace("{token}", "link")
        .replace("{erasure_id}", ERASURE)
        .replace("{segment_id}", "repeat_buyers")
        for p in described
    }


def test_collector_and_api_share_one_description(tmp_path: Path) -> None:
    described = build_app(settings_of(tmp_path), ["collector", "api"]).openapi()
    for kind in ("track", "identify", "page", "screen", "group", "alias", "batch"):
        assert "post" in described["paths"][f"/v1/{kind}"]
    assert {"API key", "Write key"} <= set(described["components"]["securitySchemes"])


def test_refusals_are_problem_details_and_repeat_nothing(served: Served) -> None:
    secret = "a-key-that-is-not-known"
    for path, role, code in (
        ("/v1/campaigns", secret, 401),
        ("/v1/campaigns", "write", 403),
        ("/v1/profiles/fax:+420123456789", "admin", 400),
        ("/v1/events/rejected?limit=100000", "admin", 400),
        ("/v1/campaigns", "admin", 503),
        ("/nowhere/user:jana@example.com", "admin", 404),
    ):
        answer = served.get(path, role)
        assert answer.status_code == code
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert list(problem) == ["type", "title", "status", "detail", "errors"]
        assert problem["status"] == code
        assert all(list(fault) == ["path", "expected"] for fault in problem["errors"])
        for value in (secret, "420123456789", "100000", "jana"):
            assert value not in answer.text
    assert served.get("/v1/campaigns", role=None).headers["www-authenticate"].startswith("Bearer")


def test_another_method_is_refused_as_a_problem(served: Served) -> None:
    answer = httpx.post(f"{served.url}/v1/campaigns")
    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"


def test_readiness_names_the_parts_that_fail(served: Served) -> None:
    answer = served.get("/readyz", role=None)
    assert answer.status_code == 503
    failing = {fault["path"] for fault in answer.json()["errors"]}
    assert failing == {"clickhouse", "redis", "vault", "kafka"}
    assert "127.0.0.1" not in answer.text
    assert served.get("/healthz", role=None).json() == {"status": "alive"}


def test_metrics_count_answers_by_route_and_never_by_path(served: Served) -> None:
    served.get("/healthz", role=None)
    served.get("/v1/profiles/user:somebody-secret")
    text = served.get("/metrics", "operator").text
    assert 'headwater_http_answers_total{route="/healthz",status="200"}' in text
    assert 'route="/v1/profiles/{subject' in text
    assert "somebody-secret" not in text


def test_a_key_that_is_not_set_lets_nobody_in() -> None:
    access = Access({"viewer": "", "admin": "real"})
    assert access.roles_of("") == frozenset()
    assert access.roles_of("real") == {"admin"}


def test_one_key_may_stand_for_several_roles() -> None:
    access = Access({"viewer": "shared", "operator": "shared"})
    assert access.roles_of("shared") == {"viewer", "operator"}


def test_an_unforeseen_fault_shows_no_value(caplog: Any, capsys: Any) -> None:
    app = FastAPI()
    install_problems(app)

    @app.get("/broken")
    async def broken() -> None:
        raise KeyError("jana@example.com")

    @app.get("/away")
    async def away() -> None:
        raise StoreUnavailable("at 10.0.0.1")

    async def ask(path: str) -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            return await client.get(path)

    answer = asyncio.run(ask("/broken"))
    assert answer.status_code == 500
    printed = answer.text + caplog.text + "".join(capsys.readouterr())
    assert "jana" not in printed
    assert "KeyError" in printed and "in broken" not in printed
    answer = asyncio.run(ask("/away"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "10.0.0.1" not in answer.text
    middleware: list[object] = [made.cls for made in app.user_middleware]
    assert UnforeseenAsProblem in middleware


_SERVE = """
import sys
from pathlib import Path
from headwater.http import serve
from runtime.logs import configure_logs
from runtime.settings import load_settings
configure_logs(role="http", as_json=True)
serve(load_settings(Path(sys.argv[1]), {}), ["api"], lambda: print("ready", flush=True))
print("stopped", flush=True)
"""


def start_process(settings: Settings, directory: Path, checkout: Path) -> "subprocess.Popen[str]":
    file = directory / "settings.json"
    file.write_text(settings.model_dump_json())
    return subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(file)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def with_port(settings: Settings, port: int) -> Settings:
    return settings.model_copy(update={"http": settings.http.model_copy(update={"port": port})})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_streams_and_leaves_with_code_0(
    tmp_path: Path, checkout: Path, number: signal.Signals
) -> None:
    (port,) = free_ports(1)
    process = start_process(with_port(settings_of(tmp_path), port), tmp_path, checkout)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        headers = {"Authorization": f"Bearer {KEYS['viewer']}"}
        url = f"http://127.0.0.1:{port}/v1/campaigns/stream"
        with httpx.stream("GET", url, headers=headers, timeout=30) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "id: 1"  # it is under way
            process.send_signal(number)
            for _ in lines:
                pass
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (0, "stopped\n"), err
        assert "Traceback" not in err
    finally:
        process.kill()
        process.wait()


def test_a_taken_port_is_named_with_the_remedy(
    tmp_path: Path, checkout: Path, served: Served
) -> None:
    port = int(served.url.rsplit(":", 1)[1])
    process = start_process(with_port(settings_of(tmp_path), port), tmp_path, checkout)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"[http] host 127.0.0.1 port {port}" in err and "HEADWATER_HTTP_PORT" in err


def test_a_port_without_readers_goes_on_answering(served: Served) -> None:
    """The stream of somebody who never reads must not hold up anybody else."""
    headers = {"Authorization": f"Bearer {KEYS['viewer']}"}
    with httpx.stream("GET", f"{served.url}/v1/campaigns/stream", headers=headers, timeout=30):
        eventually(lambda: served.get("/healthz", role=None).status_code == 200)
