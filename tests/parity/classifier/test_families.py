"""Every family against transformers run alone on the same files: logits, layers, sizes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    BeitImageProcessorPil,
    BitImageProcessorPil,
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextImageProcessorPil,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    DeiTImageProcessorPil,
    Dinov2Config,
    Dinov2ForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTImageProcessorPil,
)

from services.classifier.backends import ChosenNetwork
from services.classifier.labels import Labels
from services.classifier.model import Row
from services.classifier.network import Floats, LayerShape, Options, Pooling, Reading
from services.core.artifacts import ArtifactStore
from services.core.errors import FailedPrecondition
from tests.parity.classifier.models import Reference, textures
from tests.parity.classifier.pairs import (
    HIDDEN_TOLERANCE,
    LOGIT_TOLERANCE,
    Pair,
    loaded,
    relative,
)
from tests.parity.classifier.zoo import SIDE, ZOO, Maker, save

WITHOUT_CLASS_TOKEN = {"swin", "swin absolute", "swinv2", "convnext", "convnextv2"}
# Their last norm comes after the mean, which transformers has as its pooler's output.
POOLED = {*WITHOUT_CLASS_TOKEN, "beit"}
TAKES_A_FLAG = {"vit", "vit_msn", "deit", "deit distilled", "swin absolute"}
LARGER = 48
QUICK = {("beit", LARGER), ("dinov2 registers", None), ("swin", LARGER), ("convnext", None)}
CONVERTED = [
    pytest.param(name, side, marks=() if (name, side) in QUICK else pytest.mark.slow)
    for name in ZOO
    for side in (None, LARGER)
]


@pytest.fixture(scope="module", params=ZOO)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def directory(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp(name.replace(" ", "_"))
    save(directory, ZOO[name])
    return directory


@pytest.fixture(scope="module")
def pair(directory: Path) -> Pair:
    return Pair(loaded(directory), Reference(directory))


def check_logits(pair: Pair, pictures: list[Image.Image]) -> None:
    ours = pair.logits(*pair.rows(pictures))
    theirs = np.concatenate([pair.reference.run(picture).logits for picture in pictures])
    assert np.ptp(theirs, axis=0).max() > 0.01
    assert np.abs(ours - theirs).max() <= LOGIT_TOLERANCE


def as_grid(hidden: torch.Tensor, shape: LayerShape) -> Floats:
    """The patches of one picture, [rows, columns, hidden], from any layout of transformers."""
    if hidden.ndim == 4:
        found: Floats = hidden[0].permute(1, 2, 0).numpy()
    else:
        patches = hidden[0, -shape.rows * shape.columns :]
        found = patches.reshape(shape.rows, shape.columns, -1).numpy()
    assert found.shape == (shape.rows, shape.columns, shape.hidden)
    return found


def expected(hidden: torch.Tensor, pooling: Pooling, shape: LayerShape) -> Floats:
    if pooling is Pooling.CLS:
        token: Floats = hidden[0, 0].numpy()
        return token
    grid = as_grid(hidden, shape)
    mean: Floats = grid.mean(axis=(0, 1))
    return mean if pooling is Pooling.MEAN else grid


def test_logits(pair: Pair) -> None:
    check_logits(pair, textures(4))


def test_poolings(name: str, pair: Pair) -> None:
    assert (Pooling.CLS in pair.traits.poolings) is (name not in WITHOUT_CLASS_TOKEN)


def test_every_layer(pair: Pair) -> None:
    traits = pair.traits
    readings = tuple(
        Reading(layer, pooling) for layer in range(traits.depth + 1) for pooling in traits.poolings
    )
    (picture,) = textures(1, seed=3)
    ((pixels, *_),) = pair.rows([picture])
    (answer,) = pair.step(Row(pixels, readings=readings))
    output = pair.reference.run(picture)
    assert len(output.hidden_states) == traits.depth + 1
    for reading, vector in zip(readings, answer.vectors, strict=True):
        theirs = expected(
            output.hidden_states[reading.layer], reading.pooling, traits.shape(reading.layer)
        )
        assert vector.shape == theirs.shape
        assert relative(vector, theirs) <= HIDDEN_TOLERANCE


def test_the_last_layer_normed(name: str, pair: Pair) -> None:
    """What the head reads, as transformers has it."""
    traits = pair.traits
    (picture,) = textures(1, seed=4)
    ((pixels, *_),) = pair.rows([picture])
    last = {one: Reading(traits.depth, one, final_norm=True) for one in traits.poolings}
    (answer,) = pair.step(Row(pixels, readings=tuple(last.values())))
    vectors = dict(zip(last, answer.vectors, strict=True))
    output = pair.reference.base(picture)
    shape = traits.shape(traits.depth)
    if name in POOLED:
        assert relative(vectors[Pooling.MEAN], output.pooler_output[0].numpy()) <= HIDDEN_TOLERANCE
    else:
        for pooling, vector in vectors.items():
            theirs = expected(output.last_hidden_state, pooling, shape)
            assert relative(vector, theirs) <= HIDDEN_TOLERANCE


def test_an_item_alone_equals_the_item_in_a_mixed_batch(pair: Pair) -> None:
    traits = pair.traits
    rows = pair.rows(textures(5))
    rows[1] = Row(rows[1].pixels, head=True, readings=(Reading(1, Pooling.MEAN),))
    rows[3] = Row(rows[3].pixels, readings=(Reading(traits.depth, Pooling.PATCH, True),))
    for row, mixed in zip(rows, pair.step(*rows), strict=True):
        (alone,) = pair.step(row)
        if alone.logits is not None:
            assert mixed.logits is not None
            assert np.abs(alone.logits - mixed.logits).max() <= LOGIT_TOLERANCE
        for one, other in zip(alone.vectors, mixed.vectors, strict=True):
            assert relative(one, other) <= HIDDEN_TOLERANCE


def test_a_pass_that_ends_early_reads_the_same(pair: Pair) -> None:
    (row,) = pair.rows(textures(1))
    first = (Reading(0, Pooling.MEAN), Reading(1, Pooling.PATCH))
    (early,) = pair.step(Row(row.pixels, readings=first))
    (full,) = pair.step(Row(row.pixels, head=True, readings=first))
    for ours, theirs in zip(early.vectors, full.vectors, strict=True):
        assert relative(ours, theirs) <= HIDDEN_TOLERANCE


def test_bfloat16_agrees(directory: Path, pair: Pair) -> None:
    half = Pair(loaded(directory, "bfloat16"), pair.reference)
    assert half.traits.precision == "bfloat16"
    rows = pair.rows(textures(6))
    ours, theirs = half.logits(*rows), pair.logits(*rows)
    assert np.abs(ours - theirs).max() <= 0.05 * (theirs.max() - theirs.min())


def larger(reference: Reference, image: Image.Image) -> Any:
    """The model's own processor and network, told of the larger size."""
    scaled = {"height": LARGER, "width": LARGER}
    size: dict[str, int] = dict(reference.processor.size)
    sizes = {key: value * LARGER // SIDE for key, value in size.items() if value}
    options: dict[str, Any] = {"size": sizes}
    if getattr(reference.processor, "do_center_crop", None):
        options["crop_size"] = scaled
    batch = reference.processor(image, return_tensors="pt", **options)
    assert batch.pixel_values.shape[-2:] == (LARGER, LARGER)
    return batch


@torch.no_grad()
def test_another_size(name: str, directory: Path) -> None:
    """The same as transformers with interpolated positions, and as many patches as fit."""
    pair = Pair(loaded(directory, image_size=LARGER), Reference(directory))
    size = pair.traits.preprocessing.input
    assert (size.height, size.width) == (LARGER, LARGER)
    pictures = textures(3, seed=8)
    ours = pair.logits(*pair.rows(pictures))
    flag = {"interpolate_pos_encoding": True} if name in TAKES_A_FLAG else {}
    batches = [larger(pair.reference, picture) for picture in pictures]
    theirs = np.concatenate([pair.reference.model(**one, **flag).logits for one in batches])
    assert np.abs(ours - theirs).max() <= LOGIT_TOLERANCE


def test_a_size_that_is_no_multiple_of_a_patch(pair: Pair, directory: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"multiple of .*, not 47"):
        loaded(directory, image_size=47)


def test_pictures_smaller_than_a_window(tmp_path: Path) -> None:
    """At 14 the second stage has 4x4 patches, one window; at 12 it has 3x3."""
    save(tmp_path, ZOO["swin"])
    traits = Pair(loaded(tmp_path, image_size=14), Reference(tmp_path)).traits
    assert (traits.shape(0), traits.shape(2)) == (LayerShape(7, 7, 16), LayerShape(4, 4, 32))
    with pytest.raises(FailedPrecondition, match="3x3 patches left, and windows of 4x4"):
        loaded(tmp_path, image_size=12)


def test_a_vit_whose_processor_makes_another_size_says_what_to_set(tmp_path: Path) -> None:
    save(
        tmp_path, lambda: (ZOO["vit"]()[0], ViTImageProcessorPil(size={"height": 48, "width": 48}))
    )
    with pytest.raises(FailedPrecondition, match="image_size"):
        loaded(tmp_path)


@pytest.mark.parametrize("name", ["swin", "dinov2"])
def test_a_multi_label_head(name: str, tmp_path: Path) -> None:
    """Each label has a probability of its own, as ``transformers.pipeline`` gives it."""
    save(tmp_path, ZOO[name])
    config = json.loads((tmp_path / "config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (tmp_path / "config.json").write_text(json.dumps(config))
    pair = Pair(loaded(tmp_path), Reference(tmp_path))
    assert pair.traits.multi_label
    (picture,) = textures(1)
    (logits,) = pair.logits(*pair.rows([picture]))
    ours = Labels(pair.traits.labels, multi_label=True).best(logits, top_k=11)
    theirs = torch.sigmoid(pair.reference.run(picture).logits[0])
    assert {one.index: one.score for one in ours} == pytest.approx(
        dict(enumerate(theirs.tolist())), abs=1e-5
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(tmp_path_factory.mktemp("artifacts"))


@pytest.mark.parametrize(("kind", "side"), CONVERTED)
def test_openvino_answers_the_same(
    kind: str, side: int | None, tmp_path: Path, store: ArtifactStore
) -> None:
    """The default backend of a processor: every layer, and batches of other sizes than traced."""
    save(tmp_path, ZOO[kind])
    options = Options("cpu", "float32", 1, image_size=side)
    ours = ChosenNetwork(replace(options, backend="openvino"), store)
    theirs = ChosenNetwork(replace(options, backend="pytorch"), store)
    traits, expected = ours.load(tmp_path), theirs.load(tmp_path)
    assert (traits.backend, traits.poolings) == ("openvino", expected.poolings)
    assert traits.shapes == expected.shapes
    readings = {
        Reading(layer, pooling): [1, 2]
        for layer in range(traits.depth + 1)
        for pooling in traits.poolings
    }
    for rows in (3, 5):
        pixels = [traits.preprocessing.prepare(picture) for picture in textures(rows)]
        one = ours.run(pixels, head=True, readings=readings)
        other = theirs.run(pixels, head=True, readings=readings)
        assert one.logits is not None
        assert other.logits is not None
        assert np.abs(one.logits - other.logits).max() <= LOGIT_TOLERANCE
        for reading in readings:
            assert relative(one.vectors[reading], other.vectors[reading]) <= HIDDEN_TOLERANCE


FULL: dict[str, Maker] = {
    "deit distilled, base": lambda: (
        DeiTForImageClassificationWithTeacher(DeiTConfig(num_labels=1000)),
        DeiTImageProcessorPil(),
    ),
    "beit, base": lambda: (
        BeitForImageClassification(BeitConfig(num_labels=1000, use_relative_position_bias=True)),
        BeitImageProcessorPil(),
    ),
    "dinov2, base at 224 of 518": lambda: (
        Dinov2ForImageClassification(Dinov2Config(num_labels=1000, image_size=518)),
        BitImageProcessorPil(size={"shortest_edge": 256}, crop_size=224),
    ),
    "swin, tiny": lambda: (
        SwinForImageClassification(SwinConfig(num_labels=1000)),
        ViTImageProcessorPil(),
    ),
    "convnext, tiny": lambda: (
        ConvNextForImageClassification(ConvNextConfig(num_labels=1000)),
        ConvNextImageProcessorPil(size={"shortest_edge": 224}),
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("full", FULL)
def test_at_full_size(full: str, tmp_path: Path) -> None:
    save(tmp_path, FULL[full])
    pair = Pair(loaded(tmp_path), Reference(tmp_path))
    pictures = textures(2)
    ours = pair.logits(*pair.rows(pictures))
    theirs = np.concatenate([pair.reference.run(picture).logits for picture in pictures])
    assert relative(ours, theirs) <= LOGIT_TOLERANCE
    test_every_layer(pair)
