"""The CLIP-like judge against transformers, on a small model in the layout of published ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel

from ranker.pictures.judges.clip import ClipModel, open_clip
from services.core.errors import FailedPrecondition, InvalidInput
from tests.clips import PREPARATION, write_clip

TEXTS = ["a red star", "a big white ring on a blue striped background"]
SIZES = [(32, 32), (64, 64), (50, 90), (91, 37)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models") / "small-clip"


@pytest.fixture(scope="module")
def theirs(directory: Path) -> CLIPModel:
    return write_clip(directory)


@pytest.fixture(scope="module")
def ours(directory: Path, theirs: CLIPModel) -> ClipModel:
    return open_clip(directory)


def unit(features: Any) -> np.ndarray:
    vector: np.ndarray = getattr(features, "pooler_output", features).numpy()[0]
    return np.asarray(vector / np.linalg.norm(vector))


@torch.no_grad()
def features_of_text(model: CLIPModel, directory: Path, text: str) -> np.ndarray:
    tokens = AutoTokenizer.from_pretrained(directory)([text], return_tensors="pt")
    return unit(model.get_text_features(**tokens))


@torch.no_grad()
def features_of_picture(model: CLIPModel, pixels: np.ndarray) -> np.ndarray:
    processor = CLIPImageProcessorPil(**PREPARATION)
    values = processor(images=Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    return unit(model.get_image_features(pixel_values=values))


def picture(size: tuple[int, int]) -> np.ndarray:
    draw = np.random.default_rng(size[0])
    return draw.integers(0, 256, (*size, 3), dtype=np.uint8)


def test_texts(ours: ClipModel, theirs: CLIPModel, directory: Path) -> None:
    for text in TEXTS:
        wanted = features_of_text(theirs, directory, text)
        np.testing.assert_allclose(ours.read(text), wanted, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_pictures_of_any_size(ours: ClipModel, theirs: CLIPModel, size: tuple[int, int]) -> None:
    pixels = picture(size)
    np.testing.assert_allclose(ours.embed(pixels), features_of_picture(theirs, pixels), atol=1e-5)


def test_similarities(ours: ClipModel, theirs: CLIPModel, directory: Path) -> None:
    pixels = picture((40, 60))
    for text in TEXTS:
        wanted = features_of_text(theirs, directory, text) @ features_of_picture(theirs, pixels)
        assert float(ours.read(text) @ ours.embed(pixels)) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(("words", "fits"), [(22, True), (23, False)])
def test_a_text_has_to_fit(ours: ClipModel, words: int, fits: bool) -> None:
    text = " ".join(["red"] * words)  # one token each, and two marks around them; 24 positions
    if fits:
        assert ours.read(text).shape == (16,)
        return
    with pytest.raises(InvalidInput) as caught:
        ours.read(text, field="judges[0].text_image.text")
    assert (caught.value.field, caught.value.limit) == ("judges[0].text_image.text", "24 tokens")


def copied(directory: Path, target: Path, **changes: Any) -> Path:
    """The model with another ``preprocessor_config.json``."""
    shutil.copytree(directory, target)
    (target / "preprocessor_config.json").write_text(json.dumps({**PREPARATION, **changes}))
    return target


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"size": {"height": 32, "width": 32}, "do_center_crop": False}, (50, 90)),
        ({"resample": 2}, (64, 40)),
        ({"do_normalize": False}, (32, 32)),
        ({"crop_size": 32, "size": {"shortest_edge": 40}}, (64, 40)),
    ],
)
def test_other_preparations(
    ours: ClipModel,
    theirs: CLIPModel,
    directory: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    size: tuple[int, int],
) -> None:
    other = open_clip(copied(directory, tmp_path / "other", **changes))
    pixels = picture(size)
    processor = CLIPImageProcessorPil(**{**PREPARATION, **changes})
    values = processor(images=Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        wanted = unit(theirs.get_image_features(pixel_values=values))
    np.testing.assert_allclose(other.embed(pixels), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"do_pad": True}, "asks for do_pad"),
        ({"size": {"shortest_edge": 0}}, "cannot be used"),
        ({"size": {"longest_edge": 5}}, "cannot be used"),
        ({"image_mean": [0.5]}, "cannot be used"),
        ({"resample": 99}, "cannot be used"),
    ],
)
def test_preparations_that_are_not_done_here(
    ours: ClipModel, directory: Path, tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(FailedPrecondition, match=told):
        open_clip(copied(directory, tmp_path / "odd", **changes))


@pytest.mark.parametrize(
    "missing",
    [
        "tokenizer.json",
        "config.json",
        "preprocessor_config.json",
        "onnx/text_model.onnx",
        "onnx/vision_model.onnx",
    ],
)
def test_what_is_missing_is_named(
    ours: ClipModel, directory: Path, tmp_path: Path, missing: str
) -> None:
    part = copied(directory, tmp_path / "part")
    (part / missing).unlink()
    with pytest.raises(FailedPrecondition, match=Path(missing).name):
        open_clip(part)


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="no directory nowhere"):
        open_clip(tmp_path / "nowhere")


def test_networks_that_were_mixed_up(ours: ClipModel, directory: Path, tmp_path: Path) -> None:
    mixed = copied(directory, tmp_path / "mixed")
    shutil.copy(mixed / "onnx" / "text_model.onnx", mixed / "onnx" / "vision_model.onnx")
    with pytest.raises(FailedPrecondition, match=r"vision_model\.onnx reads input_ids"):
        open_clip(mixed)
