"""The pictures of the kept records."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from benchmarks.plots import drawing, margin

RECORD = {
    "machine": {"cores": 2, "processor": "P & Q", "features": ["avx2"]},
    "commit": "abc",
    "entries": [
        {"name": "told <only>", "value": 1.0, "unit": "s", "bound": None, "holds": True},
        {"name": "holds", "value": 6.0, "unit": "ratio", "bound": ">= 3", "holds": True},
        {"name": "does not", "value": 6.0, "unit": "ratio", "bound": "<= 3", "holds": False},
    ],
}


@pytest.mark.parametrize(
    ("value", "bound", "expected"),
    [
        (3.0, ">= 3", 0.0),
        (6.0, ">= 3", math.log(2)),
        (6.0, "<= 3", -math.log(2)),
        (1.5, "<= 3", math.log(2)),
        (3000.0, ">= 3", math.log(10)),
        (0.0, "<= 0", math.log(10)),
        (1.0, "<= 0", -math.log(10)),
        (0.0, ">= 3", -math.log(10)),
        (0.02, "> 0", math.log(10)),
        (-0.02, "> 0", -math.log(10)),
    ],
)
def test_margin_is_how_far_a_value_is_from_its_bound(
    value: float, bound: str, expected: float
) -> None:
    assert margin(value, bound) == pytest.approx(expected)


def test_a_drawing_has_a_bar_for_each_bound() -> None:
    shown = ElementTree.fromstring(drawing(RECORD, "a title"))
    texts = [text.text for text in shown.iter("{http://www.w3.org/2000/svg}text")]
    bars = list(shown.iter("{http://www.w3.org/2000/svg}rect"))[1:]
    assert len(bars) == 2
    assert bars[0].get("fill") != bars[1].get("fill")
    assert "holds" in texts
    assert "told <only>" not in texts
    assert "2 cores, P & Q (avx2), commit abc" in texts
