"""What is refused at load, instead of being served wrongly."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    ViTForImageClassification,
)

from services import bfloat16
from services.classifier import conversion
from services.classifier.network import Options
from services.classifier.pytorch import TorchNetwork
from services.classifier.weights import SHARDS
from services.core.errors import EaselError, FailedPrecondition, NotFound
from services.core.reference import DIGESTS_FILE, resolve
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


@pytest.fixture
def pickled(directory: Path) -> Path:
    torch.save(load_file(directory / WEIGHTS), directory / "pytorch_model.bin")
    (directory / WEIGHTS).unlink()
    return directory


def test_weights_in_another_format_are_refused_with_the_way_out(pickled: Path) -> None:
    refused(
        pickled,
        FailedPrecondition,
        r"It has pytorch_model\.bin\. .* python -m services\.classifier\.conversion DIRECTORY",
    )


def test_no_weights_at_all(directory: Path) -> None:
    (directory / WEIGHTS).unlink()
    refused(directory, FailedPrecondition, rf"no {WEIGHTS}\. Other formats .*\.conversion")


def test_a_converted_pickle_is_the_model_that_it_was(pickled: Path, saved: Path) -> None:
    assert conversion.main([str(pickled)]) == 0
    ours, theirs = load_file(pickled / WEIGHTS), load_file(saved / WEIGHTS)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert network().load(pickled).depth == 5


class Planted:
    """What would run if a pickle of it were read by Python's own unpickler."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("planted",)


def test_a_pickle_that_holds_more_than_tensors(
    pickled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"x": Planted()}, pickled / "pytorch_model.bin")
    assert conversion.main([str(pickled)]) == 1
    assert "cannot be converted" in capsys.readouterr().err
    assert not Path("planted").exists()
    assert not (pickled / WEIGHTS).exists()


def test_nothing_to_convert(directory: Path) -> None:
    with pytest.raises(NotFound, match=r"pytorch_model\.bin"):
        conversion.convert(directory)


def test_weights_that_were_cut_off(directory: Path) -> None:
    whole = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(whole[:-1])
    digest = hashlib.sha256(whole[:-1]).hexdigest()
    refused(directory, FailedPrecondition, f"'{WEIGHTS}' is not a whole .* sha256:{digest}")


def test_weights_that_are_not_what_their_digest_says(directory: Path) -> None:
    """One bit in the middle: the file reads well, and the model would answer nonsense."""
    whole = (directory / WEIGHTS).read_bytes()
    (directory / DIGESTS_FILE).write_text(f"{hashlib.sha256(whole).hexdigest()}  {WEIGHTS}\n")
    resolve(str(directory))
    middle = len(whole) // 2
    (directory / WEIGHTS).write_bytes(
        whole[:middle] + bytes([whole[middle] ^ 0x40]) + whole[middle + 1 :]
    )
    with pytest.raises(FailedPrecondition, match=f"'{WEIGHTS}' is corrupted") as caught:
        resolve(str(directory))
    assert caught.value.reason == "DIGEST_MISMATCH"


def test_shards(directory: Path) -> None:
    model = ViTForImageClassification.from_pretrained(directory)
    (directory / WEIGHTS).unlink()
    model.save_pretrained(directory, max_shard_size="100KB")
    assert len(list(directory.glob("model-*.safetensors"))) > 1
    assert network().load(directory).depth == 5
    shard = sorted(directory.glob("model-*.safetensors"))[-1]
    shard.unlink()
    refused(directory, FailedPrecondition, f"'{shard.name}', which is missing")


def test_an_index_of_shards_that_is_none(directory: Path) -> None:
    (directory / WEIGHTS).unlink()
    (directory / SHARDS).write_text("[]")
    refused(directory, FailedPrecondition, SHARDS)


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
    refused(directory, FailedPrecondition, "'resnet' are not served; these are: vit")


def test_a_network_that_nobody_knows(directory: Path) -> None:
    change_config(directory, model_type="nonesuch")
    refused(directory, FailedPrecondition, "model_type")


def test_a_head_that_gives_numbers_and_no_labels(directory: Path) -> None:
    change_config(directory, problem_type="regression")
    refused(directory, FailedPrecondition, "no classifier")


def change_config(directory: Path, **changes: str) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_device_that_is_not_there(directory: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(FailedPrecondition, match="cuda:7"):
        network(device="cuda:7").load(directory)
