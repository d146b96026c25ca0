"""How is an export written: for programs, and for the person herself?

Piece by piece, so that a person with a million events needs no memory. The HTML file needs nothing
else: no script, no address, no font; every value is escaped, and its own policy forbids the rest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Protocol

import orjson

from consumers.rules.export_view import Item, Json


@dataclass(frozen=True, slots=True)
class Section:
    """A named list of items; `columns` are shown as a table, without any each item is a card."""

    name: str
    title: str
    note: str
    columns: tuple[str, ...] = ()


class Format(Protocol):
    """Bytes of an export, in the order in which they are to be sent."""

    media_type: str

    def begin(self, about: Item, sections: Sequence[Section]) -> bytes: ...
    def open(self, section: Section) -> bytes: ...
    def item(self, item: Item) -> bytes: ...
    def close(self) -> bytes: ...
    def end(self) -> bytes: ...


class AsJson:
    """One object: what `about` has, a list for each section, and `complete` as its last name."""

    media_type = "application/json"

    def __init__(self) -> None:
        self._is_first = True

    def begin(self, about: Item, sections: Sequence[Section]) -> bytes:
        return orjson.dumps(about)[:-1]

    def open(self, section: Section) -> bytes:
        self._is_first = True
        return b",\n" + orjson.dumps(section.name) + b":["

    def item(self, item: Item) -> bytes:
        before = b"\n" if self._is_first else b",\n"
        self._is_first = False
        return before + orjson.dumps(item)

    def close(self) -> bytes:
        return b"]"

    def end(self) -> bytes:
        return b',\n"complete":true}\n'


class AsHtml:
    """One page that a person reads, prints or keeps."""

    media_type = "text/html; charset=utf-8"

    def __init__(self) -> None:
        self._section: Section | None = None
        self._items = 0

    def begin(self, about: Item, sections: Sequence[Section]) -> bytes:
        links = "".join(f'<li><a href="#{s.name}">{escape(s.title)}</a></li>' for s in sections)
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<meta name="referrer" content="no-referrer">'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
            "style-src 'unsafe-inline'\">"
            f"<title>What is held about {escape(str(about['subject']))}</title>"
            f"<style>{_STYLE}</style></head><body><header>"
            f"<h1>What is held about {escape(str(about['subject']))}</h1>{_shown(about)}</header>"
            f'<nav aria-label="Sections"><ul>{links}</ul></nav><main>\n'
        ).encode("utf-8", "replace")

    def open(self, section: Section) -> bytes:
        self._section, self._items = section, 0
        head = f'<section id="{section.name}" aria-labelledby="{section.name}-title">'
        head += f'<h2 id="{section.name}-title">{escape(section.title)}</h2>'
        return (head + f"<p>{escape(section.note)}</p>\n").encode("utf-8", "replace")

    def item(self, item: Item) -> bytes:
        section = self._section
        assert section is not None
        self._items += 1
        if not section.columns:
            text = f"<article>{_shown(item)}</article>\n"
        else:
            text = "" if self._items > 1 else _table_head(section)
            cells = "".join(f"<td>{_shown(item.get(name))}</td>" for name in section.columns)
            text += f"<tr>{cells}</tr>\n"
        return text.encode("utf-8", "replace")

    def close(self) -> bytes:
        section = self._section
        assert section is not None
        if not self._items:
            return b"<p><em>Nothing.</em></p></section>\n"
        return b"</tbody></table></div></section>\n" if section.columns else b"</section>\n"

    def end(self) -> bytes:
        return b"</main><footer><p>The export is complete.</p></footer></body></html>\n"


def _table_head(section: Section) -> str:
    cells = "".join(f'<th scope="col">{_words(name)}</th>' for name in section.columns)
    # In a frame of its own, which the keyboard reaches, a wide table does not widen the page.
    frame = f'<div class="wide" tabindex="0" role="region" aria-labelledby="{section.name}-title">'
    return f"{frame}<table><thead><tr>{cells}</tr></thead><tbody>\n"


def _words(name: str) -> str:
    return escape(name.replace("_", " "))


def _shown(value: Json) -> str:
    if isinstance(value, Mapping):
        if value.keys() == _USE:
            return _use(value)
        rows = "".join(
            f"<dt>{_words(str(name))}</dt><dd>{_shown(inner)}</dd>" for name, inner in value.items()
        )
        return f"<dl>{rows}</dl>" if rows else "<span>nothing</span>"
    if isinstance(value, list | tuple):
        if not value:
            return "<span>none</span>"
        return "<ul>" + "".join(f"<li>{_shown(each)}</li>" for each in value) + "</ul>"
    if value is None or value == "":
        return "<span>not given</span>"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return escape(str(value))


_USE = {"purpose", "legal_basis", "owner", "recipients"}


def _use(use: Mapping[str, Json]) -> str:
    said = f"{use['purpose']}, on the basis of {str(use['legal_basis']).replace('_', ' ')}"
    if use.get("recipients"):
        said += f"; given to {', '.join(use['recipients'])}"
    return escape(said)


_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:0 auto;padding:1rem}
h1{font-size:1.6rem;overflow-wrap:anywhere}h2{margin-top:2.5rem;border-bottom:1px solid}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1rem;list-style:none;padding:0}
article{border:1px solid #8888;border-radius:.4rem;padding:.5rem 1rem;margin:.75rem 0}
dl{display:grid;grid-template-columns:minmax(8rem,max-content) 1fr;gap:.1rem 1rem;margin:.2rem 0}
dt{font-weight:600}dd{margin:0;overflow-wrap:anywhere}ul{margin:.1rem 0;padding-left:1.2rem}
.wide{overflow-x:auto}table{border-collapse:collapse}th,td{text-align:left;vertical-align:top;
padding:.25rem .6rem;border-bottom:1px solid #8886}th{white-space:nowrap}
td{overflow-wrap:break-word;max-width:24rem}
span{opacity:.7;font-style:italic}
@media(max-width:40rem){dl{grid-template-columns:1fr}dd{padding-left:1rem}}
@media print{article{break-inside:avoid}nav{display:none}.wide{overflow:visible}}
"""
