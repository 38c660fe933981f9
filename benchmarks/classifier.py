"""The classifier as it is served, against transformers' own pipeline, its backend called bare in a
loop, and the rate at which matrices multiply; and what is left of a call beside its work.

The large model is a ViT-L/16-384 with random weights: no weights are needed to measure speed. All
that is compared is measured in turns, round after round; ratios are of one round. ``QUICK=1`` takes
a ViT of 384 numbers a token for it, which holds to no bound.
"""

from __future__ import annotations

import asyncio
import io
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import torch
import transformers
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.overhead import ready
from benchmarks.processes import Process, started
from benchmarks.report import Bound, Entry, publish, quick
from easel.classifier.v1 import classifier_pb2 as pb
from easel.classifier.v1 import classifier_pb2_grpc
from easel.common.v1 import common_pb2
from models import DEMO_CLASSIFIER
from models.recipe.dataset import FIRST_SEED, render
from services.classifier import quantisation
from services.classifier.backends import ChosenNetwork
from services.classifier.network import Options
from services.classifier.preprocessing import Pixels, read_preprocessing
from services.core.artifacts import ArtifactStore
from services.core.reference import ModelFiles

COMMAND: Final = "make bench-classifier"
ROUNDS: Final = 1 if quick() else 3
SIDE: Final = 384
AT_ONCE: Final = 8
BATCH: Final = 8
PICTURES: Final = 16
MATRIX: Final = 4096
CALLS: Final = 50 if quick() else 400
MANY: Final = 32
MANY_CALLS: Final = 640 if quick() else 6400
TOP: Final = 5
LOAD_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Subject:
    """A model directory and what a picture costs in it."""

    name: str
    directory: Path
    flop: float


@contextmanager
def subject() -> Iterator[Subject]:
    width, layers, heads = (384, 12, 6) if quick() else (1024, 24, 16)
    config = transformers.ViTConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        image_size=SIDE,
        patch_size=16,
        num_labels=1000,
    )
    kind: Any = transformers.ViTForImageClassification
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        kind(config)(pixel_values=torch.empty(1, 3, SIDE, SIDE))
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "vit"
        torch.manual_seed(0)
        kind(config).save_pretrained(directory)
        size = {"height": SIDE, "width": SIDE}
        transformers.ViTImageProcessor(size=size).save_pretrained(directory)
        name = "ViT-S/16-384" if quick() else "ViT-L/16-384"
        yield Subject(name, directory, float(counter.get_total_flops()))


def photographs(count: int) -> list[bytes]:
    """JPEG files of 640 x 480 pixels with much the same detail as photographs."""
    chance = np.random.default_rng(0)
    files = []
    for _ in range(count):
        rough = Image.fromarray(chance.integers(0, 256, (30, 40, 3), np.uint8))
        smooth = np.asarray(rough.resize((640, 480), Image.Resampling.BICUBIC), np.int16)
        grain = chance.integers(-12, 13, smooth.shape)
        file = io.BytesIO()
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG")
        files.append(file.getvalue())
    return files


def entries() -> list[Entry]:
    return [*large(), *small()]


def large() -> list[Entry]:
    """Pictures a second of the large model, each way."""
    files = photographs(PICTURES)
    with subject() as model, tempfile.TemporaryDirectory() as scratch:
        store = ArtifactStore(Path(scratch))
        network = ChosenNetwork(Options(device="cpu"), store)
        traits = network.load(model.directory)
        pixels = decoded(model.directory, files[:BATCH])
        quantised = Path(scratch) / "int8"
        agreement = in_int8(model.directory, quantised, files, store)
        with (
            started("served-classifier", str(model.directory), scratch) as process,
            started("served-classifier", str(quantised), scratch, "int8") as small,
        ):
            for each in (process, small):
                asyncio.run(ready(each.target, LOAD_SECONDS))
            runs: dict[str, Callable[[], int]] = {
                "pipeline": partial(through_pipeline, pipeline(model.directory), files),
                "served": partial(through_service, process, files, AT_ONCE),
                "int8": partial(through_service, small, files, AT_ONCE),
                "bare": partial(bare, network, pixels),
                "matrices": partial(matrices, getattr(torch, traits.precision)),
            }
            rates = measured(runs)
    backend = f"{traits.backend} {traits.precision}"
    gigaflops = [rate * model.flop / 1e9 for rate in rates["served"]]
    limits = [rate * 2 * MATRIX**3 / 1e9 for rate in rates["matrices"]]
    what = model.name
    return [
        entry(f"{what}, transformers' pipeline, float32, batches of {BATCH}", rates["pipeline"]),
        entry(f"{what}, served by default ({backend}), {AT_ONCE} at a time", rates["served"]),
        entry(f"{what}, bare loop of that backend, batches of {BATCH}", rates["bare"]),
        entry(f"{what}, served / pipeline", over(rates, "served", "pipeline"), "x", 4.0),
        entry(f"{what}, served / bare loop", over(rates, "served", "bare"), "ratio", 0.97),
        entry(f"{what}, served in int8, {AT_ONCE} at a time", rates["int8"]),
        entry(f"{what}, served in int8 / pipeline", over(rates, "int8", "pipeline"), "x", 6.5),
        entry(f"{what}, int8, best labels as in float32 (random weights)", [agreement], "share"),
        entry(f"{what}, served", gigaflops, "GFLOP/s"),
        entry(f"matrices of {MATRIX} in {traits.precision}", limits, "GFLOP/s"),
        entry(
            f"{what}, served / matrices in {traits.precision}",
            [one / most for one, most in zip(gigaflops, limits, strict=True)],
            "share",
            0.9,
        ),
    ]


def in_int8(directory: Path, out: Path, files: Sequence[bytes], store: ArtifactStore) -> float:
    """Publish the model as ``out``; the share of pictures with the same best label. The gate is
    open: random weights, which amplify rounding, tell nothing of what a trained model loses.
    """
    with tempfile.TemporaryDirectory() as pictures:
        for number, file in enumerate(files):
            (Path(pictures) / f"{number}.jpg").write_bytes(file)
        report = quantisation.quantise(
            ModelFiles("bench", "1", directory, "sha256:00"),
            quantisation.Scheme.INT8_STATIC,
            out,
            calibrate=Path(pictures),
            min_agreement=0.0,
            store=store,
            weigh=lambda *_: 0,
        )
    return float(report["agreement"]["rate"])


def small() -> list[Entry]:
    """What is left of a call of the demo model beside decoding and computing."""
    pictures = list(render(range(FIRST_SEED["held_out"], FIRST_SEED["held_out"] + MANY))[0])
    files = [png(picture) for picture in pictures]
    with tempfile.TemporaryDirectory() as scratch:
        network = ChosenNetwork(Options(device="cpu"), ArtifactStore(Path(scratch)))
        network.load(DEMO_CLASSIFIER)
        pixels = decoded(DEMO_CLASSIFIER, files)
        with started("served-classifier", "demo", scratch) as process:
            asyncio.run(ready(process.target, LOAD_SECONDS))
            many = files * (MANY_CALLS // MANY)
            rates = measured(
                {
                    "served": partial(through_service, process, many, MANY),
                    "bare": lambda: sum(bare(network, pixels) for _ in range(MANY_CALLS // MANY)),
                }
            )
            rest = [asyncio.run(left_over(process.target, files)) * 1000 for _ in range(ROUNDS)]
            costs = spent(
                {
                    "computing": lambda: sum(bare(network, pixels) for _ in range(MANY)),
                    "decoding": lambda: sum(
                        len(decoded(DEMO_CLASSIFIER, files)) for _ in range(MANY)
                    ),
                    "caller": partial(through_service, process, many, MANY),
                }
            )
            began = process.processor_seconds()
            served = through_service(process, many, MANY)
            costs["service"] = (process.processor_seconds() - began) / served * 1000
    return [
        entry(f"demo, served, {MANY} at a time", rates["served"]),
        entry(f"demo, bare loop, batches of {MANY}", rates["bare"]),
        entry("demo, served / bare loop", over(rates, "served", "bare"), "ratio", 0.9),
        entry("demo, a call less its decoding and computing", rest, "ms", 2.0, "<="),
        *(
            entry(f"demo, processor time of a picture, {what}", [cost], "ms")
            for what, cost in costs.items()
        ),
    ]


def spent(runs: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Milliseconds of this process on all processors, for each that a run counts."""
    costs = {}
    for name, run in runs.items():
        began = time.process_time()
        count = run()
        costs[name] = (time.process_time() - began) / count * 1000
    return costs


def measured(runs: dict[str, Callable[[], int]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Each run's count a second, by round; the first round warms up."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            count = run()
            if number > 0:
                rates[name].append(count / (time.perf_counter() - began))
    return rates


def pipeline(directory: Path) -> Any:
    return transformers.pipeline(
        "image-classification", model=str(directory), device="cpu", dtype=torch.float32
    )


def through_pipeline(made: Any, files: Sequence[bytes]) -> int:
    return len(made(opened(files), batch_size=BATCH, top_k=TOP))


def opened(files: Sequence[bytes]) -> list[Image.Image]:
    return [Image.open(io.BytesIO(file)) for file in files]


def through_service(process: Process, files: Sequence[bytes], at_once: int) -> int:
    return asyncio.run(_through_service(process.target, files, at_once))


async def _through_service(target: str, files: Sequence[bytes], at_once: int) -> int:
    room = asyncio.Semaphore(at_once)

    async def requests() -> AsyncIterator[pb.ClassifyRequest]:
        for number, file in enumerate(files):
            await room.acquire()
            yield request(file, str(number))

    answered = 0
    async with grpc.aio.insecure_channel(target) as channel:
        stub = classifier_pb2_grpc.ClassifierServiceStub(channel)
        async for answer in stub.ClassifyStream(requests()):
            if answer.HasField("error"):
                raise RuntimeError(answer.error.message)
            room.release()
            answered += 1
    return answered


async def left_over(target: str, files: Sequence[bytes]) -> float:
    """Median seconds of a call, one after another, without what its answer says that decoding and
    computing took.
    """
    rest = []
    async with grpc.aio.insecure_channel(target) as channel:
        stub = classifier_pb2_grpc.ClassifierServiceStub(channel)
        for number in range(CALLS):
            asked = request(files[number % len(files)], str(number))
            began = time.perf_counter()
            timing = (await stub.Classify(asked)).timing
            took = time.perf_counter() - began
            rest.append(took - timing.prepare_seconds - timing.compute_seconds)
    return statistics.median(rest)


def request(file: bytes, id: str) -> pb.ClassifyRequest:
    return pb.ClassifyRequest(id=id, image=common_pb2.Image(encoded=file), top_k=TOP)


def bare(network: ChosenNetwork, pixels: Sequence[Pixels]) -> int:
    network.run(pixels, head=True, readings={})
    return len(pixels)


def matrices(dtype: torch.dtype) -> int:
    left, right = (torch.ones((MATRIX, MATRIX), dtype=dtype) for _ in range(2))
    torch.matmul(left, right)
    return 1


def decoded(directory: Path, files: Sequence[bytes]) -> list[Pixels]:
    preprocessing = read_preprocessing(directory)
    return [preprocessing.prepare(Image.open(io.BytesIO(file))) for file in files]


def png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def over(rates: dict[str, list[float]], one: str, other: str) -> list[float]:
    return [mine / theirs for mine, theirs in zip(rates[one], rates[other], strict=True)]


def entry(
    name: str,
    values: Sequence[float],
    unit: str = "pictures/s",
    limit: float | None = None,
    sense: str = ">=",
    command: str = COMMAND,
) -> Entry:
    bound = None if limit is None or quick() else Bound(sense, limit)
    spread = (max(values) - min(values)) / 2
    return Entry(name, statistics.median(values), unit, command, bound, spread)


if __name__ == "__main__":
    raise SystemExit(publish("classifier", entries()))
