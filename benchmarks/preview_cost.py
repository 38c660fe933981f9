"""What a fast preview takes of a step: on the demo model, and at Stable Diffusion 1.5's size.

Both are timed where they run, on the device's thread: a preview is the predicted clean latents
through the projection. Its PNG is encoded in the finish pool and delays no step.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from benchmarks.report import Bound, Entry, quick
from models import DEMO_GENERATOR
from services.core.artifacts import ArtifactStore
from services.core.engine import Stage
from services.core.reference import resolve as find
from services.generator import backends, pytorch
from services.generator.backends import Host, Wanted
from services.generator.diffusion import DENOISE, PictureWork
from services.generator.model import GeneratorModel
from services.generator.network import Network
from services.generator.preview import LatentProjection
from services.generator.request import PreviewWish, Wish, resolve

COMMAND = "make bench-generator"
STEPS = 40 if quick() else 150
BOUND = Bound("<=", 0.02)
SD_LATENTS = (4, 64, 64)
SD_STEPS = 3
PREVIEWS = 200


def entries() -> list[Entry]:
    in_pytorch = partial(pytorch.load, device="cpu", precision="float32")
    with tempfile.TemporaryDirectory() as scratch:
        store = ArtifactStore(Path(scratch))
        by_default = partial(backends.load, wanted=Wanted(device="cpu"), store=store)
        return [
            *_demo("demo model", in_pytorch),
            *_demo("demo model as served by default", by_default),
            *([] if quick() else _full_size()),
        ]


def _demo(name: str, load: Callable[[Path], Network]) -> list[Entry]:
    model = GeneratorModel(partial(find, str(DEMO_GENERATOR)), load)
    model.load()
    wish = Wish(prompt="a red star", steps=STEPS, guidance_scale=3.0, seed=1)
    previewed = Wish(
        prompt="a red star", steps=STEPS, guidance_scale=3.0, seed=1, preview=PreviewWish(every=1)
    )
    for each in (wish, previewed):  # warms up
        _steps(model, each)
    # Step by step in turns, so that a pause of the machine hits both alike.
    plain, shown = _Run(model, wish), _Run(model, previewed)
    pairs = [(plain.step(), shown.step()) for _ in range(STEPS - 1)]
    step = statistics.median(first for first, _ in pairs)
    preview = _seconds(partial(_preview, LatentProjection.fit(model.loaded.network), shown.work))
    low, ratio, high = _median([second / first for first, second in pairs])
    whole = f"step with a preview / step without, {name}"
    return [
        Entry(f"preview cost / step, {name}", preview / step, "ratio", COMMAND, BOUND),
        Entry(whole, ratio, "ratio", COMMAND, None, (high - low) / 2),
        Entry("the same, step", step, "s", COMMAND),
        Entry("the same, preview", preview, "s", COMMAND),
    ]


def _median(values: Sequence[float]) -> tuple[float, float, float]:
    """With the ends of its 95 % interval, by ranks: as many values are below it as heads fall."""
    ranked, count = sorted(values), len(values)
    reach = math.ceil(0.98 * math.sqrt(count))
    middle = count // 2
    return ranked[max(0, middle - reach)], ranked[middle], ranked[min(count - 1, middle + reach)]


class _Run:
    """One picture, its prompt read, stepped one step at a time."""

    def __init__(self, model: GeneratorModel, wish: Wish) -> None:
        self.work: PictureWork
        (self.work,) = model.works(resolve(wish, model.limits, draw_seed=int))
        first, *rest = model.plan(self.work)
        self._model = model
        self._stage: Stage = next(stage for stage in rest if stage.name == DENOISE)
        model.step(first, [self.work])

    def step(self) -> float:
        began = time.perf_counter()
        self._model.step(self._stage, [self.work])
        return time.perf_counter() - began


def _steps(model: GeneratorModel, wish: Wish) -> None:
    run = _Run(model, wish)
    for _ in range(5):
        run.step()


def _preview(projection: LatentProjection, work: PictureWork) -> None:
    with torch.inference_mode():
        projection.apply([work.predicted_clean()])


def _full_size() -> list[Entry]:
    """Random weights cost the same: a U-Net of Stable Diffusion 1.5's layout, guided; in bf16 where
    the processor computes in it.
    """
    dtype = torch.bfloat16 if Host.here().bfloat16 else torch.float32
    kind: UNet2DConditionModel = UNet2DConditionModel(
        sample_size=64, cross_attention_dim=768, attention_head_dim=8
    )
    network = kind.to(dtype).eval()
    latents = torch.randn(SD_LATENTS)
    projection = LatentProjection(torch.randn(SD_LATENTS[0] + 1, 3))

    @torch.inference_mode()
    def step() -> None:
        both = latents.expand(2, -1, -1, -1).to(dtype)
        network(both, 500, encoder_hidden_states=torch.zeros(2, 77, 768, dtype=dtype))

    @torch.inference_mode()
    def preview() -> None:
        # As in a work: two weighed vectors make the input, two more the clean prediction.
        projection.apply([0.9 * latents + 0.1 * (0.9 * latents + 0.1 * latents)])

    step()
    taken = statistics.median(_timed(step) for _ in range(SD_STEPS))
    shown = _seconds(preview)
    return [
        Entry("preview cost / step, SD 1.5 size", shown / taken, "ratio", COMMAND, BOUND),
        Entry("the same, step", taken, "s", COMMAND),
        Entry("the same, preview", shown, "s", COMMAND),
    ]


def _seconds(act: Callable[[], None]) -> float:
    return statistics.median(_timed(act) for _ in range(PREVIEWS))


def _timed(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began
