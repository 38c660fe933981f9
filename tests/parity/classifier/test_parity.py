"""Our loader, preprocessing and passes against transformers run alone on the same files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import DEMO_CLASSIFIER
from services.classifier.model import Row
from services.classifier.network import Floats, Pooling, Reading, Traits
from tests.parity.classifier.models import (
    LARGE,
    SMALL,
    Reference,
    save_random_deit,
    save_random_vit,
    textures,
)
from tests.parity.classifier.pairs import (
    HIDDEN_TOLERANCE,
    LOGIT_TOLERANCE,
    Pair,
    loaded,
    relative,
)


@pytest.fixture(scope="module", params=["demo", "vit", "deit"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "demo":
        return DEMO_CLASSIFIER
    directory = tmp_path_factory.mktemp(request.param)
    save = save_random_vit if request.param == "vit" else save_random_deit
    save(directory, SMALL)
    return directory


@pytest.fixture(scope="module")
def pair(directory: Path) -> Pair:
    return Pair(loaded(directory), Reference(directory))


def check_logits(pair: Pair, pictures: list[Image.Image]) -> None:
    ours = pair.logits(*pair.rows(pictures))
    theirs = np.concatenate([pair.reference.run(picture).logits for picture in pictures])
    assert np.abs(theirs).max() > 0.1
    assert np.abs(ours - theirs).max() <= LOGIT_TOLERANCE


def check_every_layer(pair: Pair, pictures: list[Image.Image]) -> None:
    depth = pair.traits.depth
    readings = tuple(
        Reading(layer, pooling) for layer in range(depth + 1) for pooling in Pooling
    ) + tuple(Reading(depth, pooling, final_norm=True) for pooling in Pooling)
    rows = [Row(row.pixels, readings=readings) for row in pair.rows(pictures)]
    for answer, picture in zip(pair.step(*rows), pictures, strict=True):
        output = pair.reference.run(picture)
        last = pair.reference.normed(output.hidden_states[-1])
        for reading, vector in zip(readings, answer.vectors, strict=True):
            hidden = last if reading.final_norm else output.hidden_states[reading.layer]
            expected = pooled(hidden[0].numpy(), reading.pooling, pair.traits)
            assert relative(vector, expected) <= HIDDEN_TOLERANCE


def pooled(tokens: Floats, pooling: Pooling, traits: Traits) -> Floats:
    patches = tokens[-traits.rows * traits.columns :]
    if pooling is Pooling.MEAN:
        mean: Floats = patches.mean(axis=0)
        return mean
    grid: Floats = patches.reshape(traits.rows, traits.columns, -1)
    first: Floats = tokens[0]
    return first if pooling is Pooling.CLS else grid


def test_logits(pair: Pair) -> None:
    check_logits(pair, textures(6))


def test_embeddings_of_every_layer(pair: Pair) -> None:
    check_every_layer(pair, textures(3))


def test_a_pass_that_ends_early_reads_the_same(pair: Pair) -> None:
    (row,) = pair.rows(textures(1))
    everything = (Reading(0), Reading(1), Reading(pair.traits.depth))
    (full,) = pair.step(Row(row.pixels, readings=everything))
    (early,) = pair.step(Row(row.pixels, readings=everything[:2]))
    for ours, theirs in zip(early.vectors, full.vectors[:2], strict=True):
        assert relative(ours, theirs) <= HIDDEN_TOLERANCE


def test_an_item_alone_equals_the_item_in_a_mixed_batch(pair: Pair) -> None:
    rows = pair.rows(textures(7))
    rows[2] = Row(rows[2].pixels, head=True, readings=(Reading(1), Reading(0, Pooling.PATCH)))
    rows[5] = Row(rows[5].pixels, readings=(Reading(pair.traits.depth, Pooling.MEAN, True),))
    together = pair.step(*rows)
    for row, mixed in zip(rows, together, strict=True):
        (alone,) = pair.step(row)
        if row.head:
            assert alone.logits is not None
            assert mixed.logits is not None
            assert np.abs(alone.logits - mixed.logits).max() <= LOGIT_TOLERANCE
        for one, other in zip(alone.vectors, mixed.vectors, strict=True):
            assert relative(one, other) <= HIDDEN_TOLERANCE


def test_bfloat16_agrees(directory: Path, pair: Pair) -> None:
    """On the demo pair: the same best label wherever float32 is not near a tie."""
    half = Pair(loaded(directory, "bfloat16"), pair.reference)
    assert half.traits.precision == "bfloat16"
    rows = pair.rows(textures(24))
    ours, theirs = half.logits(*rows), pair.logits(*rows)
    spread = theirs.max() - theirs.min()
    assert np.abs(ours - theirs).max() <= 0.03 * spread
    best = np.sort(theirs, axis=1)
    clear = best[:, -1] - best[:, -2] > 0.06 * spread
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1))[clear].all()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_vit_large_at_full_size(tmp_path: Path) -> None:
    save_random_vit(tmp_path, LARGE)
    pair = Pair(loaded(tmp_path), Reference(tmp_path))
    assert (pair.traits.depth, pair.traits.hidden_size) == (24, 1024)
    assert pair.traits.parameters == 304_715_752
    pictures = textures(2)
    check_logits(pair, pictures)
    check_every_layer(pair, pictures[:1])
    rows = pair.rows(pictures)
    alone = np.concatenate([pair.logits(row) for row in rows])
    assert np.abs(alone - pair.logits(*rows)).max() <= LOGIT_TOLERANCE
