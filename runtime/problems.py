"""How is a request answered that cannot be served?

As RFC 9457 problem details: `{"type", "title", "status", "detail", "errors": [{"path",
"expected"}]}`. Says where, what was expected and what to do; never repeats a value that was sent.
A fault that nobody foresaw is logged by its class and place only: its message may hold a value.
"""

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from runtime.logs import get_logger
from schemas.errors import PersonTooLarge, StoreUnavailable

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1

_KINDS: Mapping[int, tuple[str, str]] = {
    400: ("bad-request", "The request is not as expected"),
    401: ("unauthorized", "An API key is needed"),
    403: ("forbidden", "Not allowed"),
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "Method not allowed"),
    409: ("person-too-large", "Too many identifiers"),
    413: ("too-large", "Too large"),
    429: ("too-many-requests", "Too many requests"),
    500: ("internal", "Our fault"),
    503: ("unavailable", "A server does not answer"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong: where (JSON path, or `query.name`), and what belongs there."""

    path: str
    expected: str


class Problem(Exception):
    """Raised in a handler to answer with problem details instead."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


def problem_body(status: int, detail: str, errors: Sequence[Fault] = ()) -> bytes:
    """The JSON of a problem."""
    kind, title = _KINDS.get(status) or ("http", HTTPStatus(status).phrase)
    return orjson.dumps(
        {
            "type": f"urn:headwater:problem:{kind}",
            "title": title,
            "status": status,
            "detail": detail,
            "errors": [{"path": fault.path, "expected": fault.expected} for fault in errors],
        }
    )


def problem_answer(
    status: int,
    detail: str,
    *,
    errors: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A finished answer, for code that returns instead of raising."""
    return Response(
        problem_body(status, detail, errors),
        status,
        headers=dict(headers or {}),
        media_type=MEDIA_TYPE,
    )


def install_problems(app: FastAPI) -> None:
    """Every error of `app` is a problem from now on, also those that the framework makes."""

    async def on_problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return problem_answer(
            error.status, error.detail, errors=error.errors, headers=error.headers
        )

    async def on_invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = [Fault(_path(e["loc"]), str(e["msg"])) for e in error.errors()]
        named = ", ".join(fault.path for fault in faults)
        return problem_answer(400, f"Not as expected: {named}", errors=faults)

    async def on_http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        detail = "There is nothing at this path" if error.status_code == 404 else error.detail
        return problem_answer(error.status_code, detail, headers=error.headers)

    async def on_too_large(_: Request, error: Exception) -> Response:
        return problem_answer(409, str(error))

    async def on_unavailable(_: Request, error: Exception) -> Response:
        get_logger().warning("store_unavailable", where=_place(error))
        return problem_answer(
            503,
            "A server behind this one does not answer; /readyz names it",
            headers={"Retry-After": str(RETRY_AFTER_S)},
        )

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(PersonTooLarge, on_too_large)
    app.add_exception_handler(StoreUnavailable, on_unavailable)
    app.add_middleware(UnforeseenAsProblem)


class UnforeseenAsProblem:
    """ASGI middleware: an exception that no handler took becomes a 500 and one log line.

    Starlette's own handler would raise it again, and uvicorn would print its message.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def note_start(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        try:
            await self._app(scope, receive, note_start)
        except Exception as error:
            get_logger().error("unforeseen", fault=type(error).__name__, where=_place(error))
            if not has_started:
                detail = "Something failed that we did not foresee; the log has its place"
                await problem_answer(500, detail)(scope, receive, send)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join(f"{f.filename[-40:]}:{f.lineno} {f.name}" for f in reversed(frames[-4:]))


def _path(loc: Sequence[int | str]) -> str:
    """('body', 'items', 0, 'price') -> '$.items[0].price'; ('query', 'limit') -> 'query.limit'."""
    where, *rest = loc
    inner = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest)
    return f"${inner}" if where == "body" else f"{where}{inner}"
