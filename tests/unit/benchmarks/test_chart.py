"""Lines over one axis."""

from __future__ import annotations

from dataclasses import asdict
from xml.etree import ElementTree

import pytest

from benchmarks.chart import drawing
from benchmarks.report import Chart, Line

SVG = "{http://www.w3.org/2000/svg}"


def chart(log: str = "", level: float | None = None, *lines: Line) -> ElementTree.Element:
    found = Chart("name", "a < title", "size", "seconds", lines, log, level)
    return ElementTree.fromstring(drawing(asdict(found)))


def points(shown: ElementTree.Element) -> list[list[tuple[float, float]]]:
    return [
        [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]  # type: ignore[misc]
        for line in shown.iter(f"{SVG}polyline")
    ]


def test_a_power_is_a_straight_line_on_logarithmic_axes() -> None:
    shown = chart("xy", 5.0, Line("ours", (10, 100, 1000), (2, 4, 8)))
    ((a, b, c),) = points(shown)
    assert b[0] - a[0] == pytest.approx(c[0] - b[0], abs=0.2)
    assert b[1] - a[1] == pytest.approx(c[1] - b[1], abs=0.2)
    texts = [text.text for text in shown.iter(f"{SVG}text")]
    assert {"a < title", "size", "seconds", "ours", "the bound", "10", "100", "1,000"} <= set(texts)


def test_an_interval_is_a_band_around_its_line() -> None:
    shown = chart("", None, Line("ours", (0, 1), (0.5, 0.6), (0.4, 0.5), (0.6, 0.9)))
    (band,) = [each.attrib["points"].split() for each in shown.iter(f"{SVG}polygon")]
    assert len(band) == 4
    ((first, _),) = points(shown)
    assert float(band[0].split(",")[1]) < first[1] < float(band[-1].split(",")[1])


def test_one_point_is_drawn_in_the_middle() -> None:
    shown = chart("", None, Line("ours", (3,), (0.5,)))
    assert len(points(shown)[0]) == 1


def test_a_long_name_is_told_in_pieces_that_leave_the_next_its_place() -> None:
    long = "a compiled pipeline, batches of all callers"
    shown = chart("", None, Line(long, (0, 1), (1, 2)), Line("ours", (0, 1), (2, 3)))
    placed = [(text.text or "", float(text.get("y", "0"))) for text in shown.iter(f"{SVG}text")]
    pieces = [(text, y) for text, y in placed if text and text in long]
    assert " ".join(text for text, _ in pieces) == long
    assert len(pieces) == 2
    (ours,) = [y for text, y in placed if text == "ours"]
    assert pieces[0][1] < pieces[1][1] < ours


def test_an_axis_of_less_than_two_decades_has_ticks_between_them() -> None:
    shown = chart("x", None, Line("ours", (1, 4, 32), (0.5, 0.6, 0.7)))
    assert {"1", "2", "5", "10", "20"} <= {text.text for text in shown.iter(f"{SVG}text")}


def test_nothing_to_draw_is_told() -> None:
    with pytest.raises(ValueError, match="empty"):
        chart()
