"""The time that one row-step takes on a GPU, against the rate at which it multiplies matrices.

A row-step is one step of one guided picture: two looks of the U-Net, the sampler, and what goes to
and from the device. Steps, bare calls of the U-Net and matrices are timed in turns.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_subject import COMMAND, Size, seconds_of
from benchmarks.report import Entry
from services.core.reference import ModelFiles
from services.generator import compiled as compilation
from services.generator import pytorch
from services.generator.diffusion import DENOISE, ENCODE, PictureWork
from services.generator.model import GeneratorModel
from services.generator.network import Look
from services.generator.pytorch import TorchNetwork
from services.generator.request import Wish, resolve

GUIDANCE: Final = 7.5
STEPS: Final = 50
_CALLS: Final = 5


def entries(
    directory: Path,
    size: Size,
    device: torch.device,
    *,
    compiled: bool = False,
    precision: str | None = None,
) -> list[Entry]:
    """``precision``: another than that of all that is measured."""
    network = _loaded(directory, device, precision or precision_on(device), compiled=compiled)
    kind = network.placement.precision
    flop = flop_of(directory, size)
    runs: dict[str, Callable[[], object]] = {"matrices": _matrices(size, network)}
    for rows in size.rows:
        runs[f"step {rows}"] = _step(directory, network, rows)
        runs[f"bare {rows}"] = partial(network.predict, _look(network, size, rows))
    seconds = measured(runs, size, device)
    rates = [2.0 * size.matrix**3 / took / 1e12 for took in seconds["matrices"]]
    found = [_entry(f"matrices of {size.matrix} in {kind}", rates, "TFLOP/s")]
    for rows in size.rows:
        what = f"{size.name}, {rows} row{'s' if rows > 1 else ''} at a time"
        what += ", compiled" if compiled else ""
        what += "" if precision is None else f", {precision}"
        steps, bare = seconds[f"step {rows}"], seconds[f"bare {rows}"]
        reached = [rows * flop / took / 1e12 for took in steps]
        shares = [one / most for one, most in zip(reached, rates, strict=True)]
        over = [one / other for one, other in zip(steps, bare, strict=True)]
        found += [
            _entry(f"{what}, a row-step", [1e3 * took / rows for took in steps], "ms"),
            _entry(
                f"{what}, a row-step at the matrices' rate", [flop / r / 1e9 for r in rates], "ms"
            ),
            _entry(f"{what}, step / bare call of the U-Net", over, "ratio"),
            _entry(f"{what}, row-steps / matrices", shares, "share"),
        ]
    return found


def _loaded(
    directory: Path, device: torch.device, precision: str, *, compiled: bool
) -> TorchNetwork:
    where = str(device)
    if not compiled:
        return pytorch.load(directory, device=where, precision=precision)
    return compilation.load(directory, device=where, precision=precision, versions={})


def precision_on(device: torch.device) -> str:
    """On a processor, where all is for a look, float32."""
    return "bfloat16" if device.type == "cuda" else "float32"


def measured(
    runs: Mapping[str, Callable[[], object]], size: Size, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each, by round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for run in runs.values():
            seconds_of(device, run, 2)
        for _ in range(size.rounds):
            for name, run in runs.items():
                seconds[name].append(seconds_of(device, run, _CALLS))
    return seconds


def flop_of(directory: Path, size: Size) -> float:
    """Of one row-step, counted on the U-Net's outline: no number is computed."""
    outline = pytorch.load(directory, device="cpu", precision="float32", outline=True)
    side, config = size.side // outline.vae_factor, outline.unet.config
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        outline.unet(
            torch.empty(2, config.in_channels, side, side),
            torch.empty(2),
            encoder_hidden_states=torch.empty(2, _tokens(outline), config.cross_attention_dim),
        )
    return float(counter.get_total_flops())


def _step(directory: Path, network: TorchNetwork, rows: int) -> Callable[[], object]:
    """The denoising step of so many guided pictures, as the engine has it made; over and over."""
    model = model_of(directory, network)
    works = [work for _ in range(rows) for work in works_of(model, seed=0, steps=STEPS)]
    stages = {stage.name: stage for stage in model.plan(works[0])}
    model.step(stages[ENCODE], works)

    def step() -> object:
        for work in works:
            if work.evaluations == work.table.evaluations:
                work.evaluations = 0
        return model.step(stages[DENOISE], works)

    return step


def model_of(directory: Path, network: TorchNetwork) -> GeneratorModel:
    files = ModelFiles("bench", "1", directory, "sha256:00")
    model = GeneratorModel(lambda: files, lambda _directory: network)
    model.load()
    return model


def works_of(model: GeneratorModel, *, seed: int, steps: int) -> list[PictureWork]:
    wish = Wish(prompt="a red star", steps=steps, guidance_scale=GUIDANCE, seed=seed)
    return model.works(resolve(wish, model.limits, draw_seed=int))


def _look(network: TorchNetwork, size: Size, rows: int) -> Look:
    side, device = size.side // network.vae_factor, network.device
    entries = 2 * rows
    width = network.unet.config.cross_attention_dim
    return Look(
        torch.randn((entries, network.unet_channels, side, side), device=device),
        torch.full((entries,), 500.0, device=device),
        torch.randn((entries, _tokens(network), width), device=device),
    )


def _tokens(network: TorchNetwork) -> int:
    return int(network.tokenizers[0].model_max_length)


def _matrices(size: Size, network: TorchNetwork) -> Callable[[], object]:
    left, right = (
        torch.randn((size.matrix, size.matrix), device=network.device, dtype=network.dtype)
        for _ in range(2)
    )
    return partial(torch.matmul, left, right)


def _entry(name: str, values: Sequence[float], unit: str) -> Entry:
    spread = (max(values) - min(values)) / 2
    return Entry(name, statistics.median(values), unit, COMMAND, None, spread)
