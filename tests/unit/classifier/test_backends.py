from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from services import bfloat16
from services.classifier.backends import PACKAGES, Backend, ChosenNetwork, Host, choose
from services.classifier.network import Options
from services.classifier.trunk import tapped
from services.core.artifacts import ArtifactStore
from services.core.errors import FailedPrecondition, NotReady

EVERY = frozenset(package for each in PACKAGES.values() for package in each)
HOST = Host(cuda=False, x86=True, bfloat16=True, pays=True, packages=EVERY)
BARE = replace(HOST, packages=frozenset())
OLD = replace(HOST, bfloat16=False, pays=False)
SLOW = replace(HOST, pays=False)
ARM = replace(HOST, x86=False)
GPU = replace(HOST, cuda=True)


def without(*packages: str) -> Host:
    return replace(HOST, packages=EVERY - set(packages))


@pytest.mark.parametrize(
    ("options", "host", "backend", "precision"),
    [
        (Options(), HOST, "openvino", "bfloat16"),
        (Options(), OLD, "openvino", "float32"),
        (Options(), SLOW, "openvino", "float32"),
        (Options(precision="bfloat16"), SLOW, "openvino", "bfloat16"),
        (Options(precision="bfloat16"), OLD, "pytorch", "bfloat16"),
        (Options(precision="float32"), HOST, "openvino", "float32"),
        (Options(), BARE, "pytorch", "bfloat16"),
        (Options(), replace(BARE, pays=False), "pytorch", "float32"),
        (Options(), ARM, "pytorch", "bfloat16"),
        (Options(), GPU, "pytorch", "auto"),
        (Options(device="cuda:1"), GPU, "pytorch", "auto"),
        (Options(device="cpu"), GPU, "openvino", "bfloat16"),
        (Options(compiled=True), HOST, "pytorch", "bfloat16"),
        (Options(backend="pytorch"), HOST, "pytorch", "bfloat16"),
        (Options(backend="openvino"), ARM, "openvino", "bfloat16"),
        (Options(backend="onnxruntime"), HOST, "onnxruntime", "float32"),
        (Options(backend="onnxruntime", precision="float32"), GPU, "onnxruntime", "float32"),
        (Options(precision="int8"), HOST, "openvino", "bfloat16"),
        (Options(backend="onnxruntime", precision="int8"), HOST, "onnxruntime", "float32"),
        (Options(backend="keras-jax"), HOST, "keras-jax", "float32"),
        (Options(backend="keras-jax", precision="bfloat16"), HOST, "keras-jax", "bfloat16"),
        (Options(backend="keras-tensorflow"), GPU, "keras-tensorflow", "float32"),
    ],
)
def test_what_is_chosen(options: Options, host: Host, backend: str, precision: str) -> None:
    choice = choose(options, host)
    assert choice.backend.value == choice.options.backend == backend
    assert choice.options.precision == precision
    assert choice.why


def test_what_was_asked_for_reaches_the_backend() -> None:
    asked = Options("cpu", "float32", 3, backend="pytorch", compiled=True)
    assert choose(asked, HOST).options == asked


@pytest.mark.parametrize(
    ("options", "host", "told"),
    [
        (Options(backend="openvino"), BARE, r"openvino missing.*'easel\[classifier,openvino\]'"),
        (Options(backend="openvino"), GPU, "say device cpu, not 'auto'"),
        (Options("cuda:0", backend="openvino"), HOST, "say device cpu, not 'cuda:0'"),
        (Options(precision="bfloat16", backend="openvino"), OLD, "does not compute in bfloat16"),
        (Options(backend="openvino", compiled=True), HOST, "backend pytorch, not 'openvino'"),
        (Options(providers=("cpu",)), HOST, "backend onnxruntime, not 'auto'"),
        (Options(backend="onnxruntime", precision="bfloat16"), HOST, "float32, not 'bfloat16'"),
    ],
)
def test_what_cannot_be_had_is_told(options: Options, host: Host, told: str) -> None:
    with pytest.raises(FailedPrecondition, match=told):
        choose(options, host)


@pytest.mark.parametrize(
    ("options", "host", "device"),
    [
        (Options(backend="onnxruntime"), HOST, "cpu"),
        (Options(backend="onnxruntime"), GPU, "cuda:0"),
        (Options(backend="onnxruntime", providers=("cpu",)), GPU, "cpu"),
        (Options(backend="onnxruntime", providers=("tensorrt", "cuda")), HOST, "cuda:0"),
        (Options("cuda:1", backend="onnxruntime"), HOST, "cuda:1"),
        (Options(backend="keras-jax"), HOST, "cpu"),
        (Options(backend="keras-jax"), GPU, "cuda:0"),
        (Options("cuda:1", backend="keras-jax"), GPU, "cuda:1"),
        (Options("cpu", backend="keras-jax"), GPU, "cpu"),
    ],
)
def test_where_it_runs(options: Options, host: Host, device: str) -> None:
    assert choose(options, host).options.device == device


@pytest.mark.parametrize("backend", [each for each in Backend if PACKAGES[each]])
def test_a_backend_that_is_not_installed_names_its_extra(backend: Backend) -> None:
    for package in PACKAGES[backend]:
        with pytest.raises(FailedPrecondition, match=rf"{package}.*,{backend.value}\]'"):
            choose(Options(backend=backend.value), without(package))


def test_the_host_is_what_this_machine_has() -> None:
    host = Host.here()
    assert host.cuda == torch.cuda.is_available()
    assert host.pays == bfloat16.pays(torch.device("cpu"))
    assert host.packages <= EVERY


def test_nothing_is_chosen_before_the_load(tmp_path: Path) -> None:
    def refuse() -> Host:
        raise AssertionError("too early")

    network = ChosenNetwork(Options(), ArtifactStore(tmp_path), host=refuse)
    with pytest.raises(NotReady):
        network.run([], head=True, readings={})
    network.close()


@pytest.mark.parametrize(
    ("layers", "outputs"), [([3], (3,)), ([0], (0,)), ([1, 3], (0, 1, 2, 3)), ([0, 1], (0, 1))]
)
def test_a_graph_gives_one_state_or_all_up_to_the_last(
    layers: Collection[int], outputs: tuple[int, ...]
) -> None:
    assert tapped(list(layers)) == outputs
