import pytest

from benchmarks.parity import NAME, Line, table
from benchmarks.report import filled

COMPARED = Line("demo", "openvino", "float32", 8, difference=0.002, spread=20.0, agreement=0.875)
MISSING = Line("demo", "keras-jax", "float32", 8, why="not installed")


def test_the_table() -> None:
    *_, compared, missing = table([COMPARED, MISSING]).splitlines()
    assert compared == "| demo | openvino | float32 | 2.0e-03 | 1.0e-04 | 87.5 % | 8 |"
    assert missing == "| demo | keras-jax | float32 | not installed | | | |"


def test_it_stands_between_its_marks() -> None:
    page = "before\n<!-- parity -->\nold\n<!-- /parity -->\nafter\n"
    expected = "before\n<!-- parity -->\nnew\n<!-- /parity -->\nafter\n"
    assert filled(page, NAME, "new") == expected
    with pytest.raises(ValueError, match="substring"):
        filled("no marks", NAME, "new")
