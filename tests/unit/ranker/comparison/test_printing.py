"""Markdown and HTML say the same, and neither lets a text be more than text."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

from hypothesis import given, settings

from ranker.comparison.document import Document, Section, document
from ranker.comparison.markdown import escaped, markdown
from ranker.comparison.page import page
from ranker.comparison.report import Evidence, Report, compare
from ranker.score.evidence import Outcomes
from tests.unit.ranker.comparison.sides import HOSTILE, INTENTS, reports, side

TAGS = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "small", "span",
    "div", "strong", "ul", "li", "section", "p", "table", "thead", "tbody", "tr", "th", "td", "svg",
    "g", "rect", "line", "circle", "text", "footer",
}  # fmt: skip
EMPTY = {"meta"}


class Reader(HTMLParser):
    """A page's cells, list items and chart texts; balanced and of known tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.items: list[str] = []
        self.chart: list[str] = []
        self.heads: list[str] = []
        self.images: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        assert not {name for name, _ in attrs if name.startswith("on") or name in ("src", "href")}
        if tag in EMPTY:
            return
        self._open.append(tag)
        kept = {"td": self.cells, "th": self.cells, "li": self.items, "text": self.chart}
        if tag in ("h1", "h2", "h3"):
            self.heads.append("")
        elif tag in kept:
            kept[tag].append("")
        if tag == "svg":
            self.images.append(dict(attrs).get("aria-label") or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in EMPTY:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag, kept in (
            ("td", self.cells), ("th", self.cells), ("li", self.items), ("text", self.chart),
            ("h1", self.heads), ("h2", self.heads), ("h3", self.heads),
        ):  # fmt: skip
            if tag in self._open:
                kept[-1] += data


def unescaped(text: str) -> str:
    return re.sub(r"\\([\\`*_{}\[\]<>#|~&!.)=+-])", r"\1", text)


def flat(text: str) -> str:
    return " ".join(text.split())


def markdown_cells(text: str) -> list[str]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [line for line in lines if not re.fullmatch(r"(\| --- )+\|", line)]
    return [unescaped(cell.strip()) for row in rows for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def charts(sections: tuple[Section, ...]) -> list[Section]:
    return [
        each for section in sections for each in (section, *charts(section.parts)) if each.chart
    ]


@settings(deadline=None, max_examples=50)
@given(reports())
def test_all_say_the_same(report: Report) -> None:
    found = document(report)
    read = Reader(page(found))
    _page_and_markdown(found, read)
    _charts_and_tables(found, read)


def _page_and_markdown(found: Document, read: Reader) -> None:
    text = markdown(found)
    assert Counter(map(flat, read.cells)) == Counter(markdown_cells(text))
    bullets = [unescaped(line[2:]) for line in text.splitlines() if line.startswith("- ")]
    assert [flat(item) for item in read.items] == bullets
    assert bullets == [flat(sentence.text) for sentence in found.sentences]
    heads = [
        unescaped(line.lstrip("#").strip()) for line in text.splitlines() if re.match("#+ ", line)
    ]
    assert [flat(head) for head in read.heads] == heads


def _charts_and_tables(found: Document, shown: Reader) -> None:
    for section in charts(found.sections):
        assert section.chart is not None
        assert section.table is not None
        cells = {cell for row in section.table.rows for cell in row}
        for each in section.chart.ranges:
            assert each.label in cells
            assert each.text in cells
            assert each.text in shown.chart
            assert each.low <= each.high <= each.full


def test_texts_stay_texts() -> None:
    for hostile in HOSTILE:
        told = escaped(hostile)
        assert unescaped(told) == flat(hostile)
        assert not re.search(r"(?<!\\)[|<*`]", told)


def test_a_page_is_whole() -> None:
    a, b = side("vit"), side("deit")
    outcomes = {
        (a.id, INTENTS[0]): Outcomes(40.0, 2.0, 42),
        (b.id, INTENTS[0]): Outcomes(9.0, 9.0, 18),
    }
    made: Document = document(compare(a, b, Evidence(outcomes), min_evidence=5))
    text = page(made)
    read = Reader(text)

    assert text.startswith("<!doctype html>\n<html lang=")
    assert "http" not in text
    assert "prefers-color-scheme: dark" in text
    assert len(read.images) == 2
    assert all(read.images)
    assert read.images[0].startswith("VIT does better. VIT, outcomes of use: 0.")
