"""Labels, vectors and explanations from the device: those of the processor."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from models import DEMO_CLASSIFIER
from services.classifier.explanation import Method
from services.classifier.network import (
    Floats,
    Options,
    Pooling,
    Precision,
    ProviderName,
    Reading,
)
from services.classifier.preprocessing import Pixels
from services.classifier.pytorch import TorchNetwork
from services.classifier.relevance import TorchExplainer
from services.core.artifacts import ArtifactStore
from tests.parity.classifier.models import SMALL, save_random_vit, textures

SPREAD_TOLERANCE: Mapping[Precision, float] = {"float32": 3e-4, "bfloat16": 0.03}
"""Of the span of all logits: between a GPU's float32 and a processor's, and as elsewhere of
bfloat16.
"""
ROUNDED_TOLERANCE = 0.005
"""The same of ONNX Runtime on a GPU, which multiplies float32 numbers of 10 bits (TF32)."""
HIDDEN_TOLERANCE = 1e-4
RELEVANCE_TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=["demo", "vit"])
def directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "demo":
        return DEMO_CLASSIFIER
    directory = tmp_path_factory.mktemp("vit")
    save_random_vit(directory, SMALL)
    return directory


class Loaded:
    def __init__(self, directory: Path, device: torch.device, precision: Precision) -> None:
        self.network = TorchNetwork(Options(str(device), precision, backend="pytorch"))
        self.traits = self.network.load(directory)

    def pixels(self, count: int) -> list[Pixels]:
        return [self.traits.preprocessing.prepare(picture) for picture in textures(count)]

    def logits(self, pixels: Sequence[Pixels]) -> Floats:
        logits = self.network.run(pixels, head=True, readings={}).logits
        assert logits is not None
        return logits


@pytest.fixture(scope="module")
def reference(directory: Path) -> Loaded:
    return Loaded(directory, torch.device("cpu"), "float32")


def assert_near(ours: Floats, theirs: Floats, tolerance: float) -> None:
    spread = theirs.max() - theirs.min()
    assert spread > 0.1
    assert np.abs(ours - theirs).max() <= tolerance * spread


@pytest.mark.parametrize("precision", SPREAD_TOLERANCE)
def test_logits_are_the_processors(
    directory: Path, device: torch.device, reference: Loaded, precision: Precision
) -> None:
    ours = Loaded(directory, device, precision)
    assert (ours.traits.device, ours.traits.precision) == (str(device), precision)
    pixels = reference.pixels(24)
    found, expected = ours.logits(pixels), reference.logits(pixels)
    tolerance = SPREAD_TOLERANCE[precision]
    assert_near(found, expected, tolerance)
    best = np.sort(expected, axis=1)
    clear = best[:, -1] - best[:, -2] > 2 * tolerance * (expected.max() - expected.min())
    assert (found.argmax(axis=1) == expected.argmax(axis=1))[clear].all()


def test_vectors_of_every_layer_are_the_processors(
    directory: Path, device: torch.device, reference: Loaded
) -> None:
    ours = Loaded(directory, device, "float32")
    depth = reference.traits.depth
    readings = {
        **{Reading(layer, Pooling.MEAN): [0, 2] for layer in range(depth + 1)},
        Reading(depth, final_norm=True): [0, 1, 2],
    }
    pixels = reference.pixels(3)
    found, expected = (
        each.network.run(pixels, head=False, readings=readings).vectors
        for each in (ours, reference)
    )
    for reading, theirs in expected.items():
        assert found[reading].dtype == np.float32
        assert np.abs(found[reading] - theirs).max() <= HIDDEN_TOLERANCE * np.abs(theirs).max()


@pytest.mark.parametrize("precision", SPREAD_TOLERANCE)
def test_a_picture_alone_is_the_one_in_a_batch(
    directory: Path, device: torch.device, precision: Precision
) -> None:
    ours = Loaded(directory, device, precision)
    pixels = ours.pixels(7)
    together = ours.logits(pixels)
    alone = np.concatenate([ours.logits([each]) for each in pixels])
    assert_near(alone, together, SPREAD_TOLERANCE[precision])


@pytest.mark.parametrize("method", Method)
def test_explanations_are_the_processors(
    directory: Path, device: torch.device, reference: Loaded, method: Method
) -> None:
    pixels = reference.pixels(3)
    explained = []
    for where in (str(device), "cpu"):
        explainer = TorchExplainer(where)
        explainer.load(directory, reference.traits.preprocessing)
        explained.append(explainer.explain(pixels, method, [(), (1, 2), ()]))
        explainer.close()
    ours, theirs = explained
    assert_near(ours.logits, theirs.logits, SPREAD_TOLERANCE["float32"])
    assert np.abs(ours.relevance - theirs.relevance).max() <= RELEVANCE_TOLERANCE


def test_a_model_that_is_closed_takes_no_memory(directory: Path, gpu: torch.device) -> None:
    gc.collect()
    before = torch.cuda.memory_allocated(gpu)
    ours = Loaded(directory, gpu, "bfloat16")
    ours.logits(ours.pixels(2))
    assert torch.cuda.memory_allocated(gpu) >= before + ours.traits.bytes_in_memory // 2
    ours.network.close()
    del ours
    gc.collect()
    # What cuBLAS keeps for its products is the process's.
    assert torch.cuda.memory_allocated(gpu) <= before + 64 * 2**20


@pytest.mark.parametrize(
    "provider",
    [
        pytest.param("cpu", marks=pytest.mark.slow),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ],
)
def test_onnx_runtime_answers_as_pytorch_does(
    directory: Path, reference: Loaded, provider: ProviderName, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    from services.classifier.backends import ChosenNetwork
    from services.classifier.onnxruntime import NAMES

    if NAMES[provider] not in onnxruntime.get_available_providers():
        pytest.skip(f"this ONNX Runtime has no {NAMES[provider]}: onnxruntime-gpu has")
    device = "cpu" if provider == "cpu" else "cuda:0"
    options = Options(device, "float32", backend="onnxruntime", providers=(provider,))
    network = ChosenNetwork(options, ArtifactStore(tmp_path))
    traits = network.load(directory)
    assert traits.extra["providers"].startswith(NAMES[provider])
    pixels = reference.pixels(7)
    logits = network.run(pixels, head=True, readings={}).logits
    network.close()
    assert logits is not None
    tolerance = SPREAD_TOLERANCE["float32"] if provider == "cpu" else ROUNDED_TOLERANCE
    assert_near(logits, reference.logits(pixels), tolerance)
