"""A comparison as Markdown: tables as GitHub reads them, and nothing that a text could break."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ranker.comparison.document import Document, Section, Table

# What Markdown reads as its own, and <, which may begin HTML.
_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>#|~&!])")
# What begins a list, a rule or an underlined heading, where a line begins with it.
_LEADING: Final = re.compile(r"^(\d{0,9})([-+=.)](?:(?=\s|$)|(?=[-=])))")


def markdown(found: Document) -> str:
    return "\n".join(_lines(found)).rstrip() + "\n"


def escaped(text: str) -> str:
    """As plain text, in one line."""
    return _LEADING.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", " ".join(text.split())))


def _lines(found: Document) -> Iterator[str]:
    yield from (f"# {escaped(found.title)}", "", f"**Verdict: {escaped(found.verdict)}.**", "")
    for sentence in found.sentences:
        yield f"- {escaped(sentence.text)}"
    yield ""
    for section in found.sections:
        yield from _section(section, 2)
    for note in found.footnotes:
        yield from (escaped(note), "")


def _section(section: Section, level: int) -> Iterator[str]:
    yield from (f"{'#' * level} {escaped(section.title)}", "")
    for note in section.notes:
        yield from (escaped(note), "")
    if section.table is not None:
        yield from _table(section.table)
    for part in section.parts:
        yield from _section(part, level + 1)


def _table(table: Table) -> Iterator[str]:
    yield _row(table.head)
    yield _row(tuple("---" for _ in table.head), raw=True)
    for row in table.rows:
        yield _row(row)
    yield ""


def _row(cells: tuple[str, ...], *, raw: bool = False) -> str:
    return "| " + " | ".join(cell if raw else escaped(cell) for cell in cells) + " |"
