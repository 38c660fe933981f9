"""What pruning best-of-8 keeps and saves on the demo pair, and what tells early who will win.

All candidates are painted to their end, on prompts that no calibration has seen, and scored by the
classifier on their way; pruning is replayed on that, by the rules that a contest is held by.
Faithful is what the judge sees in the chosen picture: it took no part in making or choosing it. The
model's own guidance hardly ever goes wrong; without guidance there is something to be chosen.

What is served is measured too: there the rows step on while their previews are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from benchmarks.report import Bound, Chart, Entry, Line, quick
from easel.client import Client, Ranking
from easel.supervisor import plan_stack, running
from models import DEMO_CLASSIFIER, DEMO_GENERATOR, JUDGE
from models.recipe import captions, judge
from ranker.pictures.pruning.calibration import Calibration, read_all
from ranker.pictures.pruning.correlation import signals
from ranker.pictures.pruning.search import candidates_of, grid, run
from ranker.pictures.pruning.service import DEFAULT_AT
from ranker.pictures.pruning.trials import Numbers, Trials
from ranker.pictures.schedule import DEFAULT_SCHEDULE, ShareRound
from services.classifier.network import Options
from services.classifier.pytorch import TorchNetwork
from services.core.reference import resolve as find
from services.generator import pytorch
from services.generator.diffusion import DENOISE, Picture, PictureWork
from services.generator.model import GeneratorModel
from services.generator.network import Pixels
from services.generator.preview import LatentProjection
from services.generator.request import Wish, resolve

COMMAND = "make bench-ranker ONLY=pruning"
# Another draw than that of the calibrations, which is 75.
PROMPT_SEED = 76
PROMPTS = 6 if quick() else 48
CANDIDATES = 8
STEPS = 20
SIDE = 64
MAX_WORK = 0.65
CHECKPOINTS = grid(STEPS, DEFAULT_AT)
GUIDANCES: tuple[float | None, ...] = (None, 1.0)

SERVED = 2 if quick() else 12
_ASKED: dict[str, dict[str, Any]] = {
    "calibrated, the model's own guidance": {},
    "calibrated, guidance 1": {"guidance_scale": 1.0},
    "default schedule": {"rounds": [(0.6, 4), (0.8, 2)]},
}

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Seen:
    """[prompts, candidates, checkpoints] log-odds of the wanted label, as the classifier reads what
    the generator can show there; [prompts, candidates] of the finished pictures, and whether the
    judge sees there what was asked for, and how probable it is to it."""

    decoded: Numbers
    fast: Numbers
    noisy: Numbers
    final: Numbers
    right: Numbers
    probability: Numbers

    def trials(self, shown: Numbers) -> Trials:
        log_probability = -np.logaddexp(0.0, -self.final)
        return Trials(STEPS, CHECKPOINTS, shown, log_probability, self.final)


class Painter:
    """The demo pair, and the judge, in this process."""

    def __init__(self) -> None:
        self._model = GeneratorModel(
            partial(find, str(DEMO_GENERATOR)),
            partial(pytorch.load, device="cpu", precision="float32"),
        )
        self._model.load()
        self._network = self._model.loaded.network
        self._projection = LatentProjection.fit(self._network)
        self._classifier = TorchNetwork(Options(device="cpu"))
        self._classifier.load(DEMO_CLASSIFIER)
        self._judge = judge.load(JUDGE)

    def seen(self, guidance: float | None) -> Seen:
        asked = captions.prompts(PROMPT_SEED)[:: 240 // PROMPTS][:PROMPTS]
        parts = [
            self._prompt(number, prompt, label, guidance)
            for number, (prompt, label) in enumerate(track(asked, "painting"))
        ]
        return Seen(*(np.stack(each) for each in zip(*parts, strict=True)))

    def _prompt(
        self, number: int, prompt: str, label: int, guidance: float | None
    ) -> tuple[Numbers, ...]:
        seeds = tuple(100 * number + index for index in range(CANDIDATES))
        wish = Wish(
            prompt=prompt, steps=STEPS, seeds=seeds, count=CANDIDATES, guidance_scale=guidance
        )
        works = self._model.works(resolve(wish, self._model.limits, draw_seed=int))
        shown: list[list[Numbers]] = []
        answers: Sequence[object] = ()
        for stage in self._model.plan(works[0]):
            for _ in range(stage.steps):
                answers = self._model.step(stage, works)
                if stage.name == DENOISE and works[0].steps_done in CHECKPOINTS:
                    shown.append([log_odds(self._read(each), label) for each in self._views(works)])
        pictures = [_pixels(answer) for answer in answers]
        views = [np.stack([step[view] for step in shown], axis=1) for view in range(3)]
        judged = self._judged(pictures)
        wanted = log_odds(judged, label)
        right = (judged.argmax(1) == label).astype(np.float64)
        final = log_odds(self._read(pictures), label)
        return (*views, final, right, 1.0 / (1.0 + np.exp(-wanted)))

    @torch.inference_mode()
    def _views(self, works: Sequence[PictureWork]) -> tuple[list[Pixels], ...]:
        """The predicted clean picture decoded and projected, and the noisy latents decoded."""
        clean = torch.stack([work.predicted_clean() for work in works])
        noisy = torch.stack([work.look(work.evaluations) for work in works])
        fast = [_enlarged(each) for each in self._projection.apply(list(clean))]
        return list(self._network.decode(clean)), fast, list(self._network.decode(noisy))

    def _read(self, pictures: Sequence[Pixels]) -> Logits:
        logits = self._classifier.run(pictures, head=True, readings={}).logits
        assert logits is not None, "it was asked for"
        return logits

    @torch.inference_mode()
    def _judged(self, pictures: Sequence[Pixels]) -> Logits:
        inputs = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
        found: Logits = self._judge(inputs).numpy()
        return found


def measure() -> tuple[list[Entry], list[Chart]]:
    painter = Painter()
    entries: list[Entry] = []
    charts: list[Chart] = []
    for guidance in GUIDANCES:
        seen = painter.seen(guidance)
        own = guidance is None
        name = "the model's own guidance" if own else f"guidance {guidance:g}"
        entries += _pruned(seen, calibration(guidance), name)
        entries += _signals(seen, name)
        charts += _charts(seen, "own" if own else "unguided", name)
    return entries + served(), charts


def served() -> list[Entry]:
    """Steps that best-ofs really take of those planned, through all services on this machine."""
    shares: dict[str, list[float]] = {}
    asked = [prompt for prompt, _ in captions.prompts(PROMPT_SEED)[:: 240 // SERVED][:SERVED]]
    with TemporaryDirectory() as logs:
        plan = plan_stack(Path(logs))
        with running(plan), Client(plan.by_name["gateway"].target) as client:
            for number, prompt in enumerate(track(asked, "serving")):
                for name, options in _ASKED.items():
                    events = client.best_of(
                        prompt, candidates=CANDIDATES, seed=100 * number, **options
                    )
                    ranking = list(events)[-1]
                    assert isinstance(ranking, Ranking)
                    taken = ranking.row_steps_spent
                    share = taken / (taken + ranking.row_steps_saved)
                    shares.setdefault(name, []).append(share)
    return [
        Entry(f"served best of 8, {name}: steps of the U-Net", float(np.mean(found)), "ratio",
              COMMAND, None if quick() or "default" in name else Bound("<=", MAX_WORK),
              float(np.ptp(found)) / 2)
        for name, found in shares.items()
    ]  # fmt: skip


def calibration(guidance: float | None) -> Calibration:
    """The one that comes with the ranker."""
    return next(each for each in read_all(()) if each.circumstances.guidance_scale == guidance)


def _pruned(seen: Seen, known: Calibration, name: str) -> list[Entry]:
    trials = seen.trials(seen.decoded)
    best = trials.final.argmax(axis=1)
    plain, single = _faithful(seen, best), float(seen.right.mean())
    entries = [
        Entry(f"prompts of 8 candidates, {name}", PROMPTS, "prompts", COMMAND),
        Entry(f"single picture right, {name}", single, "share", COMMAND),
        Entry(f"best of 8 right, {name}", plain, "share", COMMAND),
    ]
    for kind, schedule, bounds in (
        ("calibrated", known.schedule, _bounds()),
        ("default", DEFAULT_SCHEDULE, (None, None)),
    ):
        done = run(trials, schedule)
        chosen = _winners(trials, schedule)
        share = _faithful(seen, chosen) / plain
        rows = np.arange(len(chosen))
        sure = float(seen.probability[rows, chosen].mean() / seen.probability[rows, best].mean())
        said = f"best of 8, {kind} pruning / none, {name}"
        entries += [
            Entry(f"{said}: right", share, "ratio", COMMAND, bounds[0]),
            Entry(f"{said}: the judge's probability", sure, "ratio", COMMAND),
            Entry(f"{said}: steps of the U-Net", float(done.spent.mean()), "ratio", COMMAND,
                  bounds[1], float(np.ptp(done.spent)) / 2),
            Entry(f"{said}: the best is kept", float(done.kept.mean()), "share", COMMAND),
        ]  # fmt: skip
        if kind == "calibrated":
            told = known.expected.regret_bound
            regret = float(done.regret.mean())
            entries.append(
                Entry(f"{said}: loss of score / bound told", regret / told, "ratio", COMMAND,
                      None if quick() else Bound("<=", 1.0))
            )  # fmt: skip
    return entries


def _bounds() -> tuple[Bound | None, Bound | None]:
    """Of what is kept, and of the work; a handful of prompts hold to none."""
    return (None, None) if quick() else (Bound(">=", 0.97), Bound("<=", MAX_WORK))


def _signals(seen: Seen, name: str) -> list[Entry]:
    found = []
    for kind, shown in _kinds(seen).items():
        for signal in signals(seen.trials(shown)):
            if signal.step in (6, 10, 12, 16):
                title = f"rank correlation at {signal.step / STEPS:.0%}, {kind}, {name}"
                spread = (signal.high - signal.low) / 2
                found.append(Entry(title, signal.correlation, "rho", COMMAND, None, spread))
    return found


def _charts(seen: Seen, short: str, name: str) -> list[Chart]:
    lines = []
    for kind, shown in _kinds(seen).items():
        told = signals(seen.trials(shown))
        lines.append(
            Line(
                kind,
                tuple(100.0 * each.step / STEPS for each in told),
                tuple(each.correlation for each in told),
                tuple(each.low for each in told),
                tuple(each.high for each in told),
            )
        )
    trials = seen.trials(seen.decoded)
    fronts = (
        Line("by rank alone", *_front(trials, lambda each: each.margin is None)),
        Line("with evidence", *_front(trials, lambda each: each.margin is not None)),
    )
    return [
        Chart(f"signal-{short}", f"What tells early who will win, {name}", "share of the steps, %",
              "rank correlation with the final score", tuple(lines)),
        Chart(f"schedules-{short}", f"The best schedule for its work, {name}",
              "share of the U-Net's steps, %", "loss of the chosen one, log-odds", fronts),
    ]  # fmt: skip


def _kinds(seen: Seen) -> dict[str, Numbers]:
    smooth = seen.decoded.copy()
    for place in range(1, len(CHECKPOINTS)):
        smooth[:, :, place] = 0.5 * smooth[:, :, place - 1] + 0.5 * seen.decoded[:, :, place]
    return {
        "predicted picture, decoded": seen.decoded,
        "the same, smoothed": smooth,
        "predicted picture, fast preview": seen.fast,
        "noisy latents, decoded": seen.noisy,
    }


def _front(
    trials: Trials, belongs: Callable[[ShareRound], bool]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Work in %, loss: of the schedules all of whose rounds belong, those that none beats."""
    found = []
    for schedule in candidates_of(trials):
        if all(map(belongs, schedule)):
            done = run(trials, schedule)
            found.append((100.0 * float(done.spent.mean()), float(done.loss.mean())))
    kept: list[tuple[float, float]] = []
    for work, loss in sorted(found):
        if not kept or loss < kept[-1][1]:
            kept.append((work, loss))
    return tuple(work for work, _ in kept), tuple(loss for _, loss in kept)


def _winners(trials: Trials, schedule: Sequence[ShareRound]) -> NDArray[np.intp]:
    """The candidate of each prompt that is first after pruning."""
    regret = run(trials, schedule).regret
    gaps = trials.final.max(axis=1, keepdims=True) - trials.final
    return np.asarray(np.abs(gaps - regret[:, None]).argmin(axis=1))


def _faithful(seen: Seen, chosen: NDArray[np.intp]) -> float:
    return float(np.take_along_axis(seen.right, chosen[:, None], axis=1).mean())


def log_odds(logits: Logits, label: int) -> Numbers:
    """[pictures, labels] to [pictures]."""
    others = np.delete(logits.astype(np.float64), label, axis=1)
    found: Numbers = logits[:, label].astype(np.float64) - np.logaddexp.reduce(others, axis=1)
    return found


def _enlarged(pixels: Pixels) -> Pixels:
    size = (SIDE, SIDE)
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))


def _pixels(answer: object) -> Pixels:
    assert isinstance(answer, Picture), answer
    return answer.pixels
