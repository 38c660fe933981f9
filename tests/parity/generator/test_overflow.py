"""An autoencoder in float16 that overflows, and does not say so: its pictures are float32's."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from services.generator import pytorch
from services.generator.pytorch import TorchNetwork
from tests.parity.generator.models import SMALL, save_random_pipeline

LARGE = 6e4
"""The largest weight of the first layers: a number in float16, which what they make is not."""
MOST_LEVELS = 2


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = save_random_pipeline(tmp_path_factory.mktemp("overflows"), SMALL)
    config = made / "vae" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"force_upcast": False}))
    file = made / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    for part in ("decoder", "encoder"):
        first = weights[f"{part}.conv_in.weight"]
        first *= LARGE / first.abs().max()
        weights[f"{part}.conv_in.bias"] *= 0.0
    save_file(weights, file, {"format": "pt"})
    return made


def loaded(directory: Path, precision: str) -> TorchNetwork:
    return pytorch.load(directory, device="cpu", precision=precision)


@pytest.fixture(scope="module")
def exact(directory: Path) -> TorchNetwork:
    return loaded(directory, "float32")


def latents(rows: int) -> torch.Tensor:
    return torch.randn((rows, 4, 8, 8), generator=torch.Generator().manual_seed(0))


def test_the_rows_that_overflow_are_decoded_in_float32(
    directory: Path, exact: TorchNetwork, caplog: pytest.LogCaptureFixture
) -> None:
    network, given = loaded(directory, "float16"), latents(4)
    given[1] *= 1e-3
    given[2, 0, 0, 0] = torch.nan
    with torch.inference_mode(), caplog.at_level(logging.WARNING):
        found, again, expected = (each.decode(given) for each in (network, network, exact))
        alone = network.decode(given[1:2])
    for row in (0, 1, 3):
        assert np.std(expected[row]) > 1
        assert np.abs(found[row].astype(int) - expected[row]).max() <= MOST_LEVELS
        assert (again[row] == found[row]).all()
    assert (alone[0] == found[1]).all()
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "the autoencoder overflows in float16"
    ]


def test_the_rows_that_overflow_are_encoded_in_float32(
    directory: Path, exact: TorchNetwork
) -> None:
    pictures = torch.rand((3, 3, 16, 16), generator=torch.Generator().manual_seed(0)) * 2 - 1
    pictures[1] *= 1e-3
    with torch.inference_mode():
        found = loaded(directory, "float16").posterior(pictures)
        expected = exact.posterior(pictures)
    for ours, theirs in ((found.mean, expected.mean), (found.std, expected.std)):
        assert ours.dtype is torch.float32
        assert torch.allclose(ours, theirs, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_has_the_range_is_not_made_twice(
    directory: Path, precision: str, caplog: pytest.LogCaptureFixture
) -> None:
    with torch.inference_mode():
        loaded(directory, precision).decode(latents(2))
    assert not caplog.records
