import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.classifier.fitting import fit, labelled
from services.core.errors import EaselError, FailedPrecondition, InvalidInput, NotFound
from tests.unit.classifier.fakes import LABELS, TRAITS, FakeNetwork

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def add(folder: Path, label: str, name: str, colour: tuple[int, int, int]) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 7), colour).save(buffer, "PNG")
    (folder / label).mkdir(exist_ok=True)
    (folder / label / name).write_bytes(buffer.getvalue())


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six a colour, of which one has another's label: five sixths are classified right."""
    for name, colour in COLOURS.items():
        for index in range(5):
            add(tmp_path, name, f"{index}.png", colour)
    for name, colour in zip(COLOURS, reversed(COLOURS.values()), strict=True):
        add(tmp_path, name, "odd.PNG", colour)
    return tmp_path


def test_labelled_pictures_in_order(pictures: Path) -> None:
    (pictures / "red" / "notes.txt").write_text("no picture")
    (pictures / "index.json").write_text("{}")
    found = labelled(pictures, LABELS)
    assert [(path.parent.name, path.name) for path, _ in found[:2]] == [
        ("blue", "0.png"),
        ("blue", "1.png"),
    ]
    assert [index for _, index in found] == [2] * 6 + [1] * 6 + [0] * 6


def test_a_fit_takes_batches_and_finds_the_best_temperature(pictures: Path) -> None:
    network = FakeNetwork()
    found = fit(network, Path("model"), pictures)
    assert network.batches == [16, 2]
    assert found.pictures == 18
    # Green's odd one is green: 16 of 18 are right, and at logits of 1 and 0 the network says so of
    # too few.
    assert found.temperature < 1
    assert found.nll_after < found.nll_before


def test_a_folder_that_is_no_label(pictures: Path) -> None:
    add(pictures, "mauve", "0.png", (1, 2, 3))
    with pytest.raises(InvalidInput, match="'mauve'") as caught:
        labelled(pictures, LABELS)
    assert caught.value.field == "pictures"


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_no_pictures(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match=name):
        labelled(tmp_path / name, LABELS)


def test_a_broken_picture_is_named(pictures: Path) -> None:
    (pictures / "red" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nbad")
    with pytest.raises(EaselError) as caught:
        fit(FakeNetwork(), Path("model"), pictures)
    assert isinstance(caught.value, InvalidInput)
    assert caught.value.field == "bad.png"


def test_a_multi_label_model_needs_more_than_folders(pictures: Path) -> None:
    network = FakeNetwork(traits=replace(TRAITS, multi_label=True))
    with pytest.raises(FailedPrecondition, match="multi-label"):
        fit(network, Path("model"), pictures)


def test_fake_logits_are_what_the_fit_above_relies_on() -> None:
    red = np.full((8, 8, 3), COLOURS["red"], np.uint8)
    logits = FakeNetwork().run([red], head=True, readings={}).logits
    assert logits is not None
    assert logits[0].tolist() == [1.0, 0.0, 0.0, -1.0, -2.0]
