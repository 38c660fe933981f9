"""Eight mixed requests through the step engine, against ``diffusers`` one after another.

``python -m benchmarks.generator_mixed [--model DIR] [--rounds N] [--precision P] [--threads T]``
measures both in one process, in turns, and prints the result as JSON. The pictures of the two
are compared too: a faster engine that paints something else would be no gain.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from prometheus_client import CollectorRegistry

from models import DEMO_GENERATOR
from services.core.engine import Engine, EngineLimits, EngineMetrics
from services.core.reference import resolve as find
from services.generator import pytorch
from services.generator.diffusion import Picture, PictureWork, Result
from services.generator.model import GeneratorModel
from services.generator.network import Pixels
from services.generator.request import Order, Wish, resolve
from services.generator.samplers import Sampler, scheduler_for

BOUND = 0.5
MAX_DIFFERENCE = 2
WISHES = (
    Wish(prompt="a red star on a white background", steps=30, guidance_scale=3.0, seed=1),
    Wish(prompt="a blue circle", steps=10, guidance_scale=1.0, seed=2, sampler=Sampler.EULER),
    Wish(
        prompt="a green square on a black background",
        steps=20,
        guidance_scale=5.0,
        seed=3,
        sampler=Sampler.DPMPP_2M_KARRAS,
    ),
    Wish(prompt="a heart", steps=15, guidance_scale=3.0, seed=4, sampler=Sampler.UNIPC),
    Wish(prompt="a yellow triangle", steps=25, guidance_scale=1.0, seed=5),
    Wish(
        prompt="an orange cross",
        negative_prompt="a circle",
        steps=20,
        guidance_scale=3.0,
        seed=6,
        sampler=Sampler.EULER_ANCESTRAL,
    ),
    Wish(prompt="a purple ring", steps=12, guidance_scale=4.0, seed=7, sampler=Sampler.DPMPP_2M),
    Wish(prompt="a pink diamond", steps=10, guidance_scale=1.0, seed=8, sampler=Sampler.LCM),
)


def measure(
    model: Path = DEMO_GENERATOR,
    *,
    rounds: int = 5,
    precision: str = "float32",
    threads: int | None = None,
) -> dict[str, Any]:
    """Medians over ``rounds``; ``ratio`` is the engine's seconds over the pipeline's, round by
    round. Both run in ``precision`` on the processor.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    return asyncio.run(_measure(model, rounds, precision))


async def _measure(directory: Path, rounds: int, precision: str) -> dict[str, Any]:
    load = partial(pytorch.load, device="cpu", precision=precision)
    model = GeneratorModel(partial(find, str(directory)), load)
    engine: Engine[PictureWork, Result] = Engine(
        model,
        limits=EngineLimits(max_step_seconds=10.0),
        metrics=EngineMetrics(CollectorRegistry(), "bench"),
    )
    await asyncio.to_thread(engine.load)
    await engine.start()
    orders = [resolve(wish, model.limits, draw_seed=int) for wish in WISHES]
    pipeline = _pipeline(directory, precision)
    seconds: list[tuple[float, float]] = []
    for _ in range(rounds + 1):  # the first one warms both up
        one_by_one, expected = _one_by_one(pipeline, orders)
        together, painted = await _together(model, engine, orders)
        seconds.append((together, one_by_one))
    await engine.close()
    return _result(seconds[1:], _difference(painted, expected), precision)


def _pipeline(directory: Path, precision: str) -> Any:
    kind: Any = StableDiffusionPipeline
    pipeline = kind.from_pretrained(
        directory,
        dtype=getattr(torch, precision),
        safety_checker=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _one_by_one(pipeline: Any, orders: Sequence[Order]) -> tuple[float, list[Pixels]]:
    config = dict(pipeline.scheduler.config)
    started = time.perf_counter()
    pictures = []
    for order in orders:
        pipeline.scheduler = scheduler_for(order.sampler, config)
        made = pipeline(
            order.prompt,
            negative_prompt=order.negative_prompt,
            num_inference_steps=order.steps,
            guidance_scale=order.guidance_scale,
            generator=[torch.Generator("cpu").manual_seed(order.seeds[0])],
        )
        pictures.append(np.asarray(made.images[0]))
    return time.perf_counter() - started, pictures


async def _together(
    model: GeneratorModel, engine: Engine[PictureWork, Result], orders: Sequence[Order]
) -> tuple[float, list[Pixels]]:
    started = time.perf_counter()
    works = [work for order in orders for work in model.works(order)]
    tickets = engine.submit_all(works)
    made = [await ticket.result() for ticket in tickets]
    seconds = time.perf_counter() - started
    return seconds, [each.pixels for each in made if isinstance(each, Picture)]


def _difference(painted: Sequence[Pixels], expected: Sequence[Pixels]) -> int:
    return max(
        int(np.abs(ours.astype(int) - theirs.astype(int)).max())
        for ours, theirs in zip(painted, expected, strict=True)
    )


def _result(seconds: list[tuple[float, float]], difference: int, precision: str) -> dict[str, Any]:
    ratios = [together / one_by_one for together, one_by_one in seconds]
    ratio = statistics.median(ratios)
    return {
        "name": "generator_mixed",
        "ratio": ratio,
        "ratio_spread": [min(ratios), max(ratios)],
        "bound": BOUND,
        "holds": ratio <= BOUND and (precision != "float32" or difference <= MAX_DIFFERENCE),
        "engine_seconds": statistics.median(together for together, _ in seconds),
        "pipeline_seconds": statistics.median(one_by_one for _, one_by_one in seconds),
        "max_pixel_difference": difference,
        "requests": len(WISHES),
        "rounds": len(seconds),
        "precision": precision,
        "threads": torch.get_num_threads(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=DEMO_GENERATOR)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    result = measure(
        given.model, rounds=given.rounds, precision=given.precision, threads=given.threads
    )
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
