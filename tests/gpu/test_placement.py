"""What goes to the device, and in what precision."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from services.generator import pytorch
from services.generator.channels_last import normed
from services.generator.pytorch import Placement
from tests.gpu.painting import Gallery, network_of
from tests.parity.generator.models import SMALL_XL, save_random_pipeline

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BFLOAT16_SINCE = (8, 0)
"""The compute capability of the first GPUs that multiply in it."""


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery(tmp_path_factory.mktemp("gallery"))


def test_a_gpu_is_chosen_where_there_is_one(gpu: torch.device) -> None:
    chosen, alone = Placement.choose(), Placement.choose(alone=True)
    assert chosen.device == alone.device == gpu
    able = torch.cuda.get_device_capability(gpu) >= BFLOAT16_SINCE
    assert chosen.dtype is torch.float16
    assert alone.dtype is (torch.bfloat16 if able else torch.float16)
    assert chosen.device_name == torch.cuda.get_device_name(gpu)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_precision_that_is_asked_for_is_taken(device: torch.device, precision: str) -> None:
    chosen = Placement.choose(str(device), precision)
    assert (chosen.device, chosen.dtype) == (device, PRECISIONS[precision])


@pytest.mark.parametrize("layout", ["demo", "XL"])
def test_all_of_a_model_is_on_the_device(
    gallery: Gallery, device: torch.device, layout: str
) -> None:
    network = network_of(gallery.model(layout, device, "bfloat16"))
    for part in (network.unet, network.vae, *network.text_encoders):
        placed = {(each.device, each.dtype) for each in part.parameters()}
        assert placed == {(device, torch.bfloat16)}
        assert {each.device for each in part.buffers()} <= {device}
    effective = network.effective
    assert (effective.device, effective.precision) == (str(device), "bfloat16")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_tier_that_bfloat16_does_not_keep_is_told(
    gallery: Gallery, gpu: torch.device, precision: str
) -> None:
    notes = network_of(gallery.model("demo", gpu, precision)).effective.notes
    assert ("close" in notes) == (precision == "bfloat16")


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_norms_that_leave_channels_last_change_nothing(gpu: torch.device, precision: str) -> None:
    dtype, chance = PRECISIONS[precision], torch.Generator().manual_seed(0)
    given = 3.0 * torch.randn((2, 320, 64, 64), generator=chance) + 5.0
    weight, bias = (torch.randn(320, generator=chance).to(dtype) for _ in range(2))
    given = given.to(dtype)
    expected = torch.nn.functional.group_norm(
        given.double(), 32, weight.double(), bias.double(), 1e-5
    )
    there = given.to(gpu, memory_format=torch.channels_last)
    found = normed(there, 32, weight.to(gpu), bias.to(gpu), 1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    # Half a last digit of the largest number, and what float32 sums leave.
    digit = 0.5 * torch.finfo(dtype).eps * float(expected.abs().max())
    assert float((found.cpu().double() - expected).abs().max()) <= digit + 5e-4


def test_an_autoencoder_that_overflows_stays_in_float32(
    device: torch.device, tmp_path: Path
) -> None:
    save_random_pipeline(tmp_path / "model", SMALL_XL)
    network = pytorch.load(tmp_path / "model", device=str(device), precision="float16")
    assert {each.dtype for each in network.vae.parameters()} == {torch.float32}
    assert {each.dtype for each in network.unet.parameters()} == {torch.float16}
