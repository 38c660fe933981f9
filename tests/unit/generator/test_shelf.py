"""A folder of adapters: what is found, loaded, kept and refused."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from services.core.errors import FailedPrecondition, NotFound, OutOfMemory
from services.generator.shelf import AdapterShelf
from tests.unit.generator.fakes import FakeNetwork

Tensors = dict[str, torch.Tensor]
LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
WEIGHTS = {f"unet.{LAYER}": torch.zeros(6, 4), "unet.conv_in": torch.zeros(8, 4, 3, 3)}
DOWN, UP = torch.full((2, 4), 0.5), torch.full((6, 2), 3.0)
ONE = torch.tensor(1.0)
CONV = {
    "unet.conv_in.lora_A.weight": torch.ones(2, 4, 3, 3),
    "unet.conv_in.lora_B.weight": torch.ones(8, 2, 1, 1),
}


def plain(layer: str = f"unet.{LAYER}") -> Tensors:
    return {f"{layer}.lora_A.weight": DOWN, f"{layer}.lora_B.weight": UP}


def shelf(folder: Path | None, kept: int = 16) -> AdapterShelf:
    return AdapterShelf(folder, FakeNetwork(adaptable=WEIGHTS), kept=kept)


def write(folder: Path, name: str, tensors: Tensors, **metadata: Any) -> None:
    path = folder / f"{name}.safetensors"
    path.parent.mkdir(exist_ok=True)
    told = {"lora_adapter_metadata": json.dumps(metadata)} if metadata else None
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, path, metadata=told)


KOHYA = f"lora_unet_{LAYER.replace('.', '_')}"


def kohya(down: torch.Tensor = DOWN, up: torch.Tensor = UP, alpha: torch.Tensor = ONE) -> Tensors:
    return {
        f"{KOHYA}.lora_down.weight": down,
        f"{KOHYA}.lora_up.weight": up,
        f"{KOHYA}.alpha": alpha,
    }


class NoRoom(dict[str, torch.Tensor]):
    """Weights on a device beside which nothing more fits."""

    def __getitem__(self, layer: str) -> torch.Tensor:
        raise torch.OutOfMemoryError(f"no room beside {layer}")


def test_an_adapter_that_does_not_fit_into_memory_is_told_as_such(tmp_path: Path) -> None:
    write(tmp_path, "large", plain())
    shelf = AdapterShelf(tmp_path, FakeNetwork(adaptable=NoRoom(WEIGHTS)))
    with pytest.raises(OutOfMemory):
        shelf.take("large")


LAYOUTS: Mapping[str, tuple[Tensors, dict[str, Any], float]] = {
    "diffusers": (plain(), {}, 1.0),
    "without the part's name": (plain(LAYER), {}, 1.0),
    "older diffusers": (
        {
            f"unet.{LAYER.replace('.to_q', '.processor.to_q_lora')}.down.weight": DOWN,
            f"unet.{LAYER.replace('.to_q', '.processor.to_q_lora')}.up.weight": UP,
        },
        {},
        1.0,
    ),
    "with its alpha": (plain(), {"unet.lora_alpha": 8}, 4.0),
    "with a layer's own alpha": (
        plain(),
        {"unet.lora_alpha": 8, "unet.alpha_pattern": {"attn2.to_q": 1, "attn1.to_q": 6}},
        3.0,
    ),
    "rank-stabilised": (plain(), {"unet.lora_alpha": 8, "unet.use_rslora": True}, 8 / 2**0.5),
    "kohya": (kohya(), {}, 0.5),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, layout: str) -> None:
    tensors, metadata, factor = LAYOUTS[layout]
    write(tmp_path, "x", tensors, **metadata)
    adapter = shelf(tmp_path).take("x")
    [(name, layer)] = adapter.layers.items()
    assert name == f"unet.{LAYER}"
    torch.testing.assert_close(layer.up @ layer.down, factor * UP @ DOWN)
    assert adapter.digest.startswith("sha256:")


def test_a_folder_as_peft_writes_it(tmp_path: Path) -> None:
    named = {f"base_model.model.{key}": value for key, value in plain(LAYER).items()}
    write(tmp_path / "x", "adapter_model", named)
    (tmp_path / "x" / "adapter_config.json").write_text(json.dumps({"lora_alpha": 1}))
    layer = shelf(tmp_path).take("x").layers[f"unet.{LAYER}"]
    torch.testing.assert_close(layer.up @ layer.down, 0.5 * UP @ DOWN)


def test_convolutions(tmp_path: Path) -> None:
    write(tmp_path, "x", CONV)
    layer = shelf(tmp_path).take("x").layers["unet.conv_in"]
    assert (layer.down.shape, layer.up.shape) == ((2, 4, 3, 3), (8, 2, 1, 1))


def test_names_are_told_and_a_new_file_is_found(tmp_path: Path) -> None:
    write(tmp_path, "b", plain())
    write(tmp_path / "a", "pytorch_lora_weights", plain())
    (tmp_path / "notes.txt").write_text("not one")
    found = shelf(tmp_path)
    assert list(found.names) == ["a", "b"]
    write(tmp_path, "c", plain())
    assert found.take("c").name == "c"
    assert list(found.names) == ["a", "b", "c"]
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(NotFound, match=r"no adapter 'b' here. There are: a, c\."):
        found.take("b")


@pytest.mark.parametrize("name", ["x", "../x", "/etc/passwd", "", "\x00"])
def test_what_is_not_there(tmp_path: Path, name: str) -> None:
    write(tmp_path / "inner", "pytorch_lora_weights", plain())
    write(tmp_path, "x", plain())
    with pytest.raises(NotFound, match="There are: pytorch_lora_weights"):
        shelf(tmp_path / "inner").take(name)
    with pytest.raises(NotFound, match="There are: none"):
        shelf(None).take(name)


def test_the_last_used_are_kept_and_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path, name, plain())
    found = shelf(tmp_path, kept=2)
    a, b = found.take("a"), found.take("b")
    assert found.take("a") is a
    found.take("c")
    assert found.take("a") is a
    assert found.take("b") is not b
    write(tmp_path, "b", CONV)
    os.utime(tmp_path / "b.safetensors", ns=(1, 1))
    assert set(found.take("b").layers) == {"unet.conv_in"}


BAD: Mapping[str, tuple[Tensors, dict[str, Any], str]] = {
    "another architecture": (
        {**plain(), f"unet.{LAYER}.lora_A.weight": torch.ones(2, 5)},
        {},
        rf"another architecture: 'unet\.{LAYER}' is \(6, 5\) in it and \(6, 4\) here",
    ),
    "a layer that is not here": (plain("unet.nowhere"), {}, "changes 'unet.nowhere', which this"),
    "a text encoder": (plain("text_encoder.final"), {}, "changes 'text_encoder.final', which"),
    "an unknown key": (
        {**plain(), "unet.x.hada_w1_a": DOWN},
        {},
        "'unet.x.hada_w1_a' is not a key",
    ),
    "a bias": ({**plain(), f"unet.{LAYER}.lora_B.bias": DOWN}, {}, "lora_B.bias' is not a key"),
    "one matrix": ({f"unet.{LAYER}.lora_A.weight": DOWN}, {}, r"lacks its lora_B\.weight"),
    "ranks that differ": (
        {**plain(), f"unet.{LAYER}.lora_B.weight": torch.ones(6, 3)},
        {},
        r"do not fit together: \(2, 4\) and \(6, 3\)",
    ),
    "no numbers": (
        {**plain(), f"unet.{LAYER}.lora_B.weight": torch.full((6, 2), float("nan"))},
        {},
        "lora_B.weight' has values that are no finite numbers",
    ),
    "no matrices": ({}, {}, "no low-rank matrices"),
    "a DoRA": (plain(), {"unet.use_dora": True}, "it is a DoRA"),
    "a pattern": (
        plain(),
        {"unet.lora_alpha": 1, "unet.alpha_pattern": {"attn[12].*": 2}},
        r"alpha_pattern 'attn\[12\]\.\*' is not the name",
    ),
    "patterns in a list": (
        plain(),
        {"unet.alpha_pattern": ["attn1.to_q"]},
        "its alpha_pattern is not numbers by layer, but a list",
    ),
    "an alpha in words": (plain(), {"unet.lora_alpha": "8"}, "is not a finite number"),
    "an alpha that is none": (
        plain(),
        {"unet.lora_alpha": float("nan")},
        rf"the alpha of 'unet\.{LAYER}' is not a finite number",
    ),
    "an alpha without end": (plain(), {"unet.lora_alpha": 10**400}, "is not a finite number"),
    "rank 0": (
        {
            f"unet.{LAYER}.lora_A.weight": torch.ones(0, 4),
            f"unet.{LAYER}.lora_B.weight": torch.ones(6, 0),
        },
        {"unet.lora_alpha": 8},
        rf"the matrices of 'unet\.{LAYER}' are of rank 0",
    ),
    "Kohya's rank 0": (
        kohya(down=torch.ones(0, 4), up=torch.ones(6, 0)),
        {},
        rf"'{KOHYA}\.lora_down\.weight' is of rank 0: its shape is \(0, 4\)",
    ),
    "one number for Kohya's matrix": (
        kohya(down=torch.tensor(0.5)),
        {},
        r"lora_down\.weight' is of rank 0: its shape is \(\)",
    ),
    "two of Kohya's alphas": (
        kohya(alpha=torch.ones(2)),
        {},
        rf"'{KOHYA}\.alpha' is not one finite number: its shape is \(2,\)",
    ),
    "none of Kohya's alphas": (kohya(alpha=torch.ones(0)), {}, r"one finite number: .* \(0,\)"),
    "Kohya's alpha that is none": (
        kohya(alpha=torch.tensor(float("inf"))),
        {},
        r"\.alpha' is not one finite number: its shape is \(\)",
    ),
    "half of Kohya's": ({f"{KOHYA}.lora_down.weight": DOWN}, {}, "has no counterpart"),
    "Kohya's other kinds": ({f"{KOHYA}.lokr_w1": DOWN}, {}, "lokr_w1' is not a key of a plain"),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_does_not_fit(tmp_path: Path, fault: str) -> None:
    tensors, metadata, text = BAD[fault]
    write(tmp_path, "bad", tensors, **metadata)
    with pytest.raises(
        FailedPrecondition, match=f"^Adapter 'bad' cannot be used: .*{text}"
    ) as told:
        shelf(tmp_path).take("bad")
    assert told.value.reason == "ADAPTER_UNFIT"


def test_files_that_are_not_safetensors(tmp_path: Path) -> None:
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x04")
    (tmp_path / "renamed.safetensors").write_bytes(b"\x80\x04 a pickle after all")
    (tmp_path / "empty").mkdir()
    found = shelf(tmp_path)
    assert found.names == ("empty", "pickle", "renamed")
    with pytest.raises(
        FailedPrecondition, match=r"it is a \.pt file, and only \.safetensors is read"
    ):
        found.take("pickle")
    with pytest.raises(FailedPrecondition, match="its file is not in the safetensors format"):
        found.take("renamed")
    with pytest.raises(
        FailedPrecondition, match=r"its folder has 0 \.safetensors files and not one"
    ):
        found.take("empty")
    write(tmp_path, "pickle", plain())
    os.remove(tmp_path / "pickle.pt")
    assert found.take("pickle").name == "pickle"
