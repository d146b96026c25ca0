"""Is a statement taken apart where ClickHouse itself would?"""

import pytest

from runtime.clickhouse_statements import split


@pytest.mark.parametrize(
    ("text", "sql", "name", "data"),
    [
        (b"INSERT INTO t FORMAT Native\n\x01\x02", b"INSERT INTO t ", "Native", b"\x01\x02"),
        (b"insert into t (a, b) format TSV 1\t2", b"insert into t (a, b) ", "TSV", b"1\t2"),
        (b"INSERT INTO t FORMAT Native\n\n\n", b"INSERT INTO t ", "Native", b"\n\n"),
        (b"INSERT INTO t FORMAT CSV;\r\n1", b"INSERT INTO t ", "CSV", b"1"),
        (b"INSERT INTO `a format b` FORMAT CSV\n1", b"INSERT INTO `a format b` ", "CSV", b"1"),
        (
            b"/* FORMAT */ INSERT -- FORMAT\n INTO t SETTINGS x = 'FORMAT \\'' FORMAT CSV\n",
            b"/* FORMAT */ INSERT -- FORMAT\n INTO t SETTINGS x = 'FORMAT \\'' ",
            "CSV",
            b"",
        ),
        (
            b"INSERT INTO FUNCTION file('x', format) FORMAT CSV\n1",
            b"INSERT INTO FUNCTION file('x', format) ",
            "CSV",
            b"1",
        ),
    ],
)
def test_data_begin_after_the_format_clause(
    text: bytes, sql: bytes, name: str, data: bytes
) -> None:
    statement = split(text)
    assert statement.sql == sql
    assert statement.insert_format == name
    assert statement.data is not None and bytes(statement.data) == data


@pytest.mark.parametrize(
    "text",
    [
        b"INSERT INTO t VALUES (1, 'FORMAT TSV')",
        b"INSERT INTO t SELECT 1 FORMAT TSV",
        b"INSERT INTO t WITH 1 AS x SELECT x",
        b"INSERT INTO t FROM INFILE 'x' FORMAT CSV",
        b"INSERT INTO t (a)",
    ],
)
def test_insert_without_data_is_left_to_the_engine(text: bytes) -> None:
    statement = split(text)
    assert (statement.sql, statement.data) == (text, None)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"SELECT 1 FORMAT JSON", "JSON"),
        (b"SELECT 1\n format JSONEachRow ;\n", "JSONEachRow"),
        (b"SELECT 1 FORMAT CSV SETTINGS max_threads = 1", "CSV"),
        (b"SELECT 1", None),
        (b"SELECT 'x FORMAT CSV'", None),
    ],
)
def test_output_format_is_the_trailing_clause(text: bytes, name: str | None) -> None:
    assert split(text).output_format == name


def test_a_format_behind_a_comment_is_not_sure() -> None:
    assert not split(b"SELECT 1 FORMAT JSON -- end").output_format_is_sure
    assert split(b"SELECT 1 -- end").output_format_is_sure


@pytest.mark.parametrize(
    "text", [b"SELECT 1", b" (SELECT 1)", b"-- x\nwith 1 as a select a", b"SHOW TABLES"]
)
def test_reading_statements(text: bytes) -> None:
    assert split(text).is_reading


@pytest.mark.parametrize(
    "text", [b"DROP TABLE t", b"INSERT INTO t VALUES (1)", b"SET a = 1", b"", b"ALTER"]
)
def test_others_do_not_count_as_reading(text: bytes) -> None:
    assert not split(text).is_reading


@pytest.mark.parametrize("text", [b"SET a = 1", b"use x", b"CREATE TEMPORARY TABLE t (a UInt8)"])
def test_statements_that_change_the_session(text: bytes) -> None:
    assert split(text).changes_session
