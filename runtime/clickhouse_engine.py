"""How do many requests share one embedded ClickHouse engine?

chDB allows one process a data directory, but in it as many connections as one likes: they run at
the same time (the library releases Python's lock) and each has its own session, with its own
settings and current database. So a request borrows a connection, brings it to the settings that it
asks for, and gives it back. One connection is never lent: the engine stops with its last one.
"""

import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from chdb import ChdbError
from chdb.state.sqlitelike import Connection

from runtime.clickhouse_statements import Statement
from runtime.memory_file import as_file

# These formats are a plain sequence of blocks or rows, so a result may be sent in pieces.
STREAMABLE = frozenset({"Native", "TabSeparated", "TSV", "CSV", "RowBinary", "JSONEachRow"})
SESSION_IDLE_S = 60.0

_CODE = re.compile(r"Code: (\d+)")
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


class EngineError(Exception):
    """The engine said no; `code` is ClickHouse's, the text is the engine's own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Request:
    """One statement and the session it runs in; `parameters` are the values of its {name:Type}."""

    statement: Statement
    output_format: str
    database: str
    settings: Mapping[str, str]
    parameters: Mapping[str, str]
    session_id: str | None
    may_stream: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A result: `chunks` holds all of it, or yields it while the connection is still borrowed."""

    chunks: Iterator[bytes]
    output_format: str | None
    read_rows: int = 0
    read_bytes: int = 0
    written_rows: int = 0
    result_rows: int = 0
    elapsed_ns: int = 0


@dataclass(slots=True)
class _Lent:
    """A connection with what its session is known to be set to."""

    connection: Connection
    database: str = "default"
    settings: dict[str, str] = field(default_factory=dict)
    is_spoilt: bool = False


@dataclass(slots=True)
class _Session:
    lent: _Lent
    is_busy: bool
    used_at_s: float


class Engine:
    """An open data directory. Raises EngineError if another process has it."""

    def __init__(self, path: str, options: Mapping[str, str | int]) -> None:
        self._address = f"{path}?{urlencode(options)}"
        self._options = {name: str(value) for name, value in options.items()}
        self._lock = threading.Lock()
        self._free: list[_Lent] = []
        self._sessions: dict[str, _Session] = {}
        with _faults():
            self._keeper = Connection(self._address)
            self.version = self._ask("SELECT version()")
            self.time_zone = self._ask("SELECT timezone()")

    def run(self, request: Request) -> Answer:
        """Run one statement. Raises EngineError; the engine and all other requests go on."""
        lent = self._borrow(request)
        is_streaming = False
        try:
            with _faults():
                self._prepare(lent, request)
                if request.statement.data is not None:
                    return _insert(lent, request)
                if request.may_stream and request.output_format in STREAMABLE:
                    answer = self._stream(lent, request)
                    is_streaming = True
                    return answer
                return _query(lent, request)
        finally:
            if not is_streaming:
                self._give_back(lent, request)

    def close(self) -> None:
        """Close every connection that is not lent; the engine stops with the last."""
        with self._lock:
            every = [*self._free, *(session.lent for session in self._sessions.values())]
            self._free.clear()
            self._sessions.clear()
        for lent in every:
            lent.connection.close()
        self._keeper.close()

    def _ask(self, sql: str) -> str:
        return str(self._keeper.query(sql, "TSVRaw").bytes().decode().strip())

    def _borrow(self, request: Request) -> _Lent:
        with self._lock:
            if request.session_id is not None:
                return self._borrow_session(request.session_id)
            for at in range(len(self._free) - 1, -1, -1):
                if self._free[at].settings == request.settings:
                    return self._free.pop(at)
            if self._free:
                return self._free.pop()
        return self._open()

    def _open(self) -> _Lent:
        with _faults():
            return _Lent(Connection(self._address))

    def _borrow_session(self, session_id: str) -> _Lent:
        now_s = time.monotonic()
        for name, session in list(self._sessions.items()):
            if not session.is_busy and now_s - session.used_at_s > SESSION_IDLE_S:
                del self._sessions[name]
                session.lent.connection.close()
        known = self._sessions.get(session_id)
        if known is None:
            known = _Session(self._open(), is_busy=False, used_at_s=now_s)
            self._sessions[session_id] = known
        if known.is_busy:
            raise EngineError(
                373,
                "Code: 373. DB::Exception: Session is locked by a concurrent client. "
                "(SESSION_IS_LOCKED)",
            )
        known.is_busy = True
        return known.lent

    def _give_back(self, lent: _Lent, request: Request) -> None:
        # A read-only session cannot even be set back.
        is_lost = lent.is_spoilt or "readonly" in lent.settings
        with self._lock:
            if request.session_id is None:
                if not is_lost and not request.statement.changes_session:
                    self._free.append(lent)
                    return
            elif (session := self._sessions.get(request.session_id)) is not None:
                session.is_busy = False
                session.used_at_s = time.monotonic()
                if not is_lost:
                    return
                del self._sessions[request.session_id]
        lent.connection.close()

    def _prepare(self, lent: _Lent, request: Request) -> None:
        """Bring the session to the request's settings and database."""
        wanted = request.settings
        for name in [name for name in lent.settings if name not in wanted]:
            default = quoted(self._options[name]) if name in self._options else "DEFAULT"
            lent.connection.query(f"SET {_checked(name)} = {default}", "Null")
            del lent.settings[name]
        for name, value in wanted.items():
            if lent.settings.get(name) != value:
                lent.connection.query(f"SET {_checked(name)} = {quoted(value)}", "Null")
                lent.settings[name] = value
        if request.session_id is not None and not request.database:
            return
        database = request.database or "default"
        if database != lent.database:
            escaped = database.replace("\\", "\\\\").replace("`", "\\`")
            lent.connection.query(f"USE `{escaped}`", "Null")
            lent.database = database

    def _stream(self, lent: _Lent, request: Request) -> Answer:
        stream = lent.connection.send_query(
            _text(request.statement.sql), request.output_format, params=dict(request.parameters)
        )
        # The first piece shows most faults while a proper status can still be sent.
        try:
            first = next(stream, None)
        except BaseException:
            stream.close()
            raise

        def pieces() -> Iterator[bytes]:
            finished = False
            try:
                with _faults():
                    piece = first
                    while piece is not None:
                        if data := piece.bytes():
                            yield data
                        piece = next(stream, None)
                finished = True
            finally:
                lent.is_spoilt = not finished
                stream.close()
                self._give_back(lent, request)

        return Answer(pieces(), request.output_format)


class _Faults:
    """Turn what the library raises into an EngineError with ClickHouse's own code and text."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, ChdbError | RuntimeError):
            return
        text = str(error)
        found = _CODE.search(text)
        if found is None:
            raise EngineError(1002, f"Code: 1002. DB::Exception: {text}") from error
        raise EngineError(int(found.group(1)), text[found.start() :].strip()) from error


def _faults() -> _Faults:
    return _Faults()


def quoted(text: str) -> str:
    """Write `text` as a ClickHouse string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _checked(name: str) -> str:
    if not _NAME.match(name):
        raise EngineError(115, "Code: 115. DB::Exception: Unknown setting. (UNKNOWN_SETTING)")
    return name


def _text(sql: bytes) -> str | bytes:
    try:
        return sql.decode()
    except UnicodeDecodeError:
        return sql


def _query(lent: _Lent, request: Request) -> Answer:
    result = lent.connection.query(
        _text(request.statement.sql), request.output_format, params=dict(request.parameters)
    )
    return Answer(
        iter((result.bytes(),)),
        request.output_format,
        read_rows=result.storage_rows_read(),
        read_bytes=result.storage_bytes_read(),
        written_rows=result.rows_written(),
        result_rows=result.rows_read(),
        elapsed_ns=int(result.elapsed() * 1e9),
    )


def _insert(lent: _Lent, request: Request) -> Answer:
    """Insert the data that came with the statement; acknowledged means written."""
    statement = request.statement
    assert statement.data is not None and statement.insert_format is not None
    for name, value in request.parameters.items():
        lent.connection.query(f"SET param_{_checked(name)} = {quoted(value)}", "Null")
    # The library has a call for it, but that one swallows what goes wrong at the end: with a full
    # disk it answers how many rows it wrote, and there are none.
    with as_file(statement.data) as path:
        at, sql = statement.source_at, statement.sql
        source = f" FROM INFILE {quoted(path)} COMPRESSION 'none' ".encode()
        wanted = f" FORMAT {_checked(statement.insert_format)}".encode()
        whole = sql[:at] + source + sql[at:] + wanted
        result = lent.connection.query(_text(whole), "Null")
    return Answer(
        iter(()), None, written_rows=result.rows_written(), elapsed_ns=int(result.elapsed() * 1e9)
    )
