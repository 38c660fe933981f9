"""Eight rows of four adapters against the same eight rows of the base model.

``python -m benchmarks.lora`` measures both in one process, in turns: single looks of a U-Net of
Stable Diffusion 1.5's size with random weights, and whole pictures of the demo model, on PyTorch
and as it is served by default.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from benchmarks.report import Bound, Entry, publish, quick
from models import DEMO_GENERATOR
from services.core.artifacts import ArtifactStore
from services.core.reference import resolve as find
from services.generator import backends, pytorch
from services.generator.adapters import AdapterUse
from services.generator.backends import Wanted
from services.generator.diffusion import PictureWork
from services.generator.lora import AdaptableLayers, Adapter, LowRank, Outfit, Worn
from services.generator.model import AdapterFolder, GeneratorModel
from services.generator.network import Network
from services.generator.request import Wish, resolve

COMMAND = "make bench-generator"
BOUND = Bound("<=", 1.25)
ROWS = 8
RANK = 16
NAMES = ("a", "b", "c", "d")
LAYERS = ("to_q", "to_k", "to_v", "to_out.0")
ROUNDS = 3 if quick() else 9
STEPS = 4 if quick() else 20
SIDE = 8 if quick() else 16
SD15: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of seconds, mixed over base, round by round."""

    ratios: Sequence[float]
    base: float

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)

    @property
    def spread(self) -> float:
        return (max(self.ratios) - min(self.ratios)) / 2


def in_turns(base: Callable[[], object], mixed: Callable[[], object]) -> Ratio:
    """The first round warms both up."""
    rounds = [(_seconds(base), _seconds(mixed)) for _ in range(ROUNDS + 1)][1:]
    ratios = [worn / plain for plain, worn in rounds]
    return Ratio(ratios, statistics.median(plain for plain, _ in rounds))


@torch.inference_mode()
def large_unet() -> Ratio:
    """One look of 8 guided rows, 16 entries, at ``SIDE`` x ``SIDE`` latents in float32."""
    kind: Any = UNet2DConditionModel
    unet = kind(**SD15).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    layers = AdaptableLayers({"unet": unet})
    adapters = [_random_adapter(name, layers.weights) for name in NAMES]
    outfits: list[Outfit] = [
        (Worn(adapters[row * len(NAMES) // ROWS], 0.8),) for row in range(ROWS) for _ in range(2)
    ]
    latents = torch.randn(2 * ROWS, 4, SIDE, SIDE).to(memory_format=torch.channels_last)
    timesteps, context = torch.full((2 * ROWS,), 500.0), torch.randn(2 * ROWS, 77, 768)

    def look(worn: Sequence[Outfit] | None) -> None:
        with layers.wearing(worn):
            unet(latents, timesteps, encoder_hidden_states=context, return_dict=False)

    return in_turns(partial(look, None), partial(look, outfits))


def demo_model(load: Callable[[Path], Network]) -> Ratio:
    """Eight guided pictures from prompt to pixels, stepped together."""
    with TemporaryDirectory() as folder:
        model = GeneratorModel(
            partial(find, str(DEMO_GENERATOR)),
            load,
            adapters=AdapterFolder(Path(folder)),
        )
        model.load()
        weights = model.loaded.network.adaptable
        for name in NAMES:
            _write(Path(folder) / f"{name}.safetensors", _random_adapter(name, weights))
        wish = Wish(prompt="a red star", steps=STEPS, guidance_scale=3.0)
        bare = [replace(wish, seed=row) for row in range(ROWS)]
        worn = [
            replace(each, adapters=(AdapterUse(NAMES[row * len(NAMES) // ROWS], 0.8),))
            for row, each in enumerate(bare)
        ]
        return in_turns(partial(_paint, model, bare), partial(_paint, model, worn))


def entries() -> list[Entry]:
    in_pytorch = partial(pytorch.load, device="cpu", precision="float32")
    with TemporaryDirectory() as scratch:
        store = ArtifactStore(Path(scratch))
        by_default = partial(backends.load, wanted=Wanted(device="cpu"), store=store)
        measured = {
            f"U-Net of SD 1.5's size, {SIDE} x {SIDE} latents": large_unet(),
            "demo model, whole pictures": demo_model(in_pytorch),
            "demo model, whole pictures, as served by default": demo_model(by_default),
        }
    found = []
    for what, ratio in measured.items():
        name = f"{ROWS} rows of {len(NAMES)} adapters / of the base model: {what}"
        found += [
            Entry(name, ratio.median, "ratio", COMMAND, BOUND, ratio.spread),
            Entry(f"{what}, base", ratio.base, "s", COMMAND),
        ]
    return found


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _paint(model: GeneratorModel, wishes: Sequence[Wish]) -> None:
    """The orders share every step: they have the same stages."""
    works: list[PictureWork] = []
    for wish in wishes:
        works += model.works(resolve(wish, model.limits, draw_seed=int))
    for stage in model.plan(works[0]):
        for _ in range(stage.steps):
            model.step(stage, works)


def _random_adapter(name: str, weights: Any) -> Adapter:
    draw = torch.Generator().manual_seed(sum(name.encode()))
    layers = {
        layer: LowRank(
            torch.randn((RANK, weight.shape[1]), generator=draw) * weight.shape[1] ** -0.5,
            torch.randn((weight.shape[0], RANK), generator=draw) * RANK**-0.5 * 0.1,
        )
        for layer, weight in weights.items()
        if layer.startswith("unet.") and layer.endswith(LAYERS)
    }
    return Adapter(name, f"sha256:{name}", layers)


def _write(path: Path, adapter: Adapter) -> None:
    tensors = {}
    for layer, matrices in adapter.layers.items():
        tensors[f"{layer}.lora_A.weight"] = matrices.down
        tensors[f"{layer}.lora_B.weight"] = matrices.up
    save_file(tensors, path)


if __name__ == "__main__":
    raise SystemExit(publish("lora", entries()))
