import pytest

from benchmarks.parity import MARKS, Line, filled, table

COMPARED = Line("demo", "openvino", "float32", 8, difference=0.002, spread=20.0, agreement=0.875)
MISSING = Line("demo", "keras-jax", "float32", 8, why="not installed")


def test_the_table() -> None:
    *_, compared, missing = table([COMPARED, MISSING]).splitlines()
    assert compared == "| demo | openvino | float32 | 2.0e-03 | 1.0e-04 | 87.5 % | 8 |"
    assert missing == "| demo | keras-jax | float32 | not installed | | | |"


def test_it_stands_between_its_marks() -> None:
    page = f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n"
    assert filled(page, "new") == f"before\n{MARKS[0]}\nnew\n{MARKS[1]}\nafter\n"
    with pytest.raises(ValueError, match="substring"):
        filled("no marks", "new")
