"""One step of a U-Net of Stable Diffusion 1.5's size (random weights): what is served by default
against eager PyTorch, the backend called bare in a loop, and the rate at which matrices multiply in
the precision that is served; and the same U-Net in int8, which has to be asked for.

Everything is measured in turn, round after round, in one process; ratios are of one round.
``QUICK=1`` takes the demo model's U-Net for it, which holds to no bound.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import copytree, ignore_patterns
from typing import Any, Final

import diffusers
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report import Bound, Entry, publish, quick
from models import DEMO_GENERATOR
from services.core.artifacts import ArtifactStore
from services.core.reference import ModelFiles
from services.generator import backends, pytorch
from services.generator.backends import Backend, Host, Wanted
from services.generator.model import Bounds, GeneratorModel
from services.generator.network import Conditioning, Look, Network
from services.generator.request import Wish, resolve

COMMAND: Final = "python -m benchmarks.backends"
ROUNDS: Final = 2 if quick() else 5
MATRIX: Final = 4096
# What takes a tenth of a second meets a processor that others use too at its best or its worst.
LEAST_SECONDS: Final = 0.1 if quick() else 1.0
ROWS, SIDE, TOKENS = 2, 64, 77
DEMO_ROWS: Final = 16
Timings = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Subject:
    """A model directory, and what its U-Net computes in one step of ``ROWS`` rows."""

    name: str
    directory: Path
    flop: float


@contextmanager
def subject() -> Iterator[Subject]:
    with tempfile.TemporaryDirectory() as scratch:
        directory = DEMO_GENERATOR if quick() else _full_size(Path(scratch) / "model")
        outline = pytorch.load(directory, device="cpu", precision="float32", outline=True)
        name = "demo U-Net" if quick() else "SD 1.5 U-Net"
        yield Subject(name, directory, _flop(outline.unet))


def measure(subject: Subject, store: ArtifactStore) -> tuple[Timings, Network]:
    """Seconds of each, by round, and the network that is served by default."""
    served = backends.load(subject.directory, wanted=Wanted(device="cpu"), store=store)
    eager = {
        f"eager {precision}": pytorch.load(subject.directory, device="cpu", precision=precision)
        for precision in _precisions()
    }
    look = _look(served)
    int8 = _in_int8(subject.directory, store)
    runs: dict[str, Callable[[], object]] = {
        **{name: partial(network.predict, look) for name, network in eager.items()},
        "served": _served_step(subject.directory, served),
        "bare": _bare_call(served, look),
        "int8": partial(int8.predict, look),
        **{f"matrices {precision}": _matrices(precision) for precision in _precisions()},
    }
    return _timed(runs), served


def _precisions() -> list[str]:
    """A processor that does not compute in bfloat16 takes minutes for one product of matrices."""
    return ["float32", *(["bfloat16"] if Host.here().bfloat16 else [])]


def _in_int8(directory: Path, store: ArtifactStore) -> Network:
    """Calibrated on two looks at noise: the time of a step does not depend on it, and random
    weights, which amplify rounding, tell nothing of quality. ``benchmarks.precision`` does.
    """
    from services.generator import openvino

    precision = "bfloat16" if Host.here().pays else "float32"
    return openvino.load(
        directory, precision=precision, store=store, int8=True, calibrate=_noise_alone
    )


def _noise_alone(network: Network) -> list[Look]:
    return [_look(network, seed=seed) for seed in (1, 2)]


def entries() -> list[Entry]:
    with subject() as model, tempfile.TemporaryDirectory() as scratch:
        timings, served = measure(model, ArtifactStore(Path(scratch)))
        demo = _demo_rows(ArtifactStore(Path(scratch)))
    rates = {
        precision: [2 * MATRIX**3 / took / 1e9 for took in timings[f"matrices {precision}"]]
        for precision in _precisions()
    }
    reached = [model.flop / seconds / 1e9 for seconds in timings["served"]]
    effective = served.effective
    what = f"{model.name}, {ROWS} rows of {SIDE} x {SIDE} latents"
    here = f"{effective.backend} {effective.precision}"
    by = partial(_ratio, timings)
    return [
        *(_entry(f"{what}, eager {kind}", timings[f"eager {kind}"], "s") for kind in rates),
        _entry(f"{what}, served by default ({here})", timings["served"], "s"),
        _entry(f"{what}, bare backend call", timings["bare"], "s"),
        _entry(f"{what}, eager float32 / served", by("eager float32", "served"), "x", 2.7, ">="),
        _entry(f"{what}, int8", timings["int8"], "s"),
        _entry(f"{what}, eager float32 / int8", by("eager float32", "int8"), "x", 4.0, ">="),
        _entry(f"{what}, served / bare", by("served", "bare"), "ratio", 1.05, "<="),
        *(
            _entry(f"matrices of {MATRIX} in {kind}", rate, "GFLOP/s")
            for kind, rate in rates.items()
        ),
        _entry(f"{what}, served", reached, "GFLOP/s"),
        _entry(
            f"{what}, served / matrices in {effective.precision}",
            [ours / most for ours, most in zip(reached, rates[effective.precision], strict=True)],
            "share",
            0.65,
            ">=",
        ),
        *(_entry(name, seconds, "ms") for name, seconds in demo.items()),
    ]


def _demo_rows(store: ArtifactStore) -> dict[str, list[float]]:
    """Milliseconds a row of the demo model's U-Net, served by default and in eager float32."""
    served = backends.load(DEMO_GENERATOR, wanted=Wanted(device="cpu"), store=store)
    eager = pytorch.load(DEMO_GENERATOR, device="cpu", precision="float32")
    looks = {rows: _look(served, rows=rows, side=16) for rows in (ROWS, DEMO_ROWS)}
    runs = {
        f"demo U-Net, a row of {rows}, {name}": (partial(network.predict, look), rows)
        for rows, look in looks.items()
        for name, network in (("served", served), ("eager float32", eager))
    }
    timings = _timed({name: run for name, (run, _) in runs.items()})
    return {name: [s * 1000 / runs[name][1] for s in seconds] for name, seconds in timings.items()}


def _timed(runs: Mapping[str, Callable[[], object]]) -> Timings:
    timings: Timings = {name: [] for name in runs}
    with torch.inference_mode():
        for run in runs.values():
            run()
        for _ in range(ROUNDS):
            for name, run in runs.items():
                timings[name].append(_seconds(run))
    return timings


def _seconds(run: Callable[[], object]) -> float:
    """Of one call; over as many as take ``LEAST_SECONDS``."""
    calls, took, began = 0, 0.0, time.perf_counter()
    while took < LEAST_SECONDS:
        run()
        calls, took = calls + 1, time.perf_counter() - began
    return took / calls


def _served_step(directory: Path, network: Network) -> Callable[[], object]:
    """One denoising step of a guided picture, as the engine has it made; over and over."""
    files = ModelFiles("bench", "1", directory, "sha256:00")
    side = SIDE * network.vae_factor
    bounds = Bounds(max_pixels=side**2)
    model = GeneratorModel(lambda: files, lambda _directory: network, bounds=bounds)
    model.load()
    wish = Wish(prompt="x", steps=50, guidance_scale=3.0, seed=0, width=side, height=side)
    [work] = model.works(resolve(wish, model.limits, draw_seed=int))
    look = _look(network)
    work.prompts.encoded = Conditioning(look.context)
    [denoise] = [stage for stage in model.plan(work) if stage.name == "denoise"]

    def step() -> object:
        if work.evaluations == work.table.evaluations:
            work.evaluations = 0
        return model.step(denoise, [work])

    return step


def _bare_call(network: Network, look: Look) -> Callable[[], object]:
    """The backend's own call on arrays that it need not convert."""
    if network.effective.backend != Backend.OPENVINO.value:
        return partial(network.predict, look)
    from services.generator.openvino import OpenVinoNetwork

    assert isinstance(network, OpenVinoNetwork)
    request: Any = network.compiled.request
    arrays = [tensor.numpy() for tensor in (look.latents, look.timesteps, look.context)]
    return partial(request.infer, arrays, share_inputs=True, share_outputs=True)


def _matrices(precision: str) -> Callable[[], object]:
    dtype = getattr(torch, precision)
    left, right = (torch.randn((MATRIX, MATRIX)).to(dtype) for _ in range(2))
    return partial(torch.matmul, left, right)


def _look(network: Network, *, rows: int = ROWS, side: int = SIDE, seed: int = 0) -> Look:
    width = network.unet_config.cross_attention_dim
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn((rows, network.unet_channels, side, side), generator=generator)
    context = torch.randn((rows, TOKENS, width), generator=generator)
    return Look(latents, torch.full((rows,), 500.0), context)


def _flop(unet: Any) -> float:
    """Counted on its outline: no number is computed."""
    config = unet.config
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        unet(
            torch.empty(ROWS, config.in_channels, SIDE, SIDE),
            torch.empty(ROWS),
            encoder_hidden_states=torch.empty(ROWS, TOKENS, config.cross_attention_dim),
        )
    return float(counter.get_total_flops())


def _full_size(directory: Path) -> Path:
    """The demo model with a U-Net of Stable Diffusion 1.5's size, which is diffusers' default."""
    copytree(DEMO_GENERATOR, directory, ignore=ignore_patterns("unet"))
    kind: Any = diffusers.UNet2DConditionModel
    with torch.device("meta"):
        unet = kind(sample_size=SIDE, cross_attention_dim=768)
    unet.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, weight[0].numel() ** -0.5, generator=generator)
            elif "norm" in name and name.endswith("weight"):
                weight.fill_(1.0)
            else:
                # As in trained ones: OpenVINO 2026.4 folds zeros away, and then loses in int8 what
                # convolutions without them are added to.
                weight.normal_(0.0, 0.02, generator=generator)
    unet.save_pretrained(directory / "unet")
    return directory


def _ratio(timings: Timings, over: str, under: str) -> list[float]:
    return [one / other for one, other in zip(timings[over], timings[under], strict=True)]


def _entry(
    name: str, values: Sequence[float], unit: str, limit: float | None = None, sense: str = ""
) -> Entry:
    bound = None if limit is None or quick() else Bound(sense, limit)
    spread = (max(values) - min(values)) / 2
    return Entry(name, statistics.median(values), unit, COMMAND, bound, spread)


if __name__ == "__main__":
    raise SystemExit(publish("backends", entries()))
