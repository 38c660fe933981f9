from __future__ import annotations

import subprocess
import sys
from io import BytesIO

import pytest
from PIL import Image

from easel.evaluation.confusion import Confusion
from easel.evaluation.matrix import MAX_LABELS, draw_matrix

LABELS = [f"label {number}" for number in range(2000)]


def drawn(confusion: Confusion) -> Image.Image:
    picture = Image.open(BytesIO(draw_matrix(confusion, LABELS, "a model on a folder")))
    assert picture.format == "PNG"
    return picture.convert("RGB")


def colours(picture: Image.Image) -> dict[tuple[int, ...], int]:
    """How many pixels have each colour, the header left out."""
    below = picture.crop((0, 116, *picture.size))
    counts = below.getcolors(below.width * below.height)
    assert counts is not None
    return {colour: count for count, colour in counts if isinstance(colour, tuple)}


RIGHT, WRONG = (15, 104, 96), (176, 42, 14)


def test_right_and_wrong_have_colours_of_their_own() -> None:
    confusion = Confusion()
    confusion.add(0, [0])
    confusion.add(1, [0])
    found = colours(drawn(confusion))

    # Two cells of 47 x 47 pixels, less the digit in each.
    assert 0.8 * 47**2 < found[RIGHT] < 47**2
    assert 0.8 * 47**2 < found[WRONG] < 47**2


def test_all_right_shows_no_mistake() -> None:
    confusion = Confusion()
    for label in range(3):
        confusion.add(label, [label])

    assert WRONG not in colours(drawn(confusion))


def test_what_is_no_row_has_a_column() -> None:
    inside, outside = Confusion(), Confusion()
    inside.add(0, [0])
    outside.add(0, [0])
    outside.add(0, [9])

    assert WRONG not in colours(drawn(inside))
    half = (198, 95, 69)  # the shade of one half
    near = {
        colour
        for colour in colours(drawn(outside))
        if all(abs(a - b) < 6 for a, b in zip(colour, half, strict=True))
    }
    assert near


def test_many_labels_have_small_cells_and_no_names() -> None:
    confusion = Confusion()
    for label in range(200):
        confusion.add(label, [label])
    picture = drawn(confusion)

    assert colours(picture)[RIGHT] == 200 * 4**2


@pytest.mark.parametrize("labels", [MAX_LABELS - 1, MAX_LABELS, MAX_LABELS + 1])
def test_of_too_many_labels_the_worst_are_shown(labels: int) -> None:
    confusion = Confusion()
    for label in range(labels):
        confusion.add(label, [label])
    confusion.add(labels - 1, [0])  # the last one is the worst: it must not be left out
    found = colours(drawn(confusion))

    # A pixel each, but for the worst, which is right by half.
    assert found[RIGHT] == min(labels, MAX_LABELS) - 1


def test_no_pictures_no_matrix() -> None:
    with pytest.raises(ValueError, match="no pictures"):
        draw_matrix(Confusion(), LABELS, "nothing")


def test_without_pillow_the_extra_is_named() -> None:
    program = (
        "import sys; sys.modules['PIL'] = None\n"
        "from easel.cli import main; sys.argv = ['easel', 'evaluate', '.', '--out', 'out']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 2
    assert done.stderr == (
        "error: pictures need Pillow, which is not installed: pip install 'easel[ui]'\n"
    )
