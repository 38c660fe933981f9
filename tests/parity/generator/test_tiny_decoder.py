"""Fast previews by a tiny decoder against diffusers' AutoencoderTiny on the same latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor

from services.core.reference import ModelFiles
from services.generator.model import GeneratorModel
from services.generator.network import Pixels
from services.generator.request import PreviewMethod, PreviewWish, Wish, resolve
from services.generator.samplers import Sampler, scheduler_for
from services.generator.tiny_decoder import TinyDecoder
from tests.parity.generator.models import SMALL, save_random_pipeline
from tests.parity.generator.pair import REFERENCE, TOLERANCE, difference
from tests.unit.generator.drive import drive
from tests.unit.generator.fakes import FakeNetwork
from tests.unit.generator.tiny import save_tiny


def theirs(directory: Path, latents: torch.Tensor) -> Pixels:
    """As diffusers' pipelines decode: by the autoencoder's own scale and shift."""
    kind: Any = diffusers.AutoencoderTiny
    tiny = kind.from_pretrained(directory)
    scaled = latents / tiny.config.scaling_factor + tiny.config.shift_factor
    with torch.inference_mode():
        image = tiny.decode(scaled).sample
    processor: Any = VaeImageProcessor()
    shown = processor.postprocess(image, output_type="np")
    return np.asarray((shown * 255).round().astype(np.uint8))


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"scaling_factor": 0.4, "shift_factor": 0.2},
        {"upsampling_scaling_factor": 4, "upsample_fn": "bilinear", "act_fn": "gelu"},
    ],
)
def test_the_same_latents(tmp_path: Path, config: dict[str, Any]) -> None:
    directory = save_tiny(tmp_path, **config)
    latents = torch.randn((3, 4, 6, 5), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        made = TinyDecoder.load(directory, FakeNetwork()).decode(latents)
    assert difference(made, theirs(directory, latents)) <= 1


def test_the_last_preview_is_a_pipelines_picture(tmp_path: Path) -> None:
    directory = save_random_pipeline(tmp_path / "model", SMALL)
    tiny = save_tiny(tmp_path / "tiny")
    files = ModelFiles("parity", "1", directory, "sha256:00")
    model = GeneratorModel(
        lambda: files, REFERENCE, load_tiny=lambda network: TinyDecoder.load(tiny, network)
    )
    model.load()
    # Euler's last step ends in the clean latents that it predicts.
    wish = Wish(
        prompt="a red star",
        steps=5,
        guidance_scale=3.0,
        seed=4,
        sampler=Sampler.EULER,
        preview=PreviewWish(at_steps=(5,), method=PreviewMethod.FAST),
    )
    order = resolve(wish, model.limits, draw_seed=int)
    [[preview, _]] = drive(model, model.works(order))
    kind: Any = diffusers.AutoencoderTiny
    plain: Any = diffusers.StableDiffusionPipeline
    pipeline = plain.from_pretrained(
        directory,
        dtype=torch.float32,
        safety_checker=None,
        requires_safety_checker=False,
        vae=kind.from_pretrained(tiny),
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = scheduler_for(order.sampler, dict(pipeline.scheduler.config))
    made = pipeline(
        order.prompt,
        width=order.width,
        height=order.height,
        num_inference_steps=order.steps,
        guidance_scale=order.guidance_scale,
        generator=[torch.Generator("cpu").manual_seed(order.seeds[0])],
    )
    assert difference(preview.pixels, np.asarray(made.images[0])) <= TOLERANCE
