"""Networks that are read while others compute: as from_pretrained reads them, without what it does
to the whole process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from services.core.errors import FailedPrecondition
from services.generator import pytorch
from services.generator.controlnet import load_control
from services.generator.modes import ImageToImage, Inpaint, MaskPolarity, Stylize
from services.generator.pytorch import Placement
from services.generator.request import PreviewMethod, PreviewWish, Wish
from services.generator.weights import Difference, fill, structure
from tests.parity.generator.controls import save_random_control
from tests.parity.generator.models import SMALL, SMALL_XL, random_parts, save_random_pipeline
from tests.parity.generator.pair import pair
from tests.unit.generator.defaults import default_dtype
from tests.unit.generator.pictures import given, mask, picture

UNET: Any = diffusers.UNet2DConditionModel
CPU = torch.device("cpu")
WEIGHTS = "diffusion_pytorch_model.safetensors"
ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def whole(unet: Any, directory: Path) -> None:
    unet.save_pretrained(directory)


def in_halves(unet: Any, directory: Path) -> None:
    unet.half().save_pretrained(directory, variant="fp16")


def in_shards(unet: Any, directory: Path) -> None:
    unet.save_pretrained(directory, max_shard_size="200KB")
    assert (directory / f"{WEIGHTS}.index.json").is_file()


def in_shards_of_halves(unet: Any, directory: Path) -> None:
    unet.half().save_pretrained(directory, max_shard_size="100KB", variant="fp16")
    assert (directory / f"{WEIGHTS}.index.fp16.json").is_file()


def by_older_names(unet: Any, directory: Path) -> None:
    """Of plain attention, as files had them before it took contexts."""
    config = {**unet.config, "down_block_types": ("AttnDownBlock2D", "DownBlock2D")}
    UNET.from_config(config).save_pretrained(directory)
    tensors = load_file(directory / WEIGHTS)
    for name in [name for name in tensors if name.startswith("down_blocks.0.attentions")]:
        for new, old in ATTENTION.items():
            if f".{new}." in name:
                tensors[name.replace(f".{new}.", f".{old}.")] = tensors.pop(name)
    assert any(".proj_attn." in name for name in tensors)
    save_file(tensors, directory / WEIGHTS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("save", [whole, in_halves, in_shards, in_shards_of_halves, by_older_names])
def test_the_numbers_are_those_of_from_pretrained(
    tmp_path: Path, save: Callable[[Any, Path], None], dtype: torch.dtype
) -> None:
    save(random_parts(SMALL)["unet"], tmp_path / "unet")
    variant = "fp16" if any(tmp_path.rglob("*fp16*")) else None
    theirs = UNET.from_pretrained(tmp_path / "unet", dtype=dtype, variant=variant)
    theirs.to(memory_format=torch.channels_last)
    ours = pytorch.read_unet(tmp_path, Placement(CPU, dtype))
    expected = theirs.state_dict()
    assert ours.state_dict().keys() == expected.keys()
    for name, weight in ours.state_dict().items():
        assert weight.dtype == dtype
        assert weight.stride() == expected[name].stride(), name
        assert torch.equal(weight, expected[name]), name
    assert not ours.training
    assert not any(weight.requires_grad for weight in ours.parameters())


def test_weights_that_are_not_all_there(tmp_path: Path) -> None:
    random_parts(SMALL)["unet"].save_pretrained(tmp_path / "unet")
    tensors = load_file(tmp_path / "unet" / WEIGHTS)
    tensors["more"] = tensors.pop("conv_out.bias")
    save_file(tensors, tmp_path / "unet" / WEIGHTS)
    told = fill(structure(UNET, tmp_path / "unet"), tmp_path / "unet", CPU, torch.float32)
    assert told == Difference(("conv_out.bias",), ("more",))
    with pytest.raises(FailedPrecondition, match=r"/unet' lacks the weights conv_out\.bias\."):
        pytorch.read_unet(tmp_path, Placement(CPU, torch.float32))


def test_values_that_no_file_has_are_told(tmp_path: Path) -> None:
    random_parts(SMALL)["unet"].save_pretrained(tmp_path)
    unet = structure(UNET, tmp_path)
    unet.register_buffer("computed", torch.ones(3, device="meta"), persistent=False)
    assert fill(unet, tmp_path, CPU, torch.float32) == Difference(("computed",), ())


def test_an_index_that_says_nothing(tmp_path: Path) -> None:
    random_parts(SMALL)["unet"].save_pretrained(tmp_path)
    (tmp_path / f"{WEIGHTS}.index.json").write_text("[]")
    with pytest.raises(ValueError, match="has no weight_map"):
        fill(structure(UNET, tmp_path), tmp_path, CPU, torch.float32)


@contextmanager
def watched() -> Iterator[set[Any]]:
    """What all threads share, as it is at every call and return of this one."""
    seen: set[Any] = set()

    def look(_frame: FrameType, _event: str, _given: Any) -> None:
        shared = torch.nn.Module.register_parameter, torch.nn.init.kaiming_uniform_
        seen.add((torch.get_default_dtype(), *shared))

    sys.setprofile(look)
    try:
        yield seen
    finally:
        sys.setprofile(None)


def test_a_load_leaves_alone_what_all_threads_share(tmp_path: Path) -> None:
    directory = save_random_pipeline(tmp_path / "model", SMALL)
    network = pytorch.load(directory, device="cpu", precision="bfloat16")
    folder = tmp_path / "edges"
    save_random_control(folder, network.unet, 1, factor=network.vae_factor)
    with watched() as by_control:
        net = load_control("edges", folder, network)
    with watched() as by_unet:
        pytorch.read_unet(directory, network.placement)
    with watched() as by_diffusers:
        diffusers.ControlNetModel.from_pretrained(folder, dtype=torch.bfloat16)
    assert net.net.dtype == torch.bfloat16
    assert len(by_control) == len(by_unet) == 1
    assert len(by_diffusers) > 1, "nothing is seen, so nothing is shown"


@pytest.mark.parametrize("sizes", [SMALL, SMALL_XL], ids=["small", "small XL"])
def test_another_default_dtype_changes_no_picture(tmp_path: Path, sizes: dict[str, Any]) -> None:
    model = pair(save_random_pipeline(tmp_path, sizes))
    side = model.model.limits.default_width
    image, marks = given(picture(side, side)), given(mask(side, side, (4, 2, 12, 14)), "mask")
    plain = Wish(prompt="a red star", steps=3, seed=2, guidance_scale=3.0)
    wishes = [
        replace(plain, preview=PreviewWish(at_steps=(1,), method=PreviewMethod.FAST)),
        replace(plain, mode=ImageToImage(image, 0.7)),
        replace(plain, mode=Inpaint(image, marks, MaskPolarity.WHITE, strength=0.8)),
        replace(plain, mode=Stylize(image, image, 0.4, 0.6)),
        replace(plain, width=2 * side, height=side, tiled=True),
    ]
    expected = [model.ours(wish)[0] for wish in wishes]
    with default_dtype(torch.bfloat16):
        made = [model.ours(wish)[0] for wish in wishes]
    for ours, theirs in zip(made, expected, strict=True):
        assert np.array_equal(ours, theirs)
