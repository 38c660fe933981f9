"""Explanations against transformers' own attention and gradients, followed in plain NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import AutoModelForImageClassification

from models import DEMO_CLASSIFIER
from services.classifier.explanation import Explained, Method
from services.classifier.preprocessing import Pixels, read_preprocessing
from services.classifier.relevance import TorchExplainer, rolled, weighed
from services.core.errors import FailedPrecondition
from tests.parity.classifier.models import SMALL, save_random_vit, textures
from tests.parity.classifier.zoo import ZOO, save

TOLERANCE = 1e-6

Matrix = npt.NDArray[np.float64]


# What the head reads: weights of the first tokens, and of the mean of the patches.
READS: dict[str, tuple[list[float], float]] = {
    "demo": ([1.0], 0.0),
    "vit": ([1.0], 0.0),
    "vit_msn": ([1.0], 0.0),
    "deit": ([1.0], 0.0),
    "deit distilled": ([0.5, 0.5], 0.0),
    "beit": ([], 1.0),
    "beit shared": ([1.0], 0.0),
    "dinov2": ([0.5], 0.5),
    "dinov2 registers": ([0.5], 0.5),
}
LARGER_BY = 16
TAKES_A_FLAG = {"demo", "vit", "vit_msn", "deit", "deit distilled"}


@pytest.fixture(scope="module", params=READS)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def directory(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if name == "demo":
        return DEMO_CLASSIFIER
    directory = tmp_path_factory.mktemp("model")
    save(directory, ZOO[name])
    return directory


@pytest.fixture(scope="module")
def explainer(directory: Path) -> TorchExplainer:
    explainer = TorchExplainer("cpu")
    explainer.load(directory, read_preprocessing(directory))
    return explainer


@pytest.fixture(scope="module")
def pictures(directory: Path) -> list[Pixels]:
    preprocessing = read_preprocessing(directory)
    return [preprocessing.prepare(picture) for picture in textures(4)]


class Reference:
    """transformers alone: attention of every layer and, for one label, its gradients."""

    def __init__(self, directory: Path) -> None:
        self._preprocessing = read_preprocessing(directory)
        self._model: Any = AutoModelForImageClassification.from_pretrained(
            directory, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    def run(
        self, pixels: Pixels, target: int | None = None, **options: bool
    ) -> tuple[Matrix, list[Matrix], list[Matrix]]:
        """Logits, and [heads, tokens, tokens] a layer: attention, and its gradients."""
        given = self._preprocessing
        inputs = (pixels * given.scale - np.array(given.mean)) / np.array(given.std)
        batch = torch.from_numpy(inputs.astype(np.float32)).permute(2, 0, 1)[None]
        output = self._model(batch, output_attentions=True, **options)
        label = int(output.logits[0].argmax()) if target is None else target
        slopes = torch.autograd.grad(output.logits[0, label], output.attentions)
        return (
            output.logits[0].detach().double().numpy(),
            [layer[0].detach().double().numpy() for layer in output.attentions],
            [slope[0].double().numpy() for slope in slopes],
        )


@pytest.fixture(scope="module")
def reference(directory: Path) -> Reference:
    return Reference(directory)


def rollout(layers: list[Matrix]) -> Matrix:
    """Abnar and Zuidema's: whole matrices, first layer to last, rows made to add up to 1."""
    tokens = layers[0].shape[-1]
    flow: Matrix = np.eye(tokens)
    for layer in layers:
        mixed = layer.mean(axis=0) + np.eye(tokens)
        flow = (mixed / mixed.sum(axis=1, keepdims=True)) @ flow
    return flow


def relevance(layers: list[Matrix], slopes: list[Matrix]) -> Matrix:
    """Chefer, Gur and Wolf's (their equations 5 and 6)."""
    flow: Matrix = np.eye(layers[0].shape[-1])
    for layer, slope in zip(layers, slopes, strict=True):
        flow = flow + np.maximum(layer * slope, 0.0).mean(axis=0) @ flow
    return flow


def read(flow: Matrix, shape: tuple[int, int], name: str, *, less_start: bool) -> Matrix:
    """What the head reads of ``flow``, in shares of the patches."""
    count = shape[0] * shape[1]
    first, mean = READS[name]
    reader = np.zeros(len(flow))
    reader[: len(first)] = first
    reader[-count:] += mean / count
    found = reader @ flow - (reader if less_start else 0.0)
    patches = found[-count:].reshape(shape)
    shares: Matrix = patches / patches.sum()
    return shares


def explained(
    explainer: TorchExplainer, pixels: list[Pixels], method: Method, *among: tuple[int, ...]
) -> Explained:
    return explainer.explain(pixels, method, among or [()] * len(pixels))


def test_rollout(
    name: str, explainer: TorchExplainer, reference: Reference, pictures: list[Pixels]
) -> None:
    ours = explained(explainer, pictures, Method.ROLLOUT)
    for pixels, logits, found in zip(pictures, ours.logits, ours.relevance, strict=True):
        theirs, layers, _ = reference.run(pixels)
        expected = read(rollout(layers), found.shape, name, less_start=False)
        assert np.abs(logits - theirs).max() <= 1e-4
        assert np.ptp(expected) > 100 * TOLERANCE
        assert np.abs(found - expected).max() <= TOLERANCE


def test_gradient(
    name: str, explainer: TorchExplainer, reference: Reference, pictures: list[Pixels]
) -> None:
    ours = explained(explainer, pictures, Method.GRADIENT)
    for pixels, logits, found in zip(pictures, ours.logits, ours.relevance, strict=True):
        theirs, layers, slopes = reference.run(pixels)
        expected = read(relevance(layers, slopes), found.shape, name, less_start=True)
        assert np.abs(logits - theirs).max() <= 1e-4
        assert np.ptp(expected) > 1000 * TOLERANCE
        assert np.abs(found - expected).max() <= 10 * TOLERANCE


def test_the_label_asked_for(
    name: str, explainer: TorchExplainer, reference: Reference, pictures: list[Pixels]
) -> None:
    """One output named, or the likeliest of several."""
    logits = explained(explainer, pictures[:1], Method.ROLLOUT).logits[0]
    worst, *_, second, best = (int(index) for index in logits.argsort())
    asked = [(worst,), (worst, second), (second, best)]
    ours = explained(explainer, pictures[:1] * 3, Method.GRADIENT, *asked)
    for found, target in zip(ours.relevance, (worst, second, best), strict=True):
        _, layers, slopes = reference.run(pictures[0], target)
        expected = read(relevance(layers, slopes), found.shape, name, less_start=True)
        assert np.abs(found - expected).max() <= 10 * TOLERANCE


def test_another_size(name: str, directory: Path, reference: Reference) -> None:
    """With positions interpolated, as transformers does it where it is told to."""
    preprocessing = read_preprocessing(directory)
    larger = preprocessing.at(preprocessing.input.height + LARGER_BY)
    explainer = TorchExplainer("cpu")
    explainer.load(directory, larger)
    pixels = larger.prepare(textures(1, seed=5)[0])
    options = {"interpolate_pos_encoding": True} if name in TAKES_A_FLAG else {}
    logits, layers, slopes = reference.run(pixels, **options)
    for method, flow in (
        (Method.ROLLOUT, rollout(layers)),
        (Method.GRADIENT, relevance(layers, slopes)),
    ):
        ours = explained(explainer, [pixels], method)
        found = ours.relevance[0]
        assert len(found) == larger.input.height // 8
        expected = read(flow, found.shape, name, less_start=method is Method.GRADIENT)
        assert np.abs(ours.logits[0] - logits).max() <= 1e-4
        assert np.abs(found - expected).max() <= 10 * TOLERANCE


def test_what_inference_mode_left_in_a_library_s_cache_stands_in_no_way(tmp_path: Path) -> None:
    save(tmp_path, ZOO["beit"])
    preprocessing = read_preprocessing(tmp_path)
    # A size that no other test has.
    unseen = preprocessing.at(preprocessing.input.height + 5 * LARGER_BY)
    pixels = unseen.prepare(textures(1)[0])
    model: Any = AutoModelForImageClassification.from_pretrained(tmp_path, dtype=torch.float32)
    with torch.inference_mode():
        model(torch.zeros(1, 3, unseen.input.height, unseen.input.width))
    explainer = TorchExplainer("cpu")
    explainer.load(tmp_path, unseen)
    found = explained(explainer, [pixels], Method.GRADIENT)
    assert found.relevance.sum() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("method", Method)
def test_a_picture_alone_equals_the_picture_in_a_batch(
    explainer: TorchExplainer, pictures: list[Pixels], method: Method
) -> None:
    together = explained(explainer, pictures, method)
    assert together.relevance.dtype == np.float32
    assert together.relevance.min() >= 0.0
    assert np.abs(together.relevance.sum(axis=(1, 2)) - 1.0).max() <= TOLERANCE
    for index, pixels in enumerate(pictures):
        alone = explained(explainer, [pixels], method)
        assert np.abs(alone.logits[0] - together.logits[index]).max() <= 1e-4
        assert np.abs(alone.relevance[0] - together.relevance[index]).max() <= 10 * TOLERANCE


def test_one_layer_by_hand() -> None:
    flow = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    attention = torch.tensor([[[[0.25, 0.75], [1.0, 0.0]], [[0.75, 0.25], [0.5, 0.5]]]])
    slope = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[-2.0, 4.0], [0.0, 0.0]]]])
    assert rolled(flow, attention.mean(dim=1)).tolist() == [[0.75, 0.25]]
    # max(dA * A, 0) of the class token: [0.25, 1.5] and [0, 1]; their mean is [0.125, 1.25].
    assert weighed(flow, attention, slope).tolist() == [[1.125, 1.25]]


def test_where_nothing_speaks_for_a_label_all_patches_are_equal(tmp_path: Path) -> None:
    """A head that reads nothing gives every logit a gradient of zero."""
    save_random_vit(tmp_path, SMALL)
    model: Any = AutoModelForImageClassification.from_pretrained(tmp_path)
    torch.nn.init.zeros_(model.classifier.weight)
    model.save_pretrained(tmp_path)
    explainer = TorchExplainer("cpu")
    preprocessing = read_preprocessing(tmp_path)
    explainer.load(tmp_path, preprocessing)
    picture = preprocessing.prepare(textures(1)[0])
    found = explained(explainer, [picture], Method.GRADIENT).relevance[0]
    assert np.array_equal(found, np.full((4, 4), 1 / 16, np.float32))


def test_a_second_load_does_nothing(tmp_path: Path) -> None:
    explainer = TorchExplainer("cpu")
    preprocessing = read_preprocessing(DEMO_CLASSIFIER)
    explainer.load(DEMO_CLASSIFIER, preprocessing)
    explainer.load(tmp_path, preprocessing)
    with pytest.raises(FailedPrecondition):
        TorchExplainer("cpu").load(tmp_path, preprocessing)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "The model has no config.json that names its type."),
        ("{", "The model has no config.json that names its type."),
        ("[]", "The model has no config.json that names its type."),
        ('{"model_type": "vit"}', "The model has no model.safetensors."),
        ('{"model_type": "bert"}', "Models of type 'bert' are not served"),
    ],
)
def test_files_that_are_no_model(tmp_path: Path, text: str | None, told: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(FailedPrecondition) as caught:
        TorchExplainer("cpu").load(tmp_path, read_preprocessing(DEMO_CLASSIFIER))
    assert caught.value.message.startswith(told)


@pytest.mark.parametrize("name", ["swin", "swinv2", "convnext", "convnextv2"])
def test_a_model_without_attention_over_the_picture(tmp_path: Path, name: str) -> None:
    save(tmp_path, ZOO[name])
    with pytest.raises(FailedPrecondition) as caught:
        TorchExplainer("cpu").load(tmp_path, read_preprocessing(tmp_path))
    assert caught.value.message == (
        f"Models of type {name} cannot be explained: relevance follows attention over the whole "
        "picture, which these have: vit, vit_msn, deit, beit, dinov2, dinov2_with_registers."
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_vit_large_at_full_size(tmp_path: Path) -> None:
    from tests.parity.classifier.models import LARGE

    save_random_vit(tmp_path, LARGE)
    explainer = TorchExplainer("cpu")
    preprocessing = read_preprocessing(tmp_path)
    explainer.load(tmp_path, preprocessing)
    pixels = preprocessing.prepare(textures(1)[0])
    _, layers, slopes = Reference(tmp_path).run(pixels)
    for method, flow in (
        (Method.ROLLOUT, rollout(layers)),
        (Method.GRADIENT, relevance(layers, slopes)),
    ):
        found = explained(explainer, [pixels], method).relevance[0]
        assert found.shape == (24, 24)
        assert (
            np.abs(found - read(flow, (24, 24), "vit", less_start=method is Method.GRADIENT)).max()
            <= 10 * TOLERANCE
        )
