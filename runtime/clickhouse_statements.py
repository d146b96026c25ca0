"""Where does a ClickHouse statement end and its data begin, and what does it do to a session?

ClickHouse's HTTP interface takes the statement in the `query` parameter, in the body, or partly in
each, and an INSERT's rows follow its FORMAT clause in the same bytes. The engine library wants
them apart, so the head of a statement is read here, token by token: a FORMAT inside a string, a
quoted name, a comment or a sub-query is none.
"""

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    rb"""(?P<skip>\s+|--[^\n]*|\#[\ !][^\n]*|/\*.*?\*/)
    |(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?:[^`\\]|\\.)*`)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<other>.)""",
    re.DOTALL | re.VERBOSE,
)
_DATA_GAP = re.compile(rb"[ \t\f]*;?[ \t\f]*\r?\n?")
_OUTPUT_FORMAT = re.compile(
    rb"\bFORMAT\s+([A-Za-z0-9_]+)\s*(?:\bSETTINGS\b[^()]*)?;?\s*\Z", re.IGNORECASE
)

# What a GET may do: a page in a browser can send one without asking anybody.
READING = frozenset(
    {b"SELECT", b"WITH", b"SHOW", b"DESCRIBE", b"DESC", b"EXISTS", b"EXPLAIN", b"CHECK", b"("}
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, taken apart.

    `sql` is what the engine gets; of an INSERT with data, without its FORMAT clause. `data` is what
    followed in `insert_format`, or None when the rows are in the statement or come from a SELECT.
    """

    sql: bytes
    first_word: bytes
    insert_format: str | None
    data: memoryview | None
    output_format: str | None
    source_at: int = 0
    """Of an INSERT with data: where in `sql` a clause that says where they are would stand."""

    @property
    def is_reading(self) -> bool:
        """True if it changes nothing."""
        return self.first_word in READING

    @property
    def output_format_is_sure(self) -> bool:
        """False if the statement may name a format where we did not see it."""
        return self.output_format is not None or b"FORMAT" not in self.sql.upper()

    @property
    def changes_session(self) -> bool:
        """True if a later statement on the same connection would see a difference."""
        if self.first_word in {b"SET", b"USE"}:
            return True
        return self.first_word == b"CREATE" and b"TEMPORARY" in self.sql[:200].upper()


def split(text: bytes) -> Statement:
    """Take `text` apart; anything that is not understood stays in `sql` for the engine to judge."""
    position, first = _next_word(text, 0)
    if first == b"INSERT":
        return _split_insert(text, position)
    found = _OUTPUT_FORMAT.search(text, max(0, len(text) - 4096))
    output_format = found.group(1).decode() if found else None
    return Statement(text, first, None, None, output_format)


def _next_word(text: bytes, position: int) -> tuple[int, bytes]:
    """Give the first token that means something, upper case, and the position after it."""
    while found := _TOKEN.match(text, position):
        position = found.end()
        if found.lastgroup != "skip":
            return position, found.group().upper()
    return position, b""


def _split_insert(text: bytes, position: int) -> Statement:
    depth = settings_at = 0
    while found := _TOKEN.match(text, position):
        start, position = position, found.end()
        token = found.group()
        if token == b"(":
            depth += 1
        elif token == b")":
            depth -= 1
        elif depth or found.lastgroup != "word":
            continue
        elif token.upper() in {b"VALUES", b"SELECT", b"WITH", b"INFILE"}:
            break
        elif token.upper() == b"SETTINGS":
            settings_at = start
        elif token.upper() == b"FORMAT":
            after, name = _next_word(text, position)
            written_name = text[after - len(name) : after].decode("ascii", "replace")
            gap = _DATA_GAP.match(text, after)
            data_at = gap.end() if gap else after
            data = memoryview(text)[data_at:]
            source_at = settings_at or start
            return Statement(text[:start], b"INSERT", written_name, data, None, source_at)
    return Statement(text, b"INSERT", None, None, None)
