"""How do many processes use one embedded ClickHouse engine?

chDB is ClickHouse's engine as a library that lets one process open a data directory. This process
is that one: it answers ClickHouse's HTTP protocol on loopback, so that clickhouse-connect, curl and
every role talk to it as they talk to a real server. Start it as
`TZ=UTC python -m runtime.clickhouse_server --path DIR --port P` (else days and minutes follow the
machine's time zone, which the engine reads when it is loaded); SIGTERM stops it.

It has no users, as a fresh ClickHouse has none. So that a web page in a browser on the same machine
cannot reach it, it refuses requests with an Origin or for a foreign Host, and a GET only reads.
"""

import argparse
import asyncio
import gzip
import io
import json
import os
import sys
import uuid
import zlib
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.parser import BytesParser
from typing import Any
from urllib.parse import parse_qsl

import uvicorn

from runtime.clickhouse_engine import Answer, Engine, EngineError, Request
from runtime.clickhouse_statements import split

# ~2 GB and small caches: the engine's own defaults take the whole machine, which it shares here
# with a broker, Valkey and Headwater. An insert is written before it is acknowledged, without the
# engine's own batching in time, which would only add its waiting.
ENGINE_OPTIONS: Mapping[str, str | int] = {
    "max_server_memory_usage": 2_000_000_000,
    "mark_cache_size": 268_435_456,
    "async_insert": 0,
    "implicit_select": 0,
}
THREADS = 16

# Parameters of the protocol itself; every other one is a setting of the query.
_TRANSPORT = frozenset(
    {"query", "database", "user", "password", "query_id", "quota_key", "role", "stacktrace"}
    | {"session_id", "session_timeout", "session_check", "close_session", "default_format"}
    | {"compress", "decompress", "wait_end_of_query", "buffer_size", "client_protocol_version"}
    | {"enable_http_compression", "http_zlib_compression_level", "add_http_cors_header"}
    | {"send_progress_in_http_headers", "http_headers_progress_interval_ms"}
    | {"cancel_http_readonly_queries_on_client_close"}
)
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_STATUS_BY_CODE = {
    **dict.fromkeys((62, 36, 43, 44, 53, 70, 72, 27, 26, 33, 115, 457, 456), 400),
    **dict.fromkeys((46, 47, 16, 60, 81, 390, 218), 404),
    **dict.fromkeys((164, 497), 403),
    48: 501,
    159: 408,
    516: 401,
}

_Scope = dict[str, Any]
_Receive = Callable[[], Awaitable[dict[str, Any]]]
_Send = Callable[[dict[str, Any]], Awaitable[None]]


class Server:
    """The HTTP protocol as an ASGI application over one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="query")

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        parameters = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True))
        query_id = parameters.get("query_id") or str(uuid.uuid4())
        try:
            _refuse_browsers(headers)
            body = await _read_body(receive)
            if scope["path"] not in ("/", "/ping") or (not body and "query" not in parameters):
                is_known = scope["path"] in ("/", "/ping")
                await _send_text(send, 200 if is_known else 404, "Ok.\n" if is_known else "\n", {})
                return
            request = _request(scope["method"], headers, parameters, body)
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._threads, self._engine.run, request)
            await self._send_answer(send, answer, query_id)
        except EngineError as error:
            await self._send_error(send, error, query_id)

    async def _send_answer(self, send: _Send, answer: Answer, query_id: str) -> None:
        summary = {
            "read_rows": str(answer.read_rows),
            "read_bytes": str(answer.read_bytes),
            "written_rows": str(answer.written_rows),
            "written_bytes": "0",
            "total_rows_to_read": "0",
            "result_rows": str(answer.written_rows or answer.result_rows),
            "result_bytes": "0",
            "elapsed_ns": str(answer.elapsed_ns),
        }
        headers = {
            "content-type": "application/octet-stream",
            "x-clickhouse-summary": json.dumps(summary),
            "x-clickhouse-query-id": query_id,
            "x-clickhouse-timezone": self._engine.time_zone,
            "x-clickhouse-server-display-name": "headwater-embedded",
        }
        if answer.output_format:
            headers["x-clickhouse-format"] = answer.output_format
        loop = asyncio.get_running_loop()
        await send(_start(200, headers))
        try:
            while piece := await loop.run_in_executor(self._threads, next, answer.chunks, b""):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except EngineError as error:
            # The status is gone: a body that breaks off (uvicorn then closes the connection) is how
            # the reader learns of it.
            sys.stderr.write(f"query {query_id} failed while streaming: code {error.code}\n")
            return
        finally:
            close = getattr(answer.chunks, "close", None)
            if close is not None:
                await loop.run_in_executor(self._threads, close)
        await send({"type": "http.response.body", "body": b""})

    async def _send_error(self, send: _Send, error: EngineError, query_id: str) -> None:
        text = str(error)
        if "(version " not in text:
            text = f"{text} (version {self._engine.version} (embedded))"
        headers = {
            "x-clickhouse-exception-code": str(error.code),
            "x-clickhouse-query-id": query_id,
            "x-clickhouse-timezone": self._engine.time_zone,
        }
        await _send_text(send, _STATUS_BY_CODE.get(error.code, 500), f"{text}\n", headers)


def _request(
    method: str, headers: Mapping[str, str], parameters: dict[str, str], body: bytes
) -> Request:
    """Read the protocol. Raises EngineError for what this server does not do."""
    body = _decoded(body, headers.get("content-encoding", ""))
    if headers.get("content-type", "").startswith("multipart/form-data"):
        parameters = parameters | _form(headers["content-type"], body)
        body = b""
    if parameters.get("compress", "0") == "1" or parameters.get("decompress", "0") == "1":
        raise _refusal(48, "compress and decompress are not offered here", "NOT_IMPLEMENTED")
    query = parameters.get("query", "").encode()
    statement = split(query + b"\n" + body if query and body else query or body)
    if method not in ("GET", "POST"):
        raise _refusal(48, "only GET and POST are offered here", "NOT_IMPLEMENTED")
    if method == "GET" and not statement.is_reading:
        raise _refusal(164, "Cannot execute query in readonly mode (GET implies it)", "READONLY")
    default_format = headers.get("x-clickhouse-format") or parameters.get("default_format")
    return Request(
        statement=statement,
        output_format=statement.output_format or default_format or "TabSeparated",
        database=headers.get("x-clickhouse-database") or parameters.get("database", ""),
        settings={
            name: value
            for name, value in parameters.items()
            if name not in _TRANSPORT and not name.startswith("param_")
        },
        parameters={
            name.removeprefix("param_"): value
            for name, value in parameters.items()
            if name.startswith("param_")
        },
        session_id=parameters.get("session_id"),
        may_stream=statement.is_reading
        and statement.output_format_is_sure
        and parameters.get("wait_end_of_query", "0") != "1",
    )


def _refusal(code: int, text: str, name: str) -> EngineError:
    return EngineError(code, f"Code: {code}. DB::Exception: {text}. ({name})")


def _refuse_browsers(headers: Mapping[str, str]) -> None:
    host = headers.get("host", "localhost")
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if "origin" in headers or name.strip("[]") not in _LOOPBACK:
        raise _refusal(497, "requests come from this machine, not from a page", "ACCESS_DENIED")


def _decoded(body: bytes, encoding: str) -> bytes:
    try:
        match encoding:
            case "" | "identity":
                return body
            case "lz4":
                import lz4.frame  # type: ignore[import-untyped]

                # One frame for each block: the plain `decompress` reads only the first.
                return bytes(lz4.frame.LZ4FrameFile(io.BytesIO(body)).read())
            case "gzip":
                return gzip.decompress(body)
            case "deflate":
                return zlib.decompress(body)
            case "zstd":
                from backports import zstd

                return bytes(zstd.decompress(body))
    except (OSError, EOFError, RuntimeError, zlib.error) as error:
        raise _refusal(33, f"the {encoding} body is broken", "CANNOT_READ_ALL_DATA") from error
    raise _refusal(48, f"Content-Encoding {encoding} is not offered here", "NOT_IMPLEMENTED")


def _form(content_type: str, body: bytes) -> dict[str, str]:
    """Read the text fields of a form; long query parameters come this way."""
    message = BytesParser().parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    fields: dict[str, str] = {}
    for part in message.walk():
        name = part.get_param("name", header="content-disposition")
        if not isinstance(name, str):
            continue
        if part.get_filename() is not None:
            raise _refusal(48, "external data are not offered here", "NOT_IMPLEMENTED")
        payload = part.get_payload(decode=True)
        fields[name] = payload.decode() if isinstance(payload, bytes) else ""
    return fields


async def _read_body(receive: _Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionAbortedError
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


def _start(status: int, headers: Mapping[str, str]) -> dict[str, Any]:
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


async def _send_text(send: _Send, status: int, text: str, headers: Mapping[str, str]) -> None:
    await send(_start(status, {"content-type": "text/plain; charset=UTF-8", **headers}))
    await send({"type": "http.response.body", "body": text.encode()})


def main() -> None:
    """Open the directory, then listen: whoever connects finds an engine that works."""
    parser = argparse.ArgumentParser(description="ClickHouse's HTTP protocol over chDB")
    parser.add_argument("--path", required=True)
    parser.add_argument("--port", required=True, type=int)
    arguments = parser.parse_args()
    try:
        engine = Engine(arguments.path, ENGINE_OPTIONS)
    except EngineError as error:
        sys.exit(f"cannot open {arguments.path}: {error}")
    uvicorn.run(
        Server(engine),
        host="127.0.0.1",
        port=arguments.port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=5,
        # Longer than clients keep a connection: else one may be closed under their next insert.
        timeout_keep_alive=3600,
    )
    engine.close()
    # A query that outlasts the grace would hold up the exit for as long as it takes. Nothing that
    # it did was acknowledged: leaving now is as safe as a kill.
    os._exit(0)


if __name__ == "__main__":
    main()
