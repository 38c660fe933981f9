"""What is refused at load, instead of being served wrongly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ResNetConfig, ResNetForImageClassification

from services import bfloat16
from services.classifier.network import Options
from services.classifier.pytorch import TorchNetwork
from services.core.errors import EaselError, FailedPrecondition, NotFound
from tests.parity.classifier.models import SMALL, save_random_vit

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved")
    save_random_vit(directory, SMALL)
    return directory


@pytest.fixture
def directory(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def network(**options: object) -> TorchNetwork:
    return TorchNetwork(Options(**{"device": "cpu", "threads": 1, **options}))  # type: ignore[arg-type]


def refused(directory: Path, kind: type[EaselError], match: str) -> None:
    with pytest.raises(kind, match=match):
        network().load(directory)


def test_what_is_loaded(directory: Path) -> None:
    traits = network(precision="float32").load(directory)
    assert (traits.architecture, traits.precision) == ("ViTForImageClassification", "float32")
    assert (traits.depth, traits.rows, traits.columns) == (5, 4, 4)
    assert traits.bytes_in_memory == 4 * traits.parameters
    assert traits.labels[:2] == ("LABEL_0", "LABEL_1")


def test_auto_precision_is_what_the_processor_is_faster_in(directory: Path) -> None:
    expected = "bfloat16" if bfloat16.pays(torch.device("cpu")) else "float32"
    assert network().load(directory).precision == expected


def test_a_directory_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises((NotFound, FailedPrecondition)):
        network().load(tmp_path)


def test_weights_in_another_format(directory: Path) -> None:
    torch.save(load_file(directory / WEIGHTS), directory / "pytorch_model.bin")
    (directory / WEIGHTS).unlink()
    refused(directory, FailedPrecondition, "safetensors")


def test_weights_without_a_head(directory: Path) -> None:
    weights = load_file(directory / WEIGHTS)
    kept = {name: value for name, value in weights.items() if not name.startswith("classifier")}
    save_file(kept, directory / WEIGHTS, {"format": "pt"})
    refused(directory, FailedPrecondition, "classifier.weight")


def test_preprocessing_for_another_size(directory: Path) -> None:
    path = directory / "preprocessor_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"size": {"height": 64, "width": 64}}))
    refused(directory, FailedPrecondition, "32x32")


def test_a_network_of_another_kind(directory: Path) -> None:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])
    ResNetForImageClassification(config).save_pretrained(directory)
    refused(directory, FailedPrecondition, "resnet")


def test_a_device_that_is_not_there(directory: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(FailedPrecondition, match="cuda:7"):
        network(device="cuda:7").load(directory)
