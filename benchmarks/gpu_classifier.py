"""A ViT-L/16-384 with random weights on a GPU, as it is served, against transformers' pipeline, its
network called bare in a loop, and the rate at which matrices multiply; all in turns.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
import transformers

from benchmarks import classifier
from benchmarks.gpu_subject import COMMAND, Size, seconds_of
from benchmarks.overhead import ready
from benchmarks.processes import started
from benchmarks.report import Entry
from services.classifier.backends import ChosenNetwork
from services.classifier.network import Options, Precision
from services.core.artifacts import ArtifactStore

_LOAD_SECONDS: Final = 300.0
_BATCHES: Final = 4
_MATRICES: Final = 10


def entries(size: Size, device: torch.device, log: Path) -> list[Entry]:
    precision: Precision = "bfloat16" if device.type == "cuda" else "float32"
    files = classifier.photographs(_BATCHES * size.batch)
    settings = [f"device={device}", "backend=pytorch"]
    with classifier.subject() as model, tempfile.TemporaryDirectory() as scratch:
        options = Options(str(device), precision, backend="pytorch")
        network = ChosenNetwork(options, ArtifactStore(Path(scratch)))
        network.load(model.directory)
        pixels = classifier.decoded(model.directory, files[: size.batch])
        peer = pipeline(model.directory, device, precision)
        arguments = (str(model.directory), scratch, precision, *settings)
        with started("served-classifier", *arguments, log=log) as process:
            asyncio.run(ready(process.target, _LOAD_SECONDS))
            runs: dict[str, Callable[[], int]] = {
                "pipeline": lambda: len(peer(classifier.opened(files), batch_size=size.batch)),
                "served": partial(classifier.through_service, process, files, 2 * size.batch),
                "bare": lambda: sum(classifier.bare(network, pixels) for _ in range(_BATCHES)),
            }
            rates = classifier.measured(runs, size.rounds)
        rates["matrices"] = [_matrices(size, device) for _ in range(size.rounds)]
        network.close()
    what, entry = model.name, partial(classifier.entry, command=COMMAND)
    reached = [rate * model.flop / 1e12 for rate in rates["bare"]]
    over = partial(classifier.over, rates)
    return [
        entry(
            f"{what}, transformers' pipeline, {precision}, batches of {size.batch}",
            rates["pipeline"],
        ),
        entry(f"{what}, served, {2 * size.batch} at a time", rates["served"]),
        entry(f"{what}, bare loop, batches of {size.batch}", rates["bare"]),
        entry(f"{what}, served / pipeline", over("served", "pipeline"), "x"),
        entry(f"{what}, served / bare loop", over("served", "bare"), "ratio"),
        entry(f"{what}, bare loop", reached, "TFLOP/s"),
        entry(
            f"{what}, bare loop / matrices in {precision}",
            [one / most for one, most in zip(reached, rates["matrices"], strict=True)],
            "share",
        ),
    ]


def pipeline(directory: Path, device: torch.device, precision: str) -> Any:
    return transformers.pipeline(
        "image-classification",
        model=str(directory),
        device=str(device),
        dtype=getattr(torch, precision),
        top_k=classifier.TOP,
    )


def _matrices(size: Size, device: torch.device) -> float:
    """TFLOP/s."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    left, right = (torch.randn((size.matrix,) * 2, device=device, dtype=dtype) for _ in range(2))
    seconds = seconds_of(device, lambda: torch.matmul(left, right), _MATRICES)
    return 2.0 * size.matrix**3 / seconds / 1e12
