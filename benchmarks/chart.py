"""Lines over one axis as SVG: growth against size, evidence against time."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from html import escape
from typing import Any, Final

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 210, 48, 56
_COLOURS: Final = ("#2a7f62", "#c0392b", "#2c5f9e", "#b8860b", "#6b4c9a", "#444444", "#1f9e9e")
_TICKS: Final = 6
_NAME_LETTERS: Final = 28
"""Of a line's name that fit beside the axes."""


class _Axis:
    """Values to pixels. A logarithmic one takes values above 0 alone."""

    def __init__(self, values: Sequence[float], start: float, end: float, *, log: bool) -> None:
        self._log = log
        self._start, self._end = start, end
        low, high = min(map(self._scaled, values)), max(map(self._scaled, values))
        if low == high:
            low, high = low - 0.5, high + 0.5
        if not log:
            margin = 0.04 * (high - low)
            low, high = (0.0 if 0 <= low < 0.3 * high else low - margin), high + margin
        self._low, self._high = low, high

    def at(self, value: float) -> float:
        share = (self._scaled(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Round numbers within the axis: steps of 1, 2 or 5; of a logarithmic one powers of ten,
        and 2 and 5 times those where they are fewer than three.
        """
        if self._log:
            return self._decades()
        step = _round_step((self._high - self._low) / _TICKS)
        first = math.ceil(self._low / step)
        return [number * step for number in range(first, math.floor(self._high / step) + 1)]

    def _decades(self) -> list[float]:
        exponents = range(math.floor(self._low), math.ceil(self._high) + 1)
        within = [10.0**n for n in exponents if self._low <= n <= self._high]
        if len(within) >= 3:
            return within
        fine = [part * 10.0**n for n in exponents for part in (1, 2, 5)]
        return [value for value in fine if self._low <= math.log10(value) <= self._high]

    def _scaled(self, value: float) -> float:
        return math.log10(value) if self._log else value


def drawing(chart: dict[str, Any]) -> str:
    """A chart of a record (``report.Chart`` as JSON) as an SVG document.

    Raises ``ValueError`` for a chart without a point.
    """
    lines: Sequence[dict[str, Any]] = chart["lines"]
    level = [] if chart["level"] is None else [chart["level"]]
    every_y = [y for line in lines for part in ("y", "low", "high") for y in line[part]] + level
    x = _Axis(
        [x for line in lines for x in line["x"]], _LEFT, _WIDTH - _RIGHT, log="x" in chart["log"]
    )
    y = _Axis(every_y, _HEIGHT - _BOTTOM, _TOP, log="y" in chart["log"])
    drawn = [_line(line, colour, x, y) for line, colour in zip(lines, _cycled(lines), strict=True)]
    bound = [_level(value, y) for value in level]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n'
        f'<text x="12" y="22" font-size="15">{escape(chart["title"])}</text>\n'
        + "\n".join([*_axes(chart, x, y), *bound, *drawn, *_names(lines)])
        + "\n</svg>\n"
    )


def _axes(chart: dict[str, Any], x: _Axis, y: _Axis) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    found = [
        f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#444"/>',
        f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 14}" text-anchor="middle">'
        f"{escape(chart['x'])}</text>",
        f'<text transform="translate(18 {(_TOP + bottom) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(chart['y'])}</text>",
    ]
    for value in x.ticks():
        at = x.at(value)
        found.append(f'<path d="M{at:.1f} {_TOP}V{bottom + 4}" stroke="#ddd"/>')
        found.append(
            f'<text x="{at:.1f}" y="{bottom + 18}" text-anchor="middle">{_told(value)}</text>'
        )
    for value in y.ticks():
        at = y.at(value)
        found.append(f'<path d="M{_LEFT - 4} {at:.1f}H{right}" stroke="#ddd"/>')
        found.append(
            f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{_told(value)}</text>'
        )
    return found


def _line(line: dict[str, Any], colour: str, x: _Axis, y: _Axis) -> str:
    points = [(x.at(a), y.at(b)) for a, b in zip(line["x"], line["y"], strict=True)]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    marks = "".join(
        f'<circle cx="{a:.1f}" cy="{b:.1f}" r="2.5" fill="{colour}"/>' for a, b in points
    )
    return (
        _band(line, colour, x, y)
        + f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>{marks}'
    )


def _band(line: dict[str, Any], colour: str, x: _Axis, y: _Axis) -> str:
    if not line["low"]:
        return ""
    upper = [(x.at(a), y.at(b)) for a, b in zip(line["x"], line["high"], strict=True)]
    lower = [(x.at(a), y.at(b)) for a, b in zip(line["x"], line["low"], strict=True)]
    outline = " ".join(f"{a:.1f},{b:.1f}" for a, b in [*upper, *reversed(lower)])
    return f'<polygon points="{outline}" fill="{colour}" fill-opacity="0.15"/>'


def _level(value: float, y: _Axis) -> str:
    at = y.at(value)
    return (
        f'<path d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}" stroke="#444" stroke-dasharray="5 4"/>'
        f'<text x="{_LEFT + 6}" y="{at - 5:.1f}" fill="#444">the bound</text>'
    )


def _names(lines: Sequence[dict[str, Any]]) -> list[str]:
    """Below each other, long ones in several pieces."""
    found, top, left = [], _TOP + 10, _WIDTH - _RIGHT + 14
    for line, colour in zip(lines, _cycled(lines), strict=True):
        found.append(f'<rect x="{left}" y="{top - 9}" width="12" height="12" fill="{colour}"/>')
        for piece in textwrap.wrap(line["name"], _NAME_LETTERS):
            found.append(f'<text x="{left + 18}" y="{top + 1}">{escape(piece)}</text>')
            top += 15
        top += 5
    return found


def _cycled(lines: Sequence[object]) -> list[str]:
    return [_COLOURS[place % len(_COLOURS)] for place in range(len(lines))]


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(part * power for part in (1, 2, 5, 10) if part * power >= step * 0.999)


def _told(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
