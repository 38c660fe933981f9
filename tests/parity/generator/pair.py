"""One model in both hands: ours, row by row, and the ``diffusers`` pipeline run alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from services.core.reference import ModelFiles
from services.generator import pytorch
from services.generator.inversion import load_inversions
from services.generator.model import AdapterFolder, ControlFolder, Defaults, GeneratorModel
from services.generator.network import Network, Pixels
from services.generator.prompt_cache import PromptCache
from services.generator.request import Order, Wish, resolve
from services.generator.samplers import Sampler, scheduler_for
from tests.unit.generator.drive import drive

TOLERANCE = 2
NO_ADAPTERS = AdapterFolder()
NO_CONTROLS = ControlFolder()
WISHES = {
    sampler: Wish(
        prompt="a red star on a white background",
        negative_prompt="a blue circle" if index % 2 else "",
        steps=5 + index % 4,
        guidance_scale=1.0 if index % 3 == 0 else 3.0,
        guidance_rescale=0.7 if index % 4 == 2 else 0.0,
        sampler=sampler,
        seed=40 + index,
    )
    for index, sampler in enumerate(Sampler)
}


@dataclass(frozen=True)
class Pair:
    """``pipeline`` is a text-to-image pipeline of ``diffusers``."""

    model: GeneratorModel
    pipeline: Any
    scheduler_config: dict[str, Any]

    def order(self, wish: Wish) -> Order:
        return resolve(wish, self.model.limits, draw_seed=int)

    def ours(self, *wishes: Wish) -> list[Pixels]:
        works = [work for wish in wishes for work in self.model.works(self.order(wish))]
        return [shown[-1].pixels for shown in drive(self.model, works)]

    def placed(self, wish: Wish) -> Pixels:
        """Ours, laid over the picture that it was painted on."""
        [work] = self.model.works(self.order(wish))
        pixels = drive(self.model, [work])[0][-1].pixels
        assert work.canvas is not None
        assert work.canvas.overlay is not None
        return np.asarray(work.canvas.overlay.apply(pixels))

    def theirs(self, wish: Wish) -> Pixels:
        order = self.order(wish)
        self.pipeline.scheduler = scheduler_for(order.sampler, self.scheduler_config)
        made = self.pipeline(
            order.prompt,
            negative_prompt=order.negative_prompt or None,
            width=order.width,
            height=order.height,
            num_inference_steps=order.steps,
            guidance_scale=order.guidance_scale,
            guidance_rescale=order.guidance_rescale,
            clip_skip=order.clip_skip or None,
            generator=[torch.Generator("cpu").manual_seed(order.seeds[0])],
        )
        return np.asarray(made.images[0])


REFERENCE = partial(pytorch.load, device="cpu", precision="float32")


def pair(
    directory: Path,
    adapters: AdapterFolder = NO_ADAPTERS,
    load: Callable[[Path], Network] = REFERENCE,
    *,
    embeddings: Path | None = None,
    controls: ControlFolder = NO_CONTROLS,
) -> Pair:
    """``load``: of our networks; theirs are always PyTorch's in float32."""
    model = _model(directory, adapters, load, embeddings, controls)
    pipeline = _pipeline(directory, model.loaded.network)
    pipeline.set_progress_bar_config(disable=True)
    return Pair(model, pipeline, dict(pipeline.scheduler.config))


def shared_pair(directory: Path) -> Pair:
    """A pair whose pipeline computes with our networks: for models too large to have twice."""
    model = _model(directory, NO_ADAPTERS, REFERENCE)
    network: Any = model.loaded.network
    parts = {
        name: part
        for (tokenizer, encoder), *found in zip(
            network.layout.texts, network.tokenizers, network.text_encoders, strict=True
        )
        for name, part in zip((tokenizer, encoder), found, strict=True)
    }
    library: Any = diffusers
    scheduler = library.PNDMScheduler.from_config(dict(network.scheduler_config))
    pipeline = library.StableDiffusionXLPipeline(
        **parts, unet=network.unet, vae=network.vae, scheduler=scheduler, add_watermarker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return Pair(model, pipeline, dict(scheduler.config))


def _model(
    directory: Path,
    adapters: AdapterFolder,
    load: Callable[[Path], Network],
    embeddings: Path | None = None,
    controls: ControlFolder = NO_CONTROLS,
) -> GeneratorModel:
    files = ModelFiles("parity", "1", directory, "sha256:00")
    model = GeneratorModel(
        lambda: files,
        load,
        defaults=Defaults(20, 3.0),
        adapters=adapters,
        controls=controls,
        load_inversions=partial(load_inversions, embeddings),
        prompt_cache=PromptCache(2**20),
    )
    model.load()
    return model


def _pipeline(directory: Path, network: Network) -> Any:
    plain: Any = StableDiffusionPipeline
    large: Any = StableDiffusionXLPipeline
    if network.layout.xl:
        return large.from_pretrained(directory, dtype=torch.float32, add_watermarker=False)
    return plain.from_pretrained(
        directory, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )


def difference(ours: Pixels, theirs: Pixels) -> int:
    """The largest of any channel of any pixel, in levels of 0 to 255."""
    assert ours.shape == theirs.shape
    assert theirs.std() > 1, "nothing is painted, so nothing is compared"
    return int(np.abs(ours.astype(int) - theirs.astype(int)).max())
