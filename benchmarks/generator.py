"""``make bench-generator``: mixed batches against diffusers, and how faithful the demo pair is.

The demo pair is measured as it is served: pictures through the engine, ranked by the classifier's
own network, judged by a second classifier that took no part in making or choosing them.

The parts are measured in the order of ``PARTS``; ``ONLY=backends,load`` runs those.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from prometheus_client import CollectorRegistry
from rich.progress import track

from benchmarks import (
    backends,
    generator_load,
    generator_mixed,
    lora,
    precision,
    preview_cost,
    step_cache,
    stylize,
)
from benchmarks.report import Bound, Entry, parts_asked, publish, quick, write
from models import DEMO_CLASSIFIER, DEMO_GENERATOR, JUDGE
from models.recipe import captions, judge
from models.recipe.dataset import FIRST_SEED, render
from models.recipe.intervals import Flags, bootstrap, wilson
from models.recipe.shapes import LABELS, scene
from services.classifier.network import Floats, Options
from services.classifier.pytorch import TorchNetwork
from services.core.engine import Engine, EngineMetrics
from services.core.reference import resolve as find
from services.generator import pytorch
from services.generator.diffusion import Picture, PictureWork, Result
from services.generator.model import GeneratorModel
from services.generator.network import Pixels
from services.generator.request import Wish, resolve

NAME: Final = "generator"
COMMAND = "make bench-generator"
# Another seed than the recipe's own figures are of: these prompts were never looked at.
PROMPT_SEED = 73
PROMPTS = 40 if quick() else 240
SEEDS = 4
STEPS = 20
HELD_OUT = 500 if quick() else 4000
ROUNDS = 1 if quick() else 5


async def paint(prompts: list[str], guidance_scale: float | None) -> list[list[Pixels]]:
    """SEEDS pictures of each prompt, through the engine."""
    load = partial(pytorch.load, device="cpu", precision="float32")
    model = GeneratorModel(partial(find, str(DEMO_GENERATOR)), load)
    metrics = EngineMetrics(CollectorRegistry(), "bench")
    engine: Engine[PictureWork, Result] = Engine(model, metrics=metrics)
    await asyncio.to_thread(engine.load)
    await engine.start()
    painted = []
    for number, prompt in enumerate(track(prompts, "painting")):
        seeds = tuple(1000 * number + index for index in range(SEEDS))
        wish = Wish(
            prompt=prompt, steps=STEPS, seeds=seeds, count=SEEDS, guidance_scale=guidance_scale
        )
        works = model.works(resolve(wish, model.limits, draw_seed=int))
        tickets = engine.submit_all(works)
        made = [await ticket.result() for ticket in tickets]
        painted.append([each.pixels for each in made if isinstance(each, Picture)])
    await engine.close()
    return painted


def classifier_logits(pictures: list[Pixels]) -> Floats:
    """[pictures, labels] of the demo classifier, as it is served."""
    network = TorchNetwork(Options(device="cpu"))
    network.load(DEMO_CLASSIFIER)
    parts = [pictures[start : start + 64] for start in range(0, len(pictures), 64)]
    logits = [network.run(part, head=True, readings={}).logits for part in parts]
    network.close()
    return np.concatenate([part for part in logits if part is not None])


@torch.inference_mode()
def judge_logits(pictures: list[Pixels]) -> Floats:
    """[pictures, labels] of the judge."""
    model = judge.load(JUDGE)
    inputs = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
    return np.concatenate(
        [model(part).numpy() for part in torch.tensor_split(inputs, len(inputs) // 64 + 1)]
    )


def rate(name: str, right: Flags, bound: Bound | None = None) -> Entry:
    """A share over prompts; its spread is half the 95 % bootstrap interval."""
    found = bootstrap(right)
    low, high = found["interval"]
    return Entry(name, found["mean"], "share", COMMAND, bound, (high - low) / 2)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Shares by prompt: of single samples right, and of the best of SEEDS by the classifier."""

    single: Flags
    best: Flags


def judged(guidance_scale: float | None) -> Judgement:
    """The demo pair at this guidance; None for the model's own."""
    asked = captions.prompts(PROMPT_SEED)[:: 240 // PROMPTS]
    wanted = np.array([label for _, label in asked])[:, None]
    painted = asyncio.run(paint([prompt for prompt, _ in asked], guidance_scale))
    flat = [picture for row in painted for picture in row]
    right = (judge_logits(flat).argmax(1).reshape(-1, SEEDS) == wanted).astype(np.float64)
    logits = classifier_logits(flat).astype(np.float64).reshape(-1, SEEDS, len(LABELS))
    scores = np.take_along_axis(logits, wanted[..., None].repeat(SEEDS, 1), 2)[..., 0]
    scores -= np.logaddexp.reduce(logits, axis=2)
    best = np.take_along_axis(right, scores.argmax(1)[:, None], 1)[:, 0]
    return Judgement(right.mean(1), best)


def faithfulness() -> list[Entry]:
    """At its own guidance, and without: where every single sample is right, none can be better."""
    own, unguided = judged(None), judged(1.0)
    gain = bootstrap(unguided.best - unguided.single)
    name = "best of 4 less single, guidance 1"
    return [
        Entry("prompts", PROMPTS, "prompts", COMMAND),
        rate("single sample right, the model's own guidance", own.single, Bound(">=", 0.95)),
        rate("best of 4 right, the model's own guidance", own.best),
        rate("single sample right, guidance 1", unguided.single),
        rate("best of 4 right, guidance 1", unguided.best),
        Entry(name, gain["mean"], "share", COMMAND, Bound(">", 0.0)),
        Entry(f"{name}, low end of 95 %", gain["interval"][0], "share", COMMAND),
        Entry(f"{name}, high end of 95 %", gain["interval"][1], "share", COMMAND),
    ]


def critics() -> list[Entry]:
    first = FIRST_SEED["held_out"]
    seeds = range(first, first + HELD_OUT)
    pictures = list(render(seeds)[0])
    labels = np.array([scene(seed).label for seed in seeds])
    entries = []
    for name, logits, bound in (
        ("demo classifier", classifier_logits(pictures), 0.98),
        ("judge", judge_logits(pictures), 0.995),
    ):
        share = float((logits.argmax(1) == labels).mean())
        low, high = wilson(share, HELD_OUT)
        entry = f"{name}, held-out renders right"
        entries.append(Entry(entry, share, "share", COMMAND, Bound(">=", bound), (high - low) / 2))
    return entries


def mixed() -> list[Entry]:
    result = generator_mixed.measure(rounds=ROUNDS)
    low, high = result["ratio_spread"]
    name = "8 mixed requests, engine / diffusers one after another"
    return [
        Entry(name, result["ratio"], "ratio", COMMAND, Bound("<=", 0.5), (high - low) / 2),
        Entry("the same, engine", result["engine_seconds"], "s", COMMAND),
        Entry("the same, diffusers", result["pipeline_seconds"], "s", COMMAND),
        Entry(
            "the same, largest difference of a pixel",
            result["max_pixel_difference"],
            "of 255",
            COMMAND,
            Bound("<=", 2),
        ),
    ]


PARTS: Final[Mapping[str, Callable[[], list[Entry]]]] = {
    "backends": backends.entries,
    "mixed": mixed,
    "load": generator_load.entries,
    "previews": preview_cost.entries,
    "lora": lora.entries,
    "step-cache": partial(step_cache.entries, judge_logits),
    "precision": partial(precision.entries, judge_logits),
    "critics": critics,
    "faithfulness": faithfulness,
    "stylize": stylize.measure,
}


def main() -> int:
    found: list[Entry] = []
    for name in parts_asked(PARTS):
        print(f"measuring: {name}", file=sys.stderr, flush=True)
        found += PARTS[name]()
        # What there is, should the next part be too much for the time that is left.
        write(NAME, found)
    return publish(NAME, found)


if __name__ == "__main__":
    raise SystemExit(main())
