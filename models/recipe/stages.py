"""Makes the demo pair stage by stage; a finished stage is skipped, a stopped one taken up again."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.recipe import (
    assemble,
    classifier,
    dataset,
    diffusion,
    evaluate,
    judge,
    publish,
    tokenizer,
    vae,
)
from models.recipe.plan import Plan

Measures = dict[str, Any]
Stage = Callable[[Path, Plan], Measures]


def run(name: str, work: Path, plan: Plan) -> None:
    """Runs one stage in `work/name`, unless `done.json` there says that it has been run."""
    folder = work / name
    finished = folder / "done.json"
    if finished.exists():
        print(f"{name}: done before", flush=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    measures = {"seconds": 0.0} | STAGES[name](work, plan)
    # A stage that was taken up again knows better than this clock how long it took in all.
    measures["seconds"] = round(measures["seconds"] or time.monotonic() - began, 1)
    finished.write_text(json.dumps(measures, indent=2) + "\n")
    print(f"{name}: {json.dumps(measures)}", flush=True)


def _data(work: Path, plan: Plan) -> Measures:
    tokenizer.build(work / "data" / "tokenizer")
    counts = {
        "train": plan.train_pictures,
        "judge": plan.judge_pictures,
        "held_out": plan.held_out_pictures,
    }
    for name, count in counts.items():
        dataset.build(work / "data", name, count)
    return {"pictures": counts}


def _encode(work: Path, _: Plan) -> Measures:
    return {"latents": vae.encode(work)}


STAGES: dict[str, Stage] = {
    "data": _data,
    "vae": lambda work, plan: vae.train(work, plan.vae),
    "encode": _encode,
    "judge": lambda work, plan: judge.train(work, plan.judge),
    "classifier": lambda work, plan: classifier.train(work, plan.classifier),
    "diffusion": lambda work, plan: diffusion.train(work, plan.diffusion),
    "assemble": lambda work, _: assemble.assemble(work),
    "evaluate": lambda work, plan: evaluate.evaluate(work, plan.evaluation),
    "publish": lambda work, _: publish.publish(work, publish.DESTINATION),
}
