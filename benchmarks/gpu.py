"""``make bench-gpu``: Stable Diffusion 1.5 and ViT-L/16 on a GPU, with random weights.

The parts are measured in the order of ``PARTS``; ``ONLY=steps`` runs one of them. First all is
compiled that is compared, at once: it is the processor that does so. Together the parts are to end
within ``LIMIT`` seconds (570): one that would not is left out and named, and what has been measured
is in the record after each. ``QUICK=1`` takes tiny models. Without a GPU it says so and ends with
2; ``DEVICE=cpu QUICK=1`` runs on the processor all that need not be compiled there, unless ``ONLY``
names it.
"""

from __future__ import annotations

import gc
import math
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks import gpu_classifier, gpu_company, gpu_load, gpu_steps
from benchmarks.gpu_load import COMPILED, EAGER, Rates
from benchmarks.gpu_subject import NoGpuError, Size, chosen_device, chosen_size, described, saved
from benchmarks.processes import Process
from benchmarks.report import OUT, Entry, publish, quick, write
from services.core.errors import FailedPrecondition

NAME: Final = "gpu"
LIMIT_SECONDS: Final = 570.0


@dataclass(slots=True)
class Run:
    """What is measured on, and what was found so far. What waits to be measured is ``held``."""

    directory: Path
    size: Size
    device: torch.device
    compiled: bool = True
    entries: list[Entry] = field(default_factory=list)
    rates: Rates = field(default_factory=Rates)
    left_out: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    held: ExitStack = field(default_factory=ExitStack)
    pipeline: Any = None
    server: Process | None = None

    @property
    def log(self) -> Path:
        """What the last server said."""
        return OUT / f"{NAME}-server.log"

    def record(self) -> tuple[list[Entry], dict[str, Any]]:
        charts = [asdict(self.rates.chart(self.size))] if self.rates.found else []
        extra = {
            "accelerator": described(self.device),
            "charts": charts,
            "left_out": self.left_out,
            "failed": self.failed,
        }
        return [*self.entries, *self.rates.entries(self.size)], extra


@dataclass(frozen=True, slots=True)
class Part:
    """``seconds``: about what it takes on one H100, without what came before."""

    measure: Callable[[Run], None]
    seconds: float


def compilation(run: Run) -> None:
    """Leaves a server and a pipeline that wait to be measured."""
    run.server = run.held.enter_context(_compiled_server(run))
    run.pipeline = _pipeline(run)
    gpu_load.await_serving(run.server, run.log)


def steps(run: Run) -> None:
    run.entries += gpu_steps.entries(run.directory, run.size, run.device)


def eager(run: Run) -> None:
    with gpu_load.served(run.directory, run.device, run.log) as server:
        gpu_load.await_serving(server, run.log)
        gpu_load.measure_served(run.rates, EAGER, server.target, run.size)


def diffusers(run: Run) -> None:
    made, run.pipeline = run.pipeline or _pipeline(run), None
    gpu_load.measure_pipeline(run.rates, made, run.size, run.device)


def vit(run: Run) -> None:
    run.entries += gpu_classifier.entries(run.size, run.device, run.log)


def compiled_steps(run: Run) -> None:
    run.entries += gpu_steps.entries(run.directory, run.size, run.device, compiled=True)


def float16_steps(run: Run) -> None:
    """In the service's own choice of precision."""
    run.entries += gpu_steps.entries(run.directory, run.size, run.device, precision="float16")


def company(run: Run) -> None:
    run.entries += gpu_company.entries(run.directory, run.size, run.device)


def compiled(run: Run) -> None:
    server = run.server or run.held.enter_context(_compiled_server(run))
    gpu_load.await_serving(server, run.log)
    gpu_load.measure_served(run.rates, COMPILED, server.target, run.size)


def _compiled_server(run: Run) -> AbstractContextManager[Process]:
    return gpu_load.served(run.directory, run.device, run.log, compiled=True)


def _pipeline(run: Run) -> Any:
    made = gpu_load.pipeline(run.directory, run.device, compiled=run.compiled)
    gpu_load.warm_up_pipeline(made, run.size, run.device)
    return made


PARTS: Final[Mapping[str, Part]] = {
    "compilation": Part(compilation, 220),
    "company": Part(company, 20),
    "steps": Part(steps, 15),
    "float16-steps": Part(float16_steps, 15),
    "eager": Part(eager, 75),
    "diffusers": Part(diffusers, 55),
    "compiled": Part(compiled, 55),
    "vit": Part(vit, 45),
    # What was compiled before is in PyTorch's cache by now.
    "compiled-steps": Part(compiled_steps, 60),
}
COMPILES: Final = ("compilation", "compiled", "compiled-steps")


def chosen_parts(names: str, device: torch.device) -> list[str]:
    """The parts that are named, or all; on a processor without those that would compile for
    minutes. Raises ``ValueError`` for one that there is not.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        return [name for name in PARTS if device.type != "cpu" or name not in COMPILES]
    unknown = sorted(set(wanted) - set(PARTS))
    if unknown:
        raise ValueError(f"no such part: {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    return wanted


def measured(
    run: Run,
    parts: Mapping[str, Part],
    ends: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    keep: Callable[[Run], None],
) -> None:
    """Each part that is expected to be over at ``ends`` of ``clock``; ``keep`` after each, also
    after one that fails.
    """
    for name, part in parts.items():
        if clock() + part.seconds > ends:
            run.left_out.append(name)
            print(f"left out, for it would not end in time: {name}", file=sys.stderr, flush=True)
            continue
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        try:
            part.measure(run)
        except Exception as error:  # the others are worth having
            traceback.print_exc()
            run.failed[name] = f"{type(error).__name__}: {error}"
        gc.collect()
        if run.device.type == "cuda":
            torch.cuda.empty_cache()
        keep(run)


def main() -> int:
    began = time.monotonic()
    try:
        device = chosen_device(os.environ, quick=quick())
        names = chosen_parts(os.environ.get("ONLY", ""), device)
        limit = math.inf if quick() else float(os.environ.get("LIMIT", LIMIT_SECONDS))
    except (NoGpuError, FailedPrecondition, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        size = chosen_size(quick=quick())
        run = Run(saved(Path(scratch) / "model", size), size, device)
        parts = {name: PARTS[name] for name in names}
        with run.held:
            measured(run, parts, began + limit, keep=lambda run: write(NAME, *run.record()))
        code = publish(NAME, *run.record())
        for name, why in run.failed.items():
            print(f"failed: {name}: {why}", file=sys.stderr)
        return 1 if run.failed else code


if __name__ == "__main__":
    raise SystemExit(main())
