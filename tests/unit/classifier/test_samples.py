"""Pictures of a folder, and drawn ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from services.classifier import samples
from services.classifier.preprocessing import Preprocessing, Size
from services.core.errors import InvalidInput

PREPROCESSING = Preprocessing(
    input=Size(8, 6), resize=Size(8, 6), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0)
)


def save(folder: Path, name: str, level: int) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (11, 9), (level, level, level)).save(folder / name)


def test_pictures_of_a_folder_sorted_by_path(tmp_path: Path) -> None:
    for name, level in (("b.png", 20), ("a/z.JPG", 10), ("c.webp", 30), ("d.jpeg", 40)):
        save(tmp_path, name, level)
    (tmp_path / "notes.txt").write_text("not a picture")
    found = samples.of_folder(tmp_path, PREPROCESSING, field="calibrate")
    assert (len(found), found.origin) == (4, "folder")
    pixels = [picture for batch in found.batches(3) for picture in batch]
    assert [batch.shape for batch in pixels] == [(8, 6, 3)] * 4
    assert [int(picture.mean().round()) for picture in pixels] == [10, 20, 30, 40]


def test_batches_have_at_most_as_many_rows_as_asked_for() -> None:
    found = samples.drawn(7, PREPROCESSING)
    assert [len(batch) for batch in found.batches(3)] == [3, 3, 1]


def test_some_of_them() -> None:
    found = samples.drawn(5, PREPROCESSING)
    some = found.some([4, 1])
    assert (len(some), some.origin) == (2, "drawn")
    assert np.array_equal(some[0], found[4])
    assert np.array_equal(some[1], found[1])


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="There is no folder") as caught:
        samples.of_folder(tmp_path / "none", PREPROCESSING, field="calibrate")
    assert caught.value.field == "calibrate"


def test_a_folder_without_a_picture(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.raises(InvalidInput, match="has no JPEG, PNG or WebP file") as caught:
        samples.of_folder(tmp_path, PREPROCESSING, field="calibrate")
    assert (caught.value.field, caught.value.given) == ("calibrate", "0")


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    save(tmp_path, "a.png", 1)
    (tmp_path / "b.png").write_bytes(b"no picture")
    found = samples.of_folder(tmp_path, PREPROCESSING, field="calibrate")
    with pytest.raises(InvalidInput, match=r"b\.png: The image's format is not accepted"):
        list(found.batches(8))


def test_drawn_pictures_are_the_same_for_the_same_seed_and_differ() -> None:
    first, again = samples.drawn(3, PREPROCESSING), samples.drawn(3, PREPROCESSING)
    assert all(np.array_equal(first[place], again[place]) for place in range(3))
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], samples.drawn(3, PREPROCESSING, seed=10)[0])
    assert first[0].dtype == np.uint8


def test_what_the_network_is_given() -> None:
    pixels = np.full((8, 6, 3), 255, np.uint8)
    pixels[0, 0] = 0
    given = samples.pixel_values([pixels, pixels], PREPROCESSING)
    assert given.shape == (2, 3, 8, 6)
    assert given.dtype == np.float32
    assert given[1, :, 1, 1].tolist() == [1.0, 3.0, 1.0]
    assert given[1, :, 0, 0].tolist() == [-1.0, -1.0, 0.0]
