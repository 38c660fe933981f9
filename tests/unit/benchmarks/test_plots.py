"""The pictures of the kept records."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from benchmarks.plots import drawing, filled, margin


def entry(
    name: str, value: float, unit: str, bound: str | None, holds: bool, spread: float | None = None
) -> dict[str, object]:
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "bound": bound,
        "holds": holds,
        "spread": spread,
    }


RECORD = {
    "machine": {"cores": 2, "processor": "P & Q", "features": ["avx2"]},
    "commit": "abc",
    "entries": [
        entry("told <only>", 12345.0, "s", None, True, 0.25),
        entry("holds", 6.0, "ratio", ">= 3", True),
        entry("does not", 6.0, "ratio", "<= 3", False),
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


def test_a_table_stands_between_its_marks() -> None:
    page = "before\n<!-- some -->\nold\n<!-- /some -->\nafter"
    assert filled(page, "some", RECORD) == (
        "before\n<!-- some -->\n"
        "2 cores, P & Q (avx2), commit abc; the whole record is `benchmarks/results/some.json`.\n\n"
        "| what | value | ± | unit | bound | holds |\n"
        "|---|---|---|---|---|---|\n"
        "| told <only> | 12,345 | 0.25 | s |  |  |\n"
        "| holds | 6 |  | ratio | ≥ 3 | yes |\n"
        "| does not | 6 |  | ratio | ≤ 3 | **no** |\n"
        "<!-- /some -->\nafter"
    )
    with pytest.raises(ValueError, match="not found"):
        filled(page, "other", RECORD)
