"""A comparison as one HTML page: no scripts, nothing fetched, light and dark, readable aloud.

Every chart is drawn beside a table that says the same.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Final

from ranker.comparison.document import Chart, Document, Range, Section, Table

_LABEL: Final = 190
_SCALE: Final = 430
_TOLD: Final = 220
_ROW: Final = 30
_WIDTH: Final = _LABEL + _SCALE + _TOLD


def page(found: Document) -> str:
    return _PAGE.format(
        title=html.escape(found.title),
        style=_STYLE,
        a=html.escape(found.names[0]),
        b=html.escape(found.names[1]),
        verdict=html.escape(found.verdict),
        sentences="".join(_sentence(each.text, each.fields) for each in found.sentences),
        sections="".join(_section(each, 2, found.names) for each in found.sections),
        footnotes="".join(f"<p>{html.escape(note)}</p>" for note in found.footnotes),
    )


def _sentence(text: str, fields: tuple[str, ...]) -> str:
    named = html.escape(", ".join(fields))
    return f'<li title="from {named}">{html.escape(text)}</li>'


def _section(section: Section, level: int, names: tuple[str, str]) -> str:
    head = f"<h{level}>{html.escape(section.title)}</h{level}>"
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in section.notes)
    chart = "" if section.chart is None else _chart(section.chart, names)
    table = "" if section.table is None else _table(section.table, section.title)
    parts = "".join(_section(part, level + 1, names) for part in section.parts)
    return f"<section>{head}{notes}{chart}{table}{parts}</section>"


def _table(table: Table, caption: str) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.head)
    kinds = table.kinds or ("",) * len(table.rows)
    rows = "".join(_row(row, kind) for row, kind in zip(table.rows, kinds, strict=True))
    return (
        f'<div class="table" tabindex="0" role="region" aria-label="{html.escape(caption)}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(cells: tuple[str, ...], kind: str) -> str:
    marked = f' class="{kind.replace(" ", "-")}"' if kind else ""
    first = f'<th scope="row">{html.escape(cells[0])}</th>'
    return f"<tr{marked}>{first}{''.join(f'<td>{html.escape(c)}</td>' for c in cells[1:])}</tr>"


def _chart(chart: Chart, names: tuple[str, str]) -> str:
    full = max(each.full for each in chart.ranges)
    height = _ROW * len(chart.ranges) + 24
    drawn = "".join(_range(each, index, full, chart) for index, each in enumerate(chart.ranges))
    said = "; ".join(
        f"{names['ab'.index(each.side)]}, {each.label}: {each.text}" for each in chart.ranges
    )
    key = "".join(
        f'<span class="{side}">{html.escape(name)}</span>'
        for side, name in zip("ab", names, strict=True)
    )
    return (
        (f'<p class="key">{key}</p>' if chart.bars else "")
        + f'<div class="table"><svg viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{html.escape(f"{chart.title}. {said}")}">'
        f"{drawn}{_axis(chart, full, height)}</svg></div>"
    )


def _axis(chart: Chart, full: float, height: int) -> str:
    bottom = height - 20
    lines = [
        f'<line class="axis" x1="{_LABEL}" y1="{bottom}" x2="{_LABEL + _SCALE}" y2="{bottom}"/>',
        f'<text class="tick" x="{_LABEL}" y="{height - 5}">{html.escape(chart.ends[0])}</text>',
        f'<text class="tick end" x="{_LABEL + _SCALE}" y="{height - 5}">'
        f"{html.escape(chart.ends[1])}</text>",
    ]
    if chart.middle is not None:
        x = _x(chart.middle, full)
        lines.append(f'<line class="middle" x1="{x}" y1="2" x2="{x}" y2="{bottom}"/>')
        lines.append(f'<text class="tick mid" x="{x}" y="{height - 5}">{chart.middle:g}</text>')
    return "".join(lines)


def _range(each: Range, index: int, full: float, chart: Chart) -> str:
    top = _ROW * index + 4
    middle = top + (_ROW - 8) / 2
    label = "" if chart.bars and each.side == "b" else html.escape(each.label)
    parts = [
        f'<text class="label" x="{_LABEL - 12}" y="{middle + 5}">{label}</text>',
        *_mark(each, top, middle, full, bars=chart.bars),
        f'<text class="told" x="{_LABEL + _SCALE + 12}" y="{middle + 5}">'
        f"{html.escape(each.text)}</text>",
    ]
    return f'<g class="{each.side}">{"".join(parts)}</g>'


def _mark(each: Range, top: float, middle: float, full: float, *, bars: bool) -> Iterator[str]:
    height = _ROW - 12
    most = _x(each.most, full) - _LABEL
    kind = "open" if each.value is None else "most"
    place = f'x="{_LABEL}" y="{top + 2}"'
    yield f'<rect class="{kind}" {place} width="{most}" height="{height}" rx="3"/>'
    if each.value is None:
        return
    low, value, high = (_x(end, full) for end in (each.low, each.value, each.high))
    if bars:
        width = round(value - _LABEL, 2)
        yield f'<rect class="bar" {place} width="{width}" height="{height}" rx="3"/>'
    yield f'<line class="reach" x1="{low}" y1="{middle}" x2="{high}" y2="{middle}"/>'
    for end in (low, high):
        yield f'<line class="reach" x1="{end}" y1="{middle - 5}" x2="{end}" y2="{middle + 5}"/>'
    if not bars:
        yield f'<circle class="dot" cx="{value}" cy="{middle}" r="5.5"/>'


def _x(value: float, full: float) -> float:
    return round(_LABEL + _SCALE * value / full, 2) if full else float(_LABEL)


_STYLE: Final = """
:root { color-scheme: light dark; --paper: #fafaf7; --card: #fff; --ink: #1c1e21; --muted: #5f646b;
  --line: #e2e3de; --a: #1f6fb2; --b: #b3560f; --good: #2b7a3d; --bad: #b3261e; --most: #eceded }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --card: #1d2024; --ink: #e8e9ea;
  --muted: #a0a5ad; --line: #30343a; --a: #66b1f0; --b: #f0a35e; --good: #74c686; --bad: #f28b82;
  --most: #2a2e33 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 72rem; background: var(--paper);
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .75rem; overflow-wrap: anywhere }
h1 .a, .key .a { color: var(--a) } h1 .b, .key .b { color: var(--b) }
h1 small { color: var(--muted); font-weight: 400; font-size: .7em }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .5rem; padding-top: 1.25rem;
  border-top: 1px solid var(--line); overflow-wrap: anywhere }
h3 { font-size: 1rem; margin: 1.6rem 0 .35rem; overflow-wrap: anywhere }
p { margin: .35rem 0 .75rem; color: var(--muted); max-width: 52rem; overflow-wrap: anywhere }
.verdict { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 1rem 1.25rem; margin: 1.25rem 0 }
.verdict strong { display: block; font-size: 1.3rem; margin-bottom: .5rem;
  overflow-wrap: anywhere }
.verdict strong::first-letter { text-transform: uppercase }
.verdict ul { margin: 0; padding-left: 1.1rem } .verdict li { margin: .3rem 0;
  overflow-wrap: anywhere }
svg { display: block; width: 100%; min-width: 38rem; max-width: 56rem; height: auto;
  margin: .75rem 0 1rem }
svg text { fill: var(--ink); font-size: 13px; font-variant-numeric: tabular-nums }
.key span { margin-right: 1.25rem; font-weight: 600 } .key span::before { content: "■ " }
.label { text-anchor: end } .tick { fill: var(--muted) !important }
.end { text-anchor: end } .mid { text-anchor: middle }
.axis, .middle { stroke: var(--muted); stroke-width: 1 } .middle { stroke-dasharray: 4 3 }
.most { fill: var(--most) }
.open { fill: none; stroke: var(--muted); stroke-dasharray: 3 3 }
.reach { stroke: var(--ink); stroke-width: 1.6 }
g.a .bar, g.a .dot { fill: var(--a) } g.b .bar, g.b .dot { fill: var(--b) }
.table { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: .45rem .9rem .45rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; min-width: 5.5rem;
  max-width: 26rem }
thead th { color: var(--muted); font-weight: 500 } tbody th { font-weight: 600 }
tr.holds td:nth-child(4) { color: var(--good); font-weight: 600 }
tr.wrong td:nth-child(4) { color: var(--bad); font-weight: 600 }
tr.unproven td:nth-child(4) { color: var(--muted) }
footer { margin-top: 2.5rem; font-size: .82rem }
"""

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} – Easel</title><style>{style}</style></head><body>
<main><h1><span class="a">{a}</span> <small>and</small> <span class="b">{b}</span></h1>
<div class="verdict"><strong>{verdict}</strong><ul>{sentences}</ul></div>
{sections}</main>
<footer>{footnotes}</footer>
</body></html>
"""
