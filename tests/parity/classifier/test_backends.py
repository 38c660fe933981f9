"""Every backend against PyTorch in float32: the same answers of the same files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from models import DEMO_CLASSIFIER
from services import bfloat16
from services.classifier.backends import PACKAGES, Backend, ChosenNetwork
from services.classifier.network import (
    Floats,
    Network,
    Options,
    Pooling,
    Precision,
    Reading,
    Traits,
)
from services.classifier.preprocessing import Pixels
from services.core.artifacts import KEY_FILE, ArtifactStore
from services.core.errors import FailedPrecondition
from tests.parity.classifier.models import SMALL, save_random_deit, save_random_vit, textures
from tests.parity.classifier.zoo import ZOO, save

LOGIT_TOLERANCE = 1e-4
HIDDEN_TOLERANCE = 1e-5
MODELS = ("demo", "vit", "deit")
QUICK = {
    Backend.OPENVINO: MODELS,
    Backend.ONNXRUNTIME: ("vit",),
    Backend.KERAS_JAX: ("deit",),
}
PAIRS = [
    pytest.param(
        (backend, model),
        id=f"{backend.value}-{model}",
        marks=() if model in quick else pytest.mark.slow,
    )
    for backend, quick in QUICK.items()
    for model in MODELS
]


SLOW_ONNXRUNTIME = pytest.param(Backend.ONNXRUNTIME, marks=pytest.mark.slow)


@dataclass(frozen=True)
class Loaded:
    network: Network
    traits: Traits

    def logits(self, pixels: Sequence[Pixels]) -> Floats:
        logits = self.network.run(pixels, head=True, readings={}).logits
        assert logits is not None
        return logits

    def vectors(
        self, pixels: Sequence[Pixels], readings: Mapping[Reading, Sequence[int]]
    ) -> Mapping[Reading, Floats]:
        return self.network.run(pixels, head=False, readings=readings).vectors


@dataclass(frozen=True)
class Pair:
    backend: Backend
    ours: Loaded
    reference: Loaded

    def pixels(self, count: int, seed: int = 0) -> list[Pixels]:
        prepare = self.reference.traits.preprocessing.prepare
        return [prepare(picture) for picture in textures(count, seed)]


def loaded(
    backend: Backend, directory: Path, store: ArtifactStore, precision: Precision = "float32"
) -> Loaded:
    if not all(map(find_spec, PACKAGES[backend])):
        pytest.skip(f"{backend.value} is not installed")
    threads = None if backend is Backend.KERAS_JAX else 1  # JAX takes no number of them
    options = Options("cpu", precision, threads, backend=backend.value)
    network = ChosenNetwork(options, store)
    return Loaded(network, network.load(directory))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    vit, deit = tmp_path_factory.mktemp("vit"), tmp_path_factory.mktemp("deit")
    save_random_vit(vit, SMALL)
    save_random_deit(deit, SMALL)
    return {"demo": DEMO_CLASSIFIER, "vit": vit, "deit": deit}


@pytest.fixture(scope="module", params=PAIRS)
def pair(
    request: pytest.FixtureRequest, store: ArtifactStore, directories: Mapping[str, Path]
) -> Pair:
    backend, model = request.param
    directory = directories[model]
    return Pair(
        backend, loaded(backend, directory, store), loaded(Backend.PYTORCH, directory, store)
    )


def relative(ours: Floats, theirs: Floats) -> float:
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def test_what_is_told(pair: Pair) -> None:
    ours, theirs = pair.ours.traits, pair.reference.traits
    assert (ours.backend, ours.device, ours.precision) == (pair.backend.value, "cpu", "float32")
    assert ours.extra["backend_why"] == "asked for"
    assert ours.device_name
    for name in ("architecture", "labels", "preprocessing", "depth", "rows", "parameters"):
        assert getattr(ours, name) == getattr(theirs, name)
    # The weights are there once.
    assert 0.9 < ours.bytes_in_memory / theirs.bytes_in_memory < 1.5


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_logits(pair: Pair, rows: int) -> None:
    pixels = pair.pixels(rows)
    ours, theirs = pair.ours.logits(pixels), pair.reference.logits(pixels)
    assert ours.shape == (rows, len(pair.ours.traits.labels))
    assert np.abs(ours - theirs).max() <= LOGIT_TOLERANCE
    assert (ours.argmax(axis=1) == theirs.argmax(axis=1)).all()


def test_every_layer_alone(pair: Pair) -> None:
    pixels = pair.pixels(2)
    for layer in range(pair.ours.traits.depth + 1):
        readings = {Reading(layer, pooling): [0, 1] for pooling in Pooling}
        ours, theirs = (each.vectors(pixels, readings) for each in (pair.ours, pair.reference))
        for reading in readings:
            assert relative(ours[reading], theirs[reading]) <= HIDDEN_TOLERANCE


def test_a_mixed_batch(pair: Pair) -> None:
    depth = pair.ours.traits.depth
    pixels = pair.pixels(4)
    readings = {
        Reading(0, Pooling.PATCH): [1],
        Reading(1): [0, 2],
        Reading(depth, Pooling.MEAN, final_norm=True): [3],
        Reading(depth): [0, 1, 2, 3],
    }
    ours = pair.ours.network.run(pixels, head=True, readings=readings)
    theirs = pair.reference.network.run(pixels, head=True, readings=readings)
    assert ours.logits is not None
    assert theirs.logits is not None
    assert np.abs(ours.logits - theirs.logits).max() <= LOGIT_TOLERANCE
    for reading in readings:
        assert relative(ours.vectors[reading], theirs.vectors[reading]) <= HIDDEN_TOLERANCE


def test_an_answer_outlives_the_next_batch(pair: Pair) -> None:
    reading = Reading(1, Pooling.PATCH)
    first, second = pair.pixels(1), pair.pixels(1, seed=1)
    (kept,) = pair.ours.vectors(first, {reading: [0]}).values()
    before = kept.copy()
    pair.ours.vectors(second, {reading: [0]})
    assert (kept == before).all()


def test_more_graphs_than_are_kept(pair: Pair) -> None:
    pixels = pair.pixels(1)
    depth = pair.ours.traits.depth
    before = pair.ours.logits(pixels)
    for deepest in range(1, depth + 1):
        readings = {Reading(layer): [0] for layer in range(deepest + 1)}
        ours = pair.ours.vectors(pixels, readings)
        theirs = pair.reference.vectors(pixels, readings)
        for reading in readings:
            assert relative(ours[reading], theirs[reading]) <= HIDDEN_TOLERANCE
    assert np.allclose(pair.ours.logits(pixels), before, atol=1e-6)


def test_openvino_in_bfloat16_agrees(store: ArtifactStore) -> None:
    if not bfloat16.computes(torch.device("cpu")):
        pytest.skip("this processor does not compute in bfloat16")
    half = loaded(Backend.OPENVINO, DEMO_CLASSIFIER, store, "bfloat16")
    assert half.traits.precision == "bfloat16"
    reference = loaded(Backend.PYTORCH, DEMO_CLASSIFIER, store)
    pixels = [reference.traits.preprocessing.prepare(picture) for picture in textures(24)]
    ours, theirs = half.logits(pixels), reference.logits(pixels)
    spread = theirs.max() - theirs.min()
    assert np.abs(ours - theirs).max() <= 0.03 * spread


def test_converted_once(tmp_path: Path, directories: Mapping[str, Path]) -> None:
    store = ArtifactStore(tmp_path / "artifacts")
    loaded(Backend.OPENVINO, directories["vit"], store)
    (kept,) = store.root.iterdir()
    written = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    loaded(Backend.OPENVINO, directories["vit"], store)
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == written
    assert (kept / KEY_FILE).is_file()
    # The same name, other weights.
    other = Path(shutil.copytree(directories["vit"], tmp_path / "model"))
    save_random_vit(other, SMALL, seed=1)
    loaded(Backend.OPENVINO, other, store)
    assert len(list(store.root.iterdir())) == 2


def test_a_store_that_cannot_be_written(tmp_path: Path, directories: Mapping[str, Path]) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    ours = loaded(Backend.OPENVINO, directories["vit"], ArtifactStore(blocked / "store"))
    reference = loaded(Backend.PYTORCH, directories["vit"], ArtifactStore(tmp_path))
    pixels = [reference.traits.preprocessing.prepare(picture) for picture in textures(1)]
    reading = {Reading(2): [0]}
    assert (
        relative(
            ours.vectors(pixels, reading)[Reading(2)],
            reference.vectors(pixels, reading)[Reading(2)],
        )
        <= HIDDEN_TOLERANCE
    )


def test_compiled_layers_answer_the_same(tmp_path: Path, directories: Mapping[str, Path]) -> None:
    if shutil.which("c++") is None:
        pytest.skip("torch.compile needs a compiler")
    network = ChosenNetwork(
        Options("cpu", "float32", 1, backend="pytorch", compiled=True), ArtifactStore(tmp_path)
    )
    compiled = Loaded(network, network.load(directories["vit"]))
    assert compiled.traits.extra["compiled"] == "true"
    reference = loaded(Backend.PYTORCH, directories["vit"], ArtifactStore(tmp_path))
    assert reference.traits.extra["compiled"] == "false"
    pixels = [reference.traits.preprocessing.prepare(picture) for picture in textures(3)]
    assert np.abs(compiled.logits(pixels) - reference.logits(pixels)).max() <= LOGIT_TOLERANCE


@pytest.mark.parametrize("backend", [Backend.OPENVINO, SLOW_ONNXRUNTIME])
@pytest.mark.parametrize("family", ZOO)
def test_every_family(backend: Backend, family: str, store: ArtifactStore, tmp_path: Path) -> None:
    save(tmp_path, ZOO[family])
    pair = Pair(backend, *(loaded(each, tmp_path, store) for each in (backend, Backend.PYTORCH)))
    pixels = pair.pixels(3)
    readings = {Reading(layer, Pooling.MEAN): [0, 2] for layer in range(pair.ours.traits.depth + 1)}
    ours, theirs = (
        each.network.run(pixels, head=True, readings=readings)
        for each in (pair.ours, pair.reference)
    )
    assert ours.logits is not None
    assert theirs.logits is not None
    assert relative(ours.logits, theirs.logits) <= HIDDEN_TOLERANCE
    for reading in readings:
        assert relative(ours.vectors[reading], theirs.vectors[reading]) <= HIDDEN_TOLERANCE


def test_keras_refuses_what_it_does_not_build(store: ArtifactStore, tmp_path: Path) -> None:
    save(tmp_path, ZOO["swin"])
    with pytest.raises(FailedPrecondition, match="not 'swin': say another backend"):
        loaded(Backend.KERAS_JAX, tmp_path, store)
