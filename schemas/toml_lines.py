"""In which line of a TOML text does each value stand?

tomllib does not tell, and whoever wrote a condition of thirty lines wants the line that is wrong.
This walks over a text that tomllib has accepted, so it needs to know only where keys, tables and
lists begin and end; what it cannot follow has no line of its own, and the line of what holds it is
told.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

Path = tuple[str | int, ...]

_SKIPPED: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)+")
_KEY: Final = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*'""")
_STRING: Final = re.compile(
    r'"{3}(?:\\.|[^\\])*?"{3,5}|' r"'{3}.*?'{3,5}|" r'"(?:\\.|[^"\\\n])*"|' r"'[^'\n]*'", re.DOTALL
)
_SCALAR: Final = re.compile(r"[^\s,\]}#]+(?: \d\d:[^\s,\]}#]+)?")


class _Lost(Exception):
    """Something that this walk does not know."""


class _Walk:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line_of: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}
        self._line, self._counted_to = 1, 0

    def document(self) -> None:
        table: Path = ()
        while self._skip():
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        line, is_list = self._line_here(), self.text.startswith("[[", self.at)
        self.at += 2 if is_list else 1
        keys = self._keys()
        self._expect("]]" if is_list else "]")
        path: Path = ()
        for place, key in enumerate(keys):
            path = (*path, key)
            if is_list and place == len(keys) - 1:
                self._counts[path] = self._counts.get(path, -1) + 1
                self.line_of.setdefault(path, line)
            if path in self._counts:
                path = (*path, self._counts[path])
        self.line_of.setdefault(path, line)
        return path

    def _pair(self, table: Path) -> None:
        line = self._line_here()
        path = table
        for key in self._keys():
            path = (*path, key)
            self.line_of.setdefault(path, line)
        self._expect("=")
        self._value(path)

    def _value(self, path: Path) -> None:
        self._skip()
        self.line_of.setdefault(path, self._line_here())
        opening = self.text[self.at : self.at + 1]
        if opening == "{":
            self.at += 1
            while self._skip() and self.text[self.at] != "}":
                self._pair(path)
                self._comma()
            self._expect("}")
        elif opening == "[":
            self.at += 1
            place = 0
            while self._skip() and self.text[self.at] != "]":
                self._value((*path, place))
                place += 1
                self._comma()
            self._expect("]")
        else:
            self._take(_STRING if opening in ('"', "'") else _SCALAR)

    def _keys(self) -> list[str]:
        keys = [self._key()]
        while self._skip() and self.text[self.at] == ".":
            self.at += 1
            keys.append(self._key())
        return keys

    def _key(self) -> str:
        self._skip()
        found = self._take(_KEY)
        return found[1:-1] if found[0] in "\"'" else found

    def _comma(self) -> None:
        if self._skip() and self.text[self.at] == ",":
            self.at += 1

    def _skip(self) -> bool:
        """Over blanks and comments; False at the end."""
        found = _SKIPPED.match(self.text, self.at)
        if found:
            self.at = found.end()
        return self.at < len(self.text)

    def _expect(self, sign: str) -> None:
        self._skip()
        if not self.text.startswith(sign, self.at):
            raise _Lost
        self.at += len(sign)

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            raise _Lost
        self.at = found.end()
        return found.group()

    def _line_here(self) -> int:
        self._line += self.text.count("\n", self._counted_to, self.at)
        self._counted_to = self.at
        return self._line


def lines_of(text: str) -> dict[Path, int]:
    """The line, from 1, of each key, table and element of `text`, as far as it can be followed."""
    walk = _Walk(text)
    with suppress(_Lost):
        walk.document()
    return walk.line_of


def line_at(lines: dict[Path, int], path: Sequence[str | int]) -> int | None:
    """The line of `path`, else of the nearest thing that holds it."""
    at = tuple(path)
    while at and at not in lines:
        at = at[:-1]
    return lines.get(at)
