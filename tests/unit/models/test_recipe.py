"""The recipe: what it draws, what it says about it, and that its training can be resumed."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.recipe import captions, dataset, shapes, tokenizer, training
from models.recipe.folder import fill


def test_equal_seeds_draw_equal_pictures() -> None:
    images, masks = dataset.render(range(5))
    again, masks_again = dataset.render(range(5))
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(masks, masks_again)
    assert images.shape == (5, 64, 64, 3)
    assert not np.array_equal(images[0], images[1])


def test_every_label_is_drawn() -> None:
    drawn = {shapes.scene(seed).label for seed in range(2000)}
    assert drawn == set(range(len(shapes.LABELS)))


@pytest.mark.parametrize("shape", shapes.SHAPES)
def test_the_shape_covers_its_mask_alone(shape: str) -> None:
    content = next(s for s in map(shapes.scene, range(2000)) if s.shape == shape)
    picture, mask = shapes.draw(content)
    covered = np.asarray(mask.resize((64, 64))) > 250
    pixels = np.asarray(picture)[covered]
    assert 0.02 < covered.mean() < 0.6
    assert np.abs(np.median(pixels, axis=0) - content.fill).max() <= 2


def test_a_caption_names_nothing_but_its_scene() -> None:
    rng = random.Random(0)
    for content in map(shapes.scene, range(300)):
        words = set(captions.describe(content, rng).replace(",", "").split())
        assert words & set(shapes.SHAPES) <= {content.shape}
        assert words & set(shapes.COLOURS) <= {content.colour, content.ground}
        assert words & set(shapes.TEXTURES) <= {content.texture}


def test_prompts_ask_for_every_label_three_times() -> None:
    labels = [label for _, label in captions.prompts(0)]
    assert sorted(labels) == sorted(list(range(len(shapes.LABELS))) * 3)
    for text, label in captions.prompts(0):
        assert shapes.LABELS[label] in text


def test_learned_merges_make_each_word_one_piece() -> None:
    words = ["star", "start", "red", ","]
    merges = tokenizer.learn_merges(words)
    assert {first + second for first, second in merges} >= {"star</w>", "start</w>", "red</w>"}
    assert merges == tokenizer.learn_merges(words)


def test_the_rate_rises_holds_and_falls() -> None:
    rates = [training.cosine(step, 1000, warm=10, hold=0.5) for step in range(1000)]
    assert rates[0] < rates[5] < rates[10] == rates[499]
    assert rates[999] < 0.01


def test_a_resumed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole, stopped = _model(), _model()
    _run(whole, tmp_path / "whole.pt").train(_loss(whole))
    _run(stopped, tmp_path / "stopped.pt").train(_loss(stopped), stop_at=4)
    resumed = _model()
    run = _run(resumed, tmp_path / "stopped.pt")
    run.train(_loss(resumed))
    for expected, actual in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    assert run.seconds > 0


def test_training_a_finished_run_again_changes_nothing(tmp_path: Path) -> None:
    first, second = _model(), _model()
    _run(first, tmp_path / "run.pt").train(_loss(first))
    _run(second, tmp_path / "run.pt").train(_loss(second))
    for expected, actual in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def _model() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def _run(model: nn.Linear, checkpoint: Path) -> training.Run:
    return training.Run(
        name="test",
        checkpoint=checkpoint,
        modules={"model": model},
        optimizer=torch.optim.AdamW(model.parameters(), 0.1),
        steps=9,
        rate=lambda step: training.cosine(step, 9, warm=2),
        average=training.Average(model.parameters()),
        save_every=2,
    )


def _loss(model: nn.Linear) -> Callable[[int], Tensor]:
    def loss(step: int) -> Tensor:
        numbers, _ = training.randomness(1, step)
        output: Tensor = model(torch.randn(4, 3, generator=numbers))
        return (output**2).mean()

    return loss


def test_a_labelled_folder_has_as_many_of_each(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(shapes.LABELS)
    for path in tmp_path.glob("*/*.png"):
        seed = int(path.stem)
        assert seed >= dataset.FIRST_SEED["held_out"]
        assert path.parent.name == shapes.LABELS[shapes.scene(seed).label]
    assert len(list(tmp_path.glob("*/*.png"))) == len(shapes.LABELS)
