"""``make bench-gpu``: Stable Diffusion 1.5 and ViT-L/16 on a GPU, with random weights.

The parts are measured in the order of ``PARTS``; ``ONLY=steps`` runs one of them. What is compiled
on both sides is so at once: it is the processor that does it, for minutes. What has been measured
is in the record after each part. ``QUICK=1`` takes tiny models. Without a GPU it says so and ends
with 2; ``DEVICE=cpu QUICK=1`` runs on the processor all that need not be compiled there, unless
``ONLY`` names it.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
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
from benchmarks.report import OUT, Entry, chosen, publish, quick, write
from services.core.errors import FailedPrecondition

NAME: Final = "gpu"


@dataclass(slots=True)
class Run:
    """What is measured on, and what was found so far. What waits to be measured is ``held``."""

    directory: Path
    size: Size
    device: torch.device
    entries: list[Entry] = field(default_factory=list)
    rates: Rates = field(default_factory=Rates)
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
            "failed": self.failed,
        }
        return [*self.entries, *self.rates.entries(self.size)], extra


Part = Callable[[Run], None]


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
    if run.server is None or run.server.ended() is not None:
        run.server = run.held.enter_context(_compiled_server(run))
    with run.held:
        gpu_load.await_serving(run.server, run.log)
        gpu_load.measure_served(run.rates, COMPILED, run.server.target, run.size)


def _compiled_server(run: Run) -> AbstractContextManager[Process]:
    return gpu_load.served(run.directory, run.device, run.log, compiled=True)


def _pipeline(run: Run) -> Any:
    made = gpu_load.pipeline(run.directory, run.device, compiled=True)
    gpu_load.warm_up_pipeline(made, run.size, run.device)
    return made


PARTS: Final[Mapping[str, Part]] = {
    "company": company,
    "steps": steps,
    "float16-steps": float16_steps,
    "vit": vit,
    "eager": eager,
    "compilation": compilation,
    "diffusers": diffusers,
    "compiled": compiled,
    # What was compiled before is in PyTorch's cache by now.
    "compiled-steps": compiled_steps,
}
COMPILES: Final = ("compilation", "compiled", "compiled-steps")


def chosen_parts(names: str, device: torch.device) -> list[str]:
    """The parts that are named, or all; on a processor without those that would compile for
    minutes. Raises ``ValueError`` for one that there is not.
    """
    here = [name for name in PARTS if device.type != "cpu" or name not in COMPILES]
    return chosen(names, PARTS, otherwise=here)


def measured(run: Run, parts: Mapping[str, Part], *, keep: Callable[[Run], None]) -> None:
    """Each part; ``keep`` after each, also after one that fails."""
    for name, part in parts.items():
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        try:
            part(run)
        except Exception as error:  # the others are worth having
            traceback.print_exc()
            run.failed[name] = f"{type(error).__name__}: {error}"
        gc.collect()
        if run.device.type == "cuda":
            torch.cuda.empty_cache()
        keep(run)


def main() -> int:
    try:
        device = chosen_device(os.environ, quick=quick())
        names = chosen_parts(os.environ.get("ONLY", ""), device)
    except (NoGpuError, FailedPrecondition, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        size = chosen_size(quick=quick())
        run = Run(saved(Path(scratch) / "model", size), size, device)
        parts = {name: PARTS[name] for name in names}
        with run.held:
            measured(run, parts, keep=lambda run: write(NAME, *run.record()))
        code = publish(NAME, *run.record())
        for name, why in run.failed.items():
            print(f"failed: {name}: {why}", file=sys.stderr)
        return 1 if run.failed else code


if __name__ == "__main__":
    raise SystemExit(main())
