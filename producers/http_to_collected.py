"""What does the collector answer to a request of Segment's HTTP tracking protocol?

200 means that every valid call is durable and every other one is set aside with its reason. Faults
of the request as a whole are 400, 401, 413 or 429; 503 says that Kafka or the vault take nothing
now, and the sender shall send the same again. Browsers post from any origin.
"""

import base64
import binascii
import math
import zlib

from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from producers.calls_to_collected import Collector, Sender
from producers.rules.addresses import client_address
from producers.rules.bodies import BodyFault, read_body
from producers.rules.call_fields import TYPES
from producers.rules.collect_schema import request_body
from producers.rules.enrichment import Requester
from runtime.clock import real_ms
from runtime.logs import get_logger
from runtime.problems import RETRY_AFTER_S, Fault, Problem, problem_answer
from schemas.errors import StoreRefused, StoreUnavailable

MOST_BYTES = 500 * 1024
MOST_CALLS = 10_000
# So much more is read of a body that is too large, so that its sender hears why.
_DRAINED_BYTES = 8 * MOST_BYTES
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_ANY_ORIGIN = {"Access-Control-Allow-Origin": "*"}
_PREFLIGHT = _ANY_ORIGIN | {
    "Access-Control-Allow-Methods": "POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Content-Encoding",
    "Access-Control-Max-Age": "86400",
}
_CHALLENGE = {"WWW-Authenticate": 'Basic realm="write key", charset="UTF-8"'}
_SUCCESS = b'{"success":true}'
_RESPONSES: dict[int | str, dict[str, object]] = {
    200: {
        "description": "Every valid call is durable in Kafka; the others are set aside, see "
        "/v1/events/rejected",
        "content": {"application/json": {"example": {"success": True}}},
    },
    400: {"description": "The body is not JSON, not UTF-8, or not a batch"},
    401: {"description": "No write key, or an unknown one"},
    413: {"description": "The body is over 500 KB, compressed or not"},
    429: {"description": "Past the source's quota; come again after Retry-After seconds"},
    503: {"description": "Kafka or the vault take nothing now; send the same again"},
}


def collector_router(collector: Collector) -> APIRouter:
    """The routes of `collector`, which somebody else starts and closes."""
    router = APIRouter(tags=["Collect"])
    for kind in (*TYPES, None):
        path = f"/v1/{kind or 'batch'}"
        router.add_api_route(
            path,
            _Route(collector, kind).answer,
            methods=["POST"],
            name=f"collect_{kind or 'batch'}",
            summary=f"Send one {kind} call" if kind else "Send many calls",
            responses=_RESPONSES,
            openapi_extra={"requestBody": request_body(kind), "security": [{"Write key": []}]},
        )
        router.add_api_route(path, _preflight, methods=["OPTIONS"], include_in_schema=False)
    return router


SECURITY_SCHEMES = {
    "Write key": {
        "type": "http",
        "scheme": "basic",
        "description": "The write key as user name, no password; or `writeKey` in the body",
    }
}
"""For the application's OpenAPI `components`."""


async def _preflight() -> Response:
    return Response(status_code=204, headers=_PREFLIGHT)


class _Route:
    """One of the seven; `kind` is the type that it gives its calls, None for a batch."""

    def __init__(self, collector: Collector, kind: str | None) -> None:
        self._collector = collector
        self._kind = kind

    async def answer(self, request: Request) -> Response:
        """200 and nothing else promises that the calls are safe."""
        try:
            await self._take(request)
        except Problem as problem:
            return problem_answer(
                problem.status,
                problem.detail,
                errors=problem.errors,
                headers=_ANY_ORIGIN | problem.headers,
            )
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it
        except (StoreUnavailable, StoreRefused) as fault:
            get_logger().warning("collect_unavailable", fault=str(fault))
            return problem_answer(
                503,
                "Kafka or the vault take nothing now; send the same again",
                headers=_ANY_ORIGIN | {"Retry-After": str(RETRY_AFTER_S)},
            )
        return Response(_SUCCESS, media_type="application/json", headers=_ANY_ORIGIN)

    async def _take(self, request: Request) -> None:
        received_at_ms = self._collector.clock()
        header_key = _basic_key(request.headers.get("authorization"))
        # Known strangers are sent away before their body costs anything.
        sender = None if header_key is None else _require(self._collector.sender_of(header_key))
        raw = _plain(await _read(request), request.headers.get("content-encoding", ""))
        body = read_body(raw, is_batch=self._kind is None)
        if isinstance(body, BodyFault):
            raise Problem(
                400,
                f"Expected {body.expected} at {body.path}",
                errors=[Fault(body.path, body.expected)],
            )
        if sender is None:
            sender = _require(self._collector.sender_of(body.write_key or ""))
        if len(body.calls) > MOST_CALLS:
            raise Problem(413, f"A batch may have {MOST_CALLS} calls; send it in parts")
        wait_s = sender.quota.take(len(body.calls), real_ms())
        if wait_s:
            raise Problem(
                429,
                "Past the quota of this source; send the same again after Retry-After seconds",
                headers={"Retry-After": str(max(1, math.ceil(wait_s)))},
            )
        has_gpc = request.headers.get("sec-gpc") == "1"
        await self._collector.collect(
            body,
            sender,
            self._kind,
            received_at_ms,
            has_gpc=has_gpc,
            requester=self._requester_of(request, received_at_ms),
        )

    def _requester_of(self, request: Request, now_ms: int) -> Requester | None:
        """What the sender's address and user agent tell; neither goes further than here."""
        agent = request.headers.get("user-agent", "")
        address = ""
        if self._collector.asks_peers and request.client is not None:
            forwarded_for = request.headers.getlist("x-forwarded-for")
            address = client_address(
                request.client.host, forwarded_for, self._collector.is_trusted_proxy
            )
        return self._collector.enricher.requester_of(agent, address, now_ms)


def _require(sender: Sender | None) -> Sender:
    if sender is None:
        raise Problem(
            401,
            "Send the write key of a source as user name of Basic authentication, or as writeKey "
            "in the body",
            headers=_CHALLENGE,
        )
    return sender


def _basic_key(header: str | None) -> str | None:
    """The user name in an Authorization header; None without one, empty if it is not readable."""
    if header is None:
        return None
    scheme, _, credentials = header.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        decoded = base64.b64decode(credentials.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""
    return decoded.partition(":")[0]


async def _read(request: Request) -> bytes:
    """The body as it came. Raises Problem 413 past the limit."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MOST_BYTES:
            chunks.append(chunk)
        elif size > _DRAINED_BYTES:
            break
    if size > MOST_BYTES:
        raise _too_large()
    return b"".join(chunks)


def _plain(raw: bytes, encoding: str) -> bytes:
    """The body without compression. Inflates no further than the limit, whatever is in it."""
    if encoding.lower() not in ("gzip", "x-gzip") and not raw.startswith(_GZIP_MAGIC):
        if encoding.lower() not in ("", "identity"):
            raise Problem(415, "Send the body as it is, or with Content-Encoding: gzip")
        return raw
    parts: list[bytes] = []
    left = MOST_BYTES + 1
    while raw:
        member = zlib.decompressobj(_GZIP_WINDOW)
        try:
            part = member.decompress(raw, left)
        except zlib.error:
            raise _broken_gzip() from None
        parts.append(part)
        left -= len(part)
        if left <= 0:
            raise _too_large()
        if not member.eof:
            raise _broken_gzip()
        raw = member.unused_data
    return b"".join(parts)


def _too_large() -> Problem:
    return Problem(413, f"A body may have {MOST_BYTES} bytes, inflated too; send it in parts")


def _broken_gzip() -> Problem:
    return Problem(400, "The body is not whole gzip", errors=[Fault("$", "gzip, all of it")])
