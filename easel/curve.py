"""A calibration of pruning as a drawing: how early scores tell, and what schedules cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from html import escape
from typing import Final

from easel.client import CalibratedSchedule, CalibratedStep, PruningCalibration

_WIDTH: Final = 920
_HEIGHT: Final = 360
_TOP: Final = 66
_BOTTOM: Final = 300
_LEFT_PANEL: Final = (64, 430)
_RIGHT_PANEL: Final = (520, 886)
_INK: Final = "#1c1e21"
_MUTED: Final = "#70747a"
_SIGNAL: Final = "#2a7f62"
_CHOSEN: Final = "#b07a00"

Place = Callable[[float], float]


def draw_calibration(found: PruningCalibration, title: str) -> str:
    """Return an SVG document: Spearman's correlation by the share of the steps with its interval,
    and beside it how often each schedule keeps the best candidate, by the work it takes."""
    about = f"{found.prompts} prompts, {found.candidates} candidates each"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="{_INK}">\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n'
        f'<text x="16" y="24" font-size="16">{escape(title)}</text>\n'
        f'<text x="16" y="42" fill="{_MUTED}">{escape(about)}</text>\n'
        f"{_signal(found.steps)}\n{_schedules(found.schedules, found.chosen)}\n</svg>\n"
    )


def _signal(steps: Sequence[CalibratedStep]) -> str:
    across, up = _scale(_LEFT_PANEL, 0.0, 1.0), _scale((_BOTTOM, _TOP), -0.2, 1.0)
    band = [(each.at, each.high) for each in steps] + [(each.at, each.low) for each in steps[::-1]]
    points = _points(((each.at, each.correlation) for each in steps), across, up)
    outline = _points(band, across, up)
    dots = "".join(
        f'<circle cx="{across(each.at):.1f}" cy="{up(each.correlation):.1f}" r="3.5" '
        f'fill="{_SIGNAL}"><title>{each.at:.0%}: {each.correlation:.2f} '
        f"({each.low:.2f} to {each.high:.2f})</title></circle>"
        for each in steps
    )
    return (
        _axes(_LEFT_PANEL, across, up, (-0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0), "{:.1f}")
        + _caption(_LEFT_PANEL, "rank correlation with the final score", "share of the steps")
        + f'<polygon points="{outline}" fill="{_SIGNAL}" opacity="0.18"/>'
        + f'<polyline points="{points}" fill="none" stroke="{_SIGNAL}" stroke-width="2"/>{dots}'
    )


def _schedules(schedules: Sequence[CalibratedSchedule], chosen: CalibratedSchedule) -> str:
    across, up = _scale(_RIGHT_PANEL, 0.0, 1.0), _scale((_BOTTOM, _TOP), 0.0, 1.0)
    dots = "".join(
        f'<circle cx="{across(each.work):.1f}" cy="{up(each.best_kept):.1f}" r="3" '
        f'fill="{_MUTED}" opacity="0.7"/>'
        for each in schedules
    )
    x, y = across(chosen.work), up(chosen.best_kept)
    return (
        _axes(_RIGHT_PANEL, across, up, (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), "{:.0%}")
        + _caption(_RIGHT_PANEL, "the best candidate is kept", "share of the steps taken")
        + dots
        + f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="none" stroke="{_CHOSEN}" '
        f'stroke-width="3"/><text x="{x:.1f}" y="{y + 22:.1f}" fill="{_CHOSEN}" '
        f'text-anchor="middle">chosen, cross-validated</text>'
    )


def _axes(
    panel: tuple[int, int], across: Place, up: Place, ticks: Iterable[float], form: str
) -> str:
    left, right = panel
    lines = []
    for value in ticks:
        y = up(value)
        lines.append(
            f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#e2e3de"/>'
            f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end" fill="{_MUTED}">'
            f"{form.format(value)}</text>"
        )
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        lines.append(
            f'<text x="{across(value):.1f}" y="{_BOTTOM + 18}" text-anchor="middle" '
            f'fill="{_MUTED}">{value:.0%}</text>'
        )
    return "".join(lines)


def _caption(panel: tuple[int, int], over: str, under: str) -> str:
    left, right = panel
    return (
        f'<text x="{left}" y="{_TOP - 10}">{escape(over)}</text>'
        f'<text x="{(left + right) / 2}" y="{_BOTTOM + 38}" text-anchor="middle">'
        f"{escape(under)}</text>"
    )


def _scale(ends: tuple[int, int], low: float, high: float) -> Place:
    first, last = ends
    return lambda value: first + (last - first) * (value - low) / (high - low)


def _points(pairs: Iterable[tuple[float, float]], across: Place, up: Place) -> str:
    return " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in pairs)
