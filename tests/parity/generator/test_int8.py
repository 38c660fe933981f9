"""The int8 U-Net of the OpenVINO backend against the same U-Net in float32."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from shutil import copyfile, copytree
from statistics import mean

import numpy as np
import pytest
import torch

from models import DEMO_GENERATOR
from services.core.artifacts import KEY_FILE, ArtifactStore
from services.generator import calibration, openvino, quantisation
from services.generator.lora import Adapter, LowRank, Worn
from services.generator.network import Feature, Look
from services.generator.openvino import OpenVinoNetwork
from services.generator.outer import Deep
from services.generator.pytorch import TorchNetwork
from services.generator.request import Reproducibility, Wish
from tests.parity.generator.models import SMALL, save_random_pipeline
from tests.parity.generator.pair import REFERENCE, pair

# Of a trained model: one of random weights amplifies rounding until nothing is left of the answer.
MEAN_ERROR = 0.15


@dataclass
class FakeQuantiser:
    """Copies what it should quantise, or fails after half of it."""

    fails: bool = False
    looked_at: list[int] = field(default_factory=list)

    def __call__(self, source: Path, looks: Sequence[Look], target: Path) -> None:
        self.looked_at.append(len(looks))
        copyfile(source, target)
        if self.fails:
            raise RuntimeError("no more room")
        copyfile(source.with_suffix(".bin"), target.with_suffix(".bin"))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_pipeline(tmp_path_factory.mktemp("small"), SMALL)


@pytest.fixture(scope="module")
def converted(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store's root with what is converted of ``directory``, and nothing quantised."""
    store = ArtifactStore(tmp_path_factory.mktemp("converted"))
    openvino.load(directory, precision="float32", store=store, threads=1)
    return store.root


@pytest.fixture(scope="module")
def store(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    return ArtifactStore(copytree(converted, tmp_path_factory.mktemp("artifacts") / "store"))


@pytest.fixture(scope="module")
def load(store: ArtifactStore) -> Callable[[Path], OpenVinoNetwork]:
    """Calibrated on two pictures, one with guidance and one without, that it takes less time."""
    calibrate = partial(calibration.looks, wishes=calibration.WISHES[3:5])
    return partial(
        openvino.load,
        precision="float32",
        store=store,
        threads=1,
        int8=True,
        calibrate=calibrate,
    )


@pytest.mark.slow
def test_near_to_float32_on_looks_at_another_picture(
    load: Callable[[Path], OpenVinoNetwork],
) -> None:
    network, reference = load(DEMO_GENERATOR), REFERENCE(DEMO_GENERATOR)
    assert network.effective.precision == "int8"
    held_out = Wish(prompt="a blue circle", steps=6, seed=77)
    errors = [
        _error(network.predict(look), reference.predict(look))
        for look in calibration.looks(reference, [held_out])
    ]
    assert 0 < mean(errors) < MEAN_ERROR


@pytest.mark.slow
def test_the_same_alone_and_in_company(load: Callable[[Path], OpenVinoNetwork]) -> None:
    network = load(DEMO_GENERATOR)
    look = _look(network, 5, 16, 24)
    with torch.inference_mode():
        together = network.predict(look)
        # Ranges are the layers' own, not a batch's.
        assert torch.allclose(network.predict(_row(look, 0))[0], together[0], atol=1e-3)


def test_in_int8_at_any_batch_and_size(
    load: Callable[[Path], OpenVinoNetwork], directory: Path
) -> None:
    network = load(directory)
    told = network.effective
    assert (told.backend, told.precision) == ("openvino", "int8")
    assert told.versions == {"openvino": told.notes["openvino"], "nncf": quantisation.version()}
    assert told.notes["int8"].endswith("the rest in float32")
    for rows, height, width in ((1, 8, 8), (3, 8, 16), (5, 16, 24)):
        look = _look(network, rows, height, width)
        with torch.inference_mode():
            answer = network.predict(look)
        assert answer.shape == look.latents.shape
        assert answer.isfinite().all()
        assert answer.std() > 0.1


def test_the_ends_and_the_timestep_are_not_in_int8(
    load: Callable[[Path], OpenVinoNetwork], directory: Path
) -> None:
    network = load(directory)
    numbers = re.match(r"(\d+) of the U-Net's (\d+) products", network.effective.notes["int8"])
    assert numbers is not None
    of_the_timestep = [
        name
        for name, layer in network.unet.named_modules()
        if "time_emb" in name and isinstance(layer, torch.nn.Linear)
    ]
    in_int8, products = map(int, numbers.groups())
    assert products - in_int8 == 2 + len(of_the_timestep)


def test_rows_with_other_inputs_go_to_pytorch(
    load: Callable[[Path], OpenVinoNetwork], directory: Path
) -> None:
    network = load(directory)
    assert network.route(frozenset(), (8, 8)) == "openvino"
    assert network.route(frozenset({Feature.DEEP}), (8, 8)) == "pytorch"
    told = network.in_force("pytorch")
    assert (told.backend, told.precision) == ("pytorch", "float32")
    assert set(told.versions) == {"openvino"}
    look = replace(_look(network, 2, 8, 8), deep=Deep())
    with torch.inference_mode():
        assert _error(network.predict(look), REFERENCE(directory).predict(look)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["unet.", ".attentions."])
def test_adapters_change_what_they_change_in_float32(
    load: Callable[[Path], OpenVinoNetwork], changed: str
) -> None:
    """What is quantised is evened out first, which a branch must not be given."""
    network, reference = load(DEMO_GENERATOR), REFERENCE(DEMO_GENERATOR)
    assert network.route(frozenset({Feature.ADAPTERS}), (8, 8)) == "openvino"
    outfit = (Worn(_adapter(reference, changed), 0.2),)
    errors = []
    for look in calibration.looks(reference, [Wish(prompt="a blue circle", steps=6, seed=77)]):
        worn = replace(look, adapters=(outfit,) * len(look.latents))
        ours, theirs = (each.predict(worn) - each.predict(look) for each in (network, reference))
        errors.append(_error(ours, theirs))
    assert mean(errors) < 0.5


def test_an_exact_picture_is_itself_in_company(
    load: Callable[[Path], OpenVinoNetwork], directory: Path
) -> None:
    painter = pair(directory, load=load)
    exact = Wish(prompt="a star", steps=3, seed=5, reproducibility=Reproducibility.EXACT)
    [alone] = painter.ours(exact)
    first, _ = painter.ours(exact, replace(exact, seed=6, prompt="a ring"))
    assert np.array_equal(alone, first)


def test_made_once_by_what_it_is_made_of(tmp_path: Path, directory: Path, converted: Path) -> None:
    store, quantise = ArtifactStore(copytree(converted, tmp_path / "store")), FakeQuantiser()
    load = partial(
        openvino.load,
        directory,
        precision="float32",
        store=store,
        threads=1,
        int8=True,
        calibrate=lambda network: [_look(network, 1, 8, 8)],
        quantise=quantise,
    )
    load()
    # What was not quantised is not said to be.
    assert load().effective.precision == "float32"
    assert quantise.looked_at == [1]
    keys = [json.loads(path.read_text()) for path in store.root.glob(f"*/{KEY_FILE}")]
    [made_of] = [key for key in keys if "quantised" in key]
    [converted_from] = [key for key in keys if "quantised" not in key]
    assert made_of == {
        **converted_from,
        "quantised": "int8",
        "nncf": quantisation.version(),
        "calibration": calibration.RECIPE,
    }


def test_what_fails_leaves_nothing(tmp_path: Path, directory: Path, converted: Path) -> None:
    store = ArtifactStore(copytree(converted, tmp_path / "store"))
    with pytest.raises(RuntimeError, match="no more room"):
        openvino.load(
            directory,
            precision="float32",
            store=store,
            threads=1,
            int8=True,
            calibrate=lambda network: [_look(network, 1, 8, 8)],
            quantise=FakeQuantiser(fails=True),
        )
    [left] = store.root.iterdir()
    assert "quantised" not in json.loads((left / KEY_FILE).read_text())


def _look(network: object, rows: int, height: int, width: int) -> Look:
    assert isinstance(network, OpenVinoNetwork)
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(rows))
    context = draw((rows, 77, network.unet.config.cross_attention_dim))
    times = torch.linspace(999.0, 1.0, rows)
    return Look(draw((rows, network.unet_channels, height, width)), times, context)


def _row(look: Look, index: int) -> Look:
    part = slice(index, index + 1)
    return Look(look.latents[part], look.timesteps[part], look.context[part])


def _adapter(network: TorchNetwork, changed: str) -> Adapter:
    draw = torch.Generator().manual_seed(0)
    layers = {
        layer: LowRank(
            torch.randn((4, *weight.shape[1:]), generator=draw) * weight[0].numel() ** -0.5,
            torch.randn((len(weight), 4, *(1 for _ in weight.shape[2:])), generator=draw),
        )
        for layer, weight in network.adaptable.items()
        if layer.startswith("unet.") and changed in layer
    }
    return Adapter("a", "sha256:a", layers)


def _error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())
