"""Scales of autoencoders, there and back."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from services.generator.latents import LatentScale


class Config(SimpleNamespace):
    def get(self, name: str) -> Any:
        return getattr(self, name, None)


PLAIN = Config(scaling_factor=0.5)
SHIFTED = Config(scaling_factor=0.5, shift_factor=3.0)
BY_CHANNEL = Config(scaling_factor=0.5, latents_mean=[1.0, 2.0], latents_std=[4.0, 0.5])
LATENTS = torch.arange(2 * 2 * 3 * 3, dtype=torch.float32).view(2, 2, 3, 3)


def test_the_decoder_reads_unscaled_latents() -> None:
    assert LatentScale.of(PLAIN).to_decoder(LATENTS).equal(LATENTS * 2)
    assert LatentScale.of(SHIFTED).to_decoder(LATENTS).equal(LATENTS * 2 + 3)
    by_channel = LatentScale.of(BY_CHANNEL).to_decoder(LATENTS)
    assert by_channel[:, 0].equal(LATENTS[:, 0] * 8 + 1)
    assert by_channel[:, 1].equal(LATENTS[:, 1] + 2)


@pytest.mark.parametrize("config", [PLAIN, SHIFTED, BY_CHANNEL])
def test_the_encoders_latents_come_back(config: Config) -> None:
    scale = LatentScale.of(config)
    assert scale.from_encoder(scale.to_decoder(LATENTS)).allclose(LATENTS)
