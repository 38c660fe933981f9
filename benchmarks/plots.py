"""``make plots``: the kept records as pictures, ``docs/bench/NAME.svg``, and as tables of the docs.

One bar for each entry that has a bound, drawn by how far it is from it: right of the line the bound
holds, left of it it does not. A record's charts are ``docs/bench/NAME-CHART.svg``. Tables stand
between ``<!-- NAME -->`` and ``<!-- /NAME -->``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from benchmarks import chart, report

RESULTS: Final = Path("benchmarks/results")
OUT: Final = Path("docs/bench")
PAGE: Final = Path("docs/benchmarks.md")

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 1000, 430, 250, 24, 76
_MOST: Final = math.log(10.0)
"""Bars end at ten times better or worse than the bound."""


def drawing(record: dict[str, Any], title: str) -> str:
    """The bounded entries of a record, as an SVG document."""
    entries = [entry for entry in record["entries"] if entry["bound"] is not None]
    height = _TOP + _ROW * len(entries) + 24
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    rows = [_bar(entry, index, middle) for index, entry in enumerate(entries)]
    axis = (
        f'<line x1="{middle}" y1="{_TOP - 8}" x2="{middle}" y2="{height - 16}" stroke="#444"/>'
        f'<text x="{middle}" y="{_TOP - 14}" text-anchor="middle">the bound</text>'
        f'<text x="{_WIDTH - _RIGHT}" y="{_TOP - 14}" text-anchor="end" fill="#666">'
        "10 times better →</text>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>\n'
        f'<text x="12" y="20" font-size="15">{escape(title)}</text>\n'
        f'<text x="12" y="38" fill="#666">{escape(_machine(record))}</text>\n'
        f"{axis}\n" + "\n".join(rows) + "\n</svg>\n"
    )


def margin(value: float, bound: str) -> float:
    """How many times better than its bound a value is, as a logarithm; below 0 it does not hold."""
    sense, limit = bound.split()
    if float(limit) == 0.0 or value == 0.0:
        better = value > 0.0 if sense.startswith(">") else value <= float(limit)
        return _MOST if better else -_MOST
    ratio = math.log(value / float(limit)) if value > 0.0 else -_MOST
    signed = ratio if sense.startswith(">") else -ratio
    return max(-_MOST, min(_MOST, signed))


def filled(page: str, name: str, record: dict[str, Any]) -> str:
    """``page`` with the record's table between the marks of ``name``.

    Raises ``ValueError`` where they are missing.
    """
    rows = [
        f"{_machine(record)}; the whole record is `benchmarks/results/{name}.json`.",
        "",
        "| what | value | ± | unit | bound | holds |",
        "|---|---|---|---|---|---|",
        *map(_row, record["entries"]),
    ]
    return report.filled(page, name, "\n".join(rows))


def _row(entry: dict[str, Any]) -> str:
    spread = "" if entry["spread"] is None else f"{entry['spread']:.2g}"
    value = f"{entry['value']:,.0f}" if entry["value"] >= 1e4 else f"{entry['value']:.4g}"
    bound, holds = "", ""
    if entry["bound"] is not None:
        bound = entry["bound"].replace(">=", "≥").replace("<=", "≤")
        holds = "yes" if entry["holds"] else "**no**"
    return f"| {entry['name']} | {value} | {spread} | {entry['unit']} | {bound} | {holds} |"


def _bar(entry: dict[str, Any], index: int, middle: float) -> str:
    top = _TOP + _ROW * index
    reach = (_WIDTH - _RIGHT - _LEFT) / 2 * margin(entry["value"], entry["bound"]) / _MOST
    start, width = (middle, reach) if reach >= 0 else (middle + reach, -reach)
    colour = "#2a7f62" if entry["holds"] else "#c0392b"
    told = f"{entry['value']:.3g} {entry['unit']} ({entry['bound']})"
    return (
        f'<text x="{_LEFT - 10}" y="{top + 14}" text-anchor="end">{escape(entry["name"])}</text>'
        f'<rect x="{start:.1f}" y="{top + 3}" width="{max(width, 1.5):.1f}" height="14" '
        f'fill="{colour}"/>'
        f'<text x="{_WIDTH - _RIGHT + 8}" y="{top + 14}">{escape(told)}</text>'
    )


def _machine(record: dict[str, Any]) -> str:
    machine = record["machine"]
    features = ", ".join(machine["features"])
    accelerator = f"{record['accelerator']}; " if "accelerator" in record else ""
    processor = f"{machine['cores']} cores, {machine['processor']} ({features})"
    return f"{accelerator}{processor}, commit {record['commit']}"


def main(names: Sequence[str] = ()) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for path in sorted(RESULTS.glob("*.json")):
        if names and path.stem not in names:
            continue
        record = json.loads(path.read_text(encoding="utf-8"))
        if any(entry["bound"] is not None for entry in record["entries"]):
            shown = drawing(record, record.get("title", f"make bench-{path.stem}"))
            (OUT / f"{path.stem}.svg").write_text(shown, encoding="utf-8")
        for each in record.get("charts", ()):
            target = OUT / f"{path.stem}-{each['name']}.svg"
            target.write_text(chart.drawing(each), encoding="utf-8")
        page = filled(PAGE.read_text(encoding="utf-8"), path.stem, record)
        PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
