"""A folder of ControlNets: what is found, loaded, kept and refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from services.core.errors import FailedPrecondition, NotFound
from services.generator.controlnet import ControlShelf, UnfitControlNetError, load_control
from services.generator.network import Look, Network, Residuals
from services.generator.steering import ControlNet
from tests.unit.generator.fakes import FakeNetwork


@dataclass(frozen=True)
class Read:
    name: str
    digest: str

    def residuals(self, look: Look, pictures: torch.Tensor) -> Residuals:
        return Residuals()


def read(name: str, folder: Path, _network: Network) -> ControlNet:
    text = (folder / "net").read_text()
    if text == "bad":
        raise UnfitControlNetError("it is bad")
    return Read(name, text)


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "net").write_text(text)


def shelf(folder: Path | None, kept: int = 4) -> ControlShelf:
    return ControlShelf(folder, FakeNetwork(), kept=kept, load=read)


def test_names_are_told_and_a_new_folder_is_found(tmp_path: Path) -> None:
    for name in ("edges", "depth", ".hidden"):
        write(tmp_path, name, name)
    (tmp_path / "notes.txt").write_text("not one")
    found = shelf(tmp_path)
    assert list(found.names) == ["depth", "edges"]
    write(tmp_path, "poses", "p")
    assert found.take("poses").digest == "p"
    assert list(found.names) == ["depth", "edges", "poses"]


@pytest.mark.parametrize("name", ["x", "../edges", "/etc", "", ".", "\x00", "notes.txt"])
def test_what_is_not_there(tmp_path: Path, name: str) -> None:
    write(tmp_path, "edges", "e")
    (tmp_path / "notes.txt").write_text("not one")
    with pytest.raises(NotFound, match=r"There are: edges\."):
        shelf(tmp_path).take(name)
    with pytest.raises(NotFound, match=r"There are: none\."):
        shelf(None).take(name)


def test_the_last_used_are_kept_and_a_changed_one_is_read_anew(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path, name, name)
    found = shelf(tmp_path, kept=2)
    a, b = found.take("a"), found.take("b")
    assert found.take("a") is a
    found.take("c")
    assert found.take("a") is a
    assert found.take("b") is not b
    write(tmp_path, "b", "other")
    assert found.take("b").digest == "other"


def test_what_does_not_fit_says_why_and_is_read_again_once_it_does(tmp_path: Path) -> None:
    write(tmp_path, "edges", "bad")
    found = shelf(tmp_path)
    with pytest.raises(FailedPrecondition) as told:
        found.take("edges")
    assert told.value.message == "ControlNet 'edges' cannot be used: it is bad."
    assert told.value.reason == "CONTROL_UNFIT"
    write(tmp_path, "edges", "good")
    assert found.take("edges").digest == "good"


CONFIG = {
    "_class_name": "ControlNetModel",
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "conditioning_embedding_out_channels": [8, 16, 32],
}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, r"its folder has no config\.json of a ControlNetModel"),
        ("{", r"its config\.json is not JSON"),
        ("[]", r"its folder has no config\.json of a ControlNetModel"),
        ('{"_class_name": "UNet2DConditionModel"}', r"no config\.json of a ControlNetModel"),
        (json.dumps(CONFIG), r"no \.safetensors weights, and no others are read"),
        (json.dumps({**CONFIG, "layers_per_block": 2}), "another architecture: its layers_per"),
    ],
)
def test_folders_that_are_no_net(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    unet = {"block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 32}
    with pytest.raises(UnfitControlNetError, match=says):
        load_control("x", tmp_path, FakeNetwork(unet_config=unet))
