"""Does an unmodified ClickHouse client notice that the server is a library in a child process?"""

import http.client
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, StreamFailureError

from tests.waiting import eventually

AWKWARD = 'it\'s "q" \\ \n \t \0 é 😀 ملف {x:String} %(y)s'
COLUMNS = {
    "unsigned": "UInt64",
    "signed": "Int64",
    "at": "DateTime64(3)",
    "kind": "LowCardinality(String)",
    "pid": "FixedString(16)",
    "id": "UUID",
    "names": "Array(String)",
    "amount": "Decimal(18, 4)",
    "counts": "Map(String, UInt32)",
    "maybe": "Nullable(String)",
}
ROW: tuple[Any, ...] = (
    2**64 - 1,
    -(2**63),
    datetime(2024, 2, 29, 23, 59, 59, 999000, tzinfo=UTC),
    AWKWARD,
    bytes(range(16)),
    UUID("12345678-1234-5678-1234-567812345678"),
    ["a", AWKWARD, ""],
    Decimal("-12345678901234.5678"),
    {"k": 1, AWKWARD: 2**32 - 1},
    None,
)


def _request(
    url: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request(method, path, body or None, headers or {})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_every_type_survives_a_round_trip(clickhouse: Client, compress: bool | str) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    clickhouse.command(f"CREATE TABLE t ({columns}) ENGINE = MergeTree ORDER BY unsigned")
    with clickhouse_connect.get_client(
        dsn=clickhouse.uri, database=clickhouse.database, compress=compress, tz_mode="aware"
    ) as client:
        summary = client.insert("t", [list(ROW), list(ROW)], column_names=list(COLUMNS))
        assert summary.written_rows == 2
        result = client.query("SELECT * FROM t")
    assert result.result_rows == [ROW, ROW]
    assert result.column_names == tuple(COLUMNS)


def test_hundred_thousand_rows_by_row_and_by_column(clickhouse: Client) -> None:
    clickhouse.command("CREATE TABLE t (n UInt64, s String) ENGINE = MergeTree ORDER BY n")
    rows: list[list[Any]] = [[number, str(number)] for number in range(100_000)]
    clickhouse.insert("t", rows, column_names=["n", "s"])
    columns: list[list[Any]] = [list(range(100_000, 200_000)), ["x"] * 100_000]
    clickhouse.insert("t", columns, column_names=["n", "s"], column_oriented=True)
    counted = clickhouse.query("SELECT count(), uniqExact(n), sum(n), countIf(s = 'x') FROM t")
    assert counted.result_rows == [(200_000, 200_000, sum(range(200_000)), 100_000)]


def test_parameters_reach_the_engine_as_they_are(clickhouse: Client) -> None:
    text = AWKWARD.replace("\0", "")
    bound = clickhouse.query(
        "SELECT {text:String}, {n:UInt64}, {all:Array(String)}, {at:DateTime64(3)}",
        parameters={"text": text, "n": 2**64 - 1, "all": [text, "b"], "at": ROW[2]},
    )
    assert bound.result_rows == [(text, 2**64 - 1, [text, "b"], ROW[2].replace(tzinfo=None))]
    written = clickhouse.query("SELECT %(text)s, %(n)s", parameters={"text": text, "n": -5})
    assert written.result_rows == [(text, -5)]


def test_parameters_too_long_for_a_url_come_as_a_form(clickhouse: Client) -> None:
    long = "it's 😀\n" * 50_000
    answer = clickhouse.query("SELECT {long:String}", parameters={"long": long})
    assert answer.result_rows == [(long,)]


def test_a_table_may_be_a_parameter_of_an_insert(clickhouse: Client) -> None:
    clickhouse.command("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
    database = clickhouse.database
    path = f"/?database={database}&param_name=t&query=" + quote(
        "INSERT INTO {name:Identifier} FORMAT JSONEachRow"
    )
    response, _ = _request(clickhouse.uri, "POST", path, b'{"a": 7}\n{"a": 8}\n')
    assert response.status == 200
    assert clickhouse.command("SELECT sum(a) FROM t") == 15


def test_commands_answer_values(clickhouse: Client) -> None:
    assert clickhouse.command("SELECT 41 + 1") == 42
    assert clickhouse.command("SELECT 1, 'b'") == ["1", "b"]
    assert clickhouse.query("SELECT 1 WHERE 0").result_rows == []
    assert clickhouse.query("SELECT 1 AS a, 'x' AS b LIMIT 0").column_names == ("a", "b")
    assert clickhouse.raw_query("SELECT 1 AS a", fmt="JSONEachRow") == b'{"a":1}\n'
    assert clickhouse.min_version("26.1")
    assert clickhouse.ping()


def test_times_are_utc_wherever_the_machine_is(clickhouse: Client) -> None:
    assert clickhouse.command("SELECT timezone()") == "UTC"
    noon = datetime(2024, 7, 1, 12, tzinfo=UTC)
    answer = clickhouse.query("SELECT toString({at:DateTime})", parameters={"at": noon})
    assert answer.result_rows == [("2024-07-01 12:00:00",)]


@pytest.mark.parametrize(
    ("sql", "code", "word"),
    [
        ("SELECT nothing FROM t", 60, "UNKNOWN_TABLE"),
        ("SELECT missing", 47, "UNKNOWN_IDENTIFIER"),
        ("SELEC 1", 62, "SYNTAX_ERROR"),
        ("SELECT toUInt8('x')", 6, "CANNOT_PARSE_TEXT"),
        ("SELECT throwIf(number = 3) FROM numbers(5)", 395, "FUNCTION_THROW_IF"),
        ("SELECT groupArray(number) FROM numbers(100000000)", 241, "MEMORY_LIMIT_EXCEEDED"),
    ],
)
def test_an_error_has_its_code_and_text_and_hurts_nobody_else(
    clickhouse: Client, sql: str, code: int, word: str
) -> None:
    with pytest.raises(DatabaseError, match=word) as raised:
        clickhouse.query(sql, settings={"max_memory_usage": 50_000_000})
    assert raised.value.code == code
    assert clickhouse.command("SELECT 1") == 1


def test_a_refused_insert_writes_nothing_and_hurts_nobody_else(clickhouse: Client) -> None:
    clickhouse.command("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
    with pytest.raises(DatabaseError, match="CANNOT_PARSE_INPUT"):
        clickhouse.raw_insert("t", ["a"], b'{"a":1}\n{"a":"zz"', fmt="JSONEachRow")
    with pytest.raises(DatabaseError, match="CANNOT_READ_ALL_DATA"):
        clickhouse.raw_insert("t", ["a"], b"\x01\x05garbage", fmt="Native")
    with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
        clickhouse.raw_insert("missing", ["a"], b"1\n", fmt="TSV")
    clickhouse.raw_insert("t", ["a"], b"1\n", fmt="TSV")
    assert clickhouse.query("SELECT a FROM t").result_rows == [(1,)]


def test_a_setting_holds_for_its_request_alone(clickhouse_url: str) -> None:
    with clickhouse_connect.get_client(dsn=clickhouse_url, autogenerate_session_id=False) as client:
        ask = "SELECT getSetting('max_threads'), getSetting('async_insert')"
        before = client.query(ask).result_rows
        inside = client.query(ask, settings={"max_threads": 7, "async_insert": 1}).result_rows
        assert inside == [(7, True)]
        assert client.query(ask).result_rows == before
        client.command("SET max_threads = 7")
        assert client.query(ask).result_rows == before
        with pytest.raises(DatabaseError, match="readonly"):
            client.command("CREATE TABLE no (a UInt8) ENGINE = Memory", settings={"readonly": 1})
        assert client.query(ask).result_rows == before
        response, body = _request(clickhouse_url, "POST", "/?no_such_setting=1", b"SELECT 1")
        assert (response.status, b"UNKNOWN_SETTING" in body) == (400, True)


def test_a_session_keeps_what_it_was_told(clickhouse_url: str) -> None:
    with (
        clickhouse_connect.get_client(dsn=clickhouse_url) as one,
        clickhouse_connect.get_client(dsn=clickhouse_url) as other,
    ):
        one.command("CREATE TEMPORARY TABLE mine (a UInt8)")
        one.insert("mine", [[5]], column_names=["a"])
        assert one.command("SELECT a FROM mine") == 5
        with pytest.raises(DatabaseError, match="UNKNOWN_TABLE"):
            other.command("SELECT a FROM mine")


def test_a_large_result_is_streamed(clickhouse: Client) -> None:
    with clickhouse.query_row_block_stream("SELECT number FROM numbers(1000000)") as blocks:
        lengths = [len(block) for block in blocks]
    assert sum(lengths) == 1_000_000 and len(lengths) > 1


def test_a_fault_in_the_middle_of_a_stream_is_seen(clickhouse: Client) -> None:
    sql = "SELECT throwIf(number = 900000) FROM numbers(1000000)"
    with (
        pytest.raises(StreamFailureError),
        clickhouse.query_row_block_stream(sql) as blocks,
    ):
        assert [len(block) for block in blocks]
    assert clickhouse.command("SELECT 1") == 1


def test_readers_do_not_wait_for_a_slow_query(clickhouse_url: str) -> None:

    def slow() -> object:
        with clickhouse_connect.get_client(dsn=clickhouse_url) as client:
            return client.command("SELECT sleepEachRow(1) FROM numbers(3) FORMAT Null")

    running = "SELECT count() FROM system.processes WHERE query LIKE '%sleepEach' || 'Row%'"
    answers = 0
    with ThreadPoolExecutor(1) as pool, clickhouse_connect.get_client(dsn=clickhouse_url) as client:
        waiting = pool.submit(slow)
        eventually(lambda: waiting.done() or client.command(running) == 1)
        while not waiting.done():
            assert client.command("SELECT 1") == 1
            answers += 1
        waiting.result()
    # Whoever had to wait for it would get one, as it ends.
    assert answers > 1


def test_readers_see_whole_inserts_while_a_writer_works(clickhouse: Client) -> None:
    clickhouse.command("CREATE TABLE t (n UInt64) ENGINE = MergeTree ORDER BY n")
    stop = threading.Event()

    def read() -> set[int]:
        seen: set[int] = set()
        with clickhouse_connect.get_client(
            dsn=clickhouse.uri, database=clickhouse.database
        ) as client:
            while not stop.is_set():
                seen.add(int(str(client.command("SELECT count() FROM t"))))
        return seen

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        try:
            for start in range(0, 30_000, 1000):
                rows = [[number] for number in range(start, start + 1000)]
                clickhouse.insert("t", rows, column_names=["n"])
        finally:
            stop.set()
        assert all(count % 1000 == 0 for reader in readers for count in reader.result())
    assert clickhouse.command("SELECT uniqExact(n) FROM t") == 30_000


def test_plain_http_works_as_with_curl(clickhouse_url: str) -> None:
    response, body = _request(clickhouse_url, "GET", "/?query=SELECT%201%2B1")
    assert (response.status, body) == (200, b"2\n")
    response, body = _request(clickhouse_url, "POST", "/?query=SELECT%201%20", b"AS a FORMAT CSV")
    assert (response.status, body) == (200, b"1\n")
    assert response.headers["X-ClickHouse-Format"] == "CSV"
    assert _request(clickhouse_url, "GET", "/ping")[1] == b"Ok.\n"
    assert _request(clickhouse_url, "GET", "/")[1] == b"Ok.\n"
    assert _request(clickhouse_url, "GET", "/other")[0].status == 404


def test_a_get_only_reads(clickhouse_url: str) -> None:
    response, body = _request(clickhouse_url, "GET", "/?query=DROP%20DATABASE%20IF%20EXISTS%20x")
    assert response.status == 403
    assert response.headers["X-ClickHouse-Exception-Code"] == "164"
    assert b"readonly" in body


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://shop.example"}, {"Host": "rebound.example:8123"}]
)
def test_a_page_in_a_browser_is_refused(clickhouse_url: str, headers: dict[str, str]) -> None:
    response, _ = _request(clickhouse_url, "POST", "/", b"SELECT 1", headers)
    assert response.status == 403


def test_what_is_not_offered_is_said(clickhouse_url: str) -> None:
    for path, headers in (
        ("/?compress=1", {}),
        ("/", {"Content-Encoding": "snappy"}),
    ):
        response, body = _request(clickhouse_url, "POST", path, b"SELECT 1", headers)
        assert (response.status, b"NOT_IMPLEMENTED" in body) == (501, True)
    broken = {"Content-Encoding": "gzip"}
    response, body = _request(clickhouse_url, "POST", "/", b"not gzip", broken)
    assert (response.status, b"CANNOT_READ_ALL_DATA" in body) == (400, True)
