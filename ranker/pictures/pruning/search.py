"""Which schedule loses the least for its work.

Schedules are sequential halving with evidence: at a few rounds no more than so many go on, and
those leave whose gap to the best is large beside what the score can tell there. Rounds are few
because each costs every candidate a decoded preview and a look of the judge, and, where these come
so fast that the judge falls behind, its news comes too late to stop anybody.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ranker.pictures.pruning.correlation import Signal, signals
from ranker.pictures.pruning.replay import Replay, replay
from ranker.pictures.pruning.trials import Trials
from ranker.pictures.schedule import Checkpoint, ShareRound, checkpoints, default_rounds

# Gaps in standard deviations of the prediction: a candidate that is further behind leaves.
EVIDENCE: tuple[float | None, ...] = (None, 0.5, 0.75, 1.0, 1.5)
FOLDS = 8
MAX_ROUNDS = 3
_KEPT_SHARES = (0.5, 0.25, 0.125)
# Where the margin alone decides.
_EVERYBODY = (1.0, 1.0, 1.0)
# Below this a score says next to nothing, and nobody leaves by it.
_LEAST_CORRELATION = 0.1


@dataclass(frozen=True, slots=True)
class Choice:
    """A schedule, with what it does on trials."""

    schedule: tuple[ShareRound, ...]
    replay: Replay

    @property
    def work(self) -> float:
        """Mean share of the steps that it takes."""
        return float(self.replay.spent.mean())

    @property
    def regret(self) -> float:
        return float(self.replay.regret.mean())

    @property
    def loss(self) -> float:
        return float(self.replay.loss.mean())

    @property
    def kept(self) -> float:
        return float(self.replay.kept.mean())


@dataclass(frozen=True, slots=True)
class Search:
    """``chosen``: with what was found for it in cross-validation. ``front``: the best schedules for
    less and more work, by work, as they do on the very trials that they were chosen by.
    """

    chosen: Choice
    front: tuple[Choice, ...]


def search(trials: Trials, max_work: float) -> Search:
    """The schedule of the least loss among those within ``max_work``, the mean share of the steps.

    Its numbers are cross-validated, which is what makes them honest: the search is made again
    without each fold of the prompts, and what that finds is replayed on the fold.
    Raises ValueError where no schedule takes as little.
    """
    front = _front(trials)
    within = _within(front, max_work)
    if not within:
        raise ValueError(f"no schedule takes {max_work:g} of the steps or less")
    chosen = within[-1]
    folds = np.arange(trials.prompts) % min(FOLDS, trials.prompts)
    parts = []
    for fold in np.unique(folds):
        others = _front(trials.part(folds != fold))
        # Fewer prompts may tell too little to stay within; then the least that is found.
        found = (_within(others, max_work) or others[:1] or [chosen])[-1]
        parts.append((folds == fold, run(trials.part(folds == fold), found.schedule)))
    return Search(Choice(chosen.schedule, _joined(parts)), tuple(front))


def candidates_of(trials: Trials) -> Iterator[tuple[ShareRound, ...]]:
    """Every schedule that is tried on ``trials``."""
    told = [each for each in signals(trials) if each.low > _LEAST_CORRELATION and each.slope > 0.0]
    for count in range(1, MAX_ROUNDS + 1):
        for rounds in combinations(told, count):
            for evidence in EVIDENCE:
                yield _schedule(trials, rounds, _KEPT_SHARES, evidence)
                if evidence is not None:
                    yield _schedule(trials, rounds, _EVERYBODY, evidence)


def run(trials: Trials, schedule: Sequence[ShareRound], candidates: int | None = None) -> Replay:
    """Raises ValueError as ``replay`` does."""
    count = trials.candidates if candidates is None else candidates
    return replay(trials, held(schedule, count, trials.steps), count)


def held(schedule: Sequence[ShareRound], candidates: int, steps: int) -> tuple[Checkpoint, ...]:
    """The rounds that so many candidates really go through."""
    return checkpoints(default_rounds(schedule, candidates), steps)


def _schedule(
    trials: Trials, rounds: Sequence[Signal], shares: Sequence[float], evidence: float | None
) -> tuple[ShareRound, ...]:
    return tuple(
        ShareRound(
            _share(each.step, trials.steps),
            share,
            None if evidence is None else _margin(each, evidence),
        )
        for each, share in zip(rounds, shares, strict=False)
    )


def _margin(signal: Signal, evidence: float) -> float:
    return float(f"{evidence * signal.spread / signal.slope:.3g}")


def _share(step: int, steps: int) -> float:
    """The shortest share that means this step."""
    return float(f"{step / steps:.6g}")


def _front(trials: Trials) -> list[Choice]:
    """Those that no other beats in work and loss at once, by rising work."""
    tried = [Choice(schedule, run(trials, schedule)) for schedule in candidates_of(trials)]
    best: list[Choice] = []
    for each in sorted(tried, key=lambda each: (each.work, each.loss)):
        if not best or each.loss < best[-1].loss:
            best.append(each)
    return best


def _within(front: Sequence[Choice], max_work: float) -> list[Choice]:
    return [each for each in front if each.work <= max_work]


def _joined(parts: Sequence[tuple[NDArray[np.bool_], Replay]]) -> Replay:
    """Each prompt's numbers at its place."""
    count = len(parts[0][0])
    rows = {name: np.empty(count) for name in ("spent", "regret", "loss", "kept")}
    for where, part in parts:
        for name, row in rows.items():
            row[where] = getattr(part, name)
    sizes = [int(where.sum()) for where, _ in parts]
    blind = np.average([part.blind_regret for _, part in parts], weights=sizes)
    return Replay(**rows, blind_regret=float(blind))


def grid(steps: int, shares: Sequence[float]) -> tuple[int, ...]:
    """The steps of ``shares``, each once, without the last."""
    found = sorted({math.ceil(round(share * steps, 9)) for share in shares})
    return tuple(step for step in found if 1 <= step < steps)
