"""What a schedule would have spent, and lost, on trials that ran to their end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranker.pictures.pruning.trials import Numbers, Trials
from ranker.pictures.schedule import Checkpoint
from ranker.quantiles import NORMAL_95, student

# Three of n is the upper 95 % limit of a rate of which none of n was seen (Hanley and
# Lippman-Hand, 1983).
_NONE_SEEN = 3.0


@dataclass(frozen=True, slots=True)
class Replay:
    """By prompt: the share of the steps that was ``spent``; the ``regret``, by how much the score
    of the best picture is above that of the best one left, from 0, and the same on the scale of
    ``standing``, the ``loss``; how often the best was ``kept``.
    ``blind_regret``: of a picture that is picked blindly, in the mean.
    """

    spent: Numbers
    regret: Numbers
    loss: Numbers
    kept: Numbers
    blind_regret: float

    def regret_bound(self) -> float:
        """The upper limit of a one-sided 95 % interval of the expected regret, by Student's t over
        prompts with Chen's correction for skewness (1995), for few prompts lose much; and no less
        than if the best picture were missed, at the upper 95 % limit of a rate that was never
        seen, for one that is picked blindly."""
        count = len(self.regret)
        spread = float(self.regret.std(ddof=1))
        t = student(NORMAL_95, count - 1)
        t += _skewness(self.regret) * (1.0 + 2.0 * t * t) / (6.0 * count**0.5)
        limit = float(self.regret.mean()) + t * spread / count**0.5
        return float(max(limit, min(1.0, _NONE_SEEN / count) * self.blind_regret))


def _skewness(numbers: Numbers) -> float:
    spread = float(numbers.std())
    return float((((numbers - numbers.mean()) / spread) ** 3).mean()) if spread > 0.0 else 0.0


def replay(trials: Trials, rounds: Sequence[Checkpoint], candidates: int | None = None) -> Replay:
    """Prunes by ``rounds``, as a Contest does.

    Of fewer ``candidates`` than there are in the trials, every run of neighbours is one contest,
    and a prompt's numbers are their means. A round between checkpoints is decided by the one
    before it, which tells less than its own would.
    Raises ValueError for more candidates, and for a round before the first checkpoint.
    """
    count = trials.candidates if candidates is None else candidates
    if not 1 <= count <= trials.candidates:
        raise ValueError(f"{count} candidates, where trials have {trials.candidates}")
    columns = [_checkpoint(trials, each.step) for each in rounds]
    starts = range(1 if count == trials.candidates else trials.candidates)
    parts = [
        _contest(trials, rounds, columns, [(start + i) % trials.candidates for i in range(count)])
        for start in starts
    ]
    spent, regret, loss, kept, blind = (np.mean(each, axis=0) for each in zip(*parts, strict=True))
    return Replay(spent, regret, loss, kept, float(np.mean(blind)))


def _checkpoint(trials: Trials, step: int) -> int:
    before = [place for place, at in enumerate(trials.checkpoints) if at <= step]
    if not before:
        raise ValueError(f"a round after step {step}, where the first was {trials.checkpoints[0]}")
    return before[-1]


def _contest(
    trials: Trials, rounds: Sequence[Checkpoint], columns: Sequence[int], who: Sequence[int]
) -> tuple[Numbers, Numbers, Numbers, Numbers, Numbers]:
    standing, final = trials.standing[:, who], trials.final[:, who]
    final_standing = trials.final_standing[:, who]
    alive: NDArray[np.bool_] = np.ones(final.shape, dtype=bool)
    row_steps, done = np.zeros(len(final)), 0
    for each, column in zip(rounds, columns, strict=True):
        row_steps += alive.sum(axis=1) * (each.step - done)
        done = each.step
        alive &= _kept(np.where(alive, standing[:, :, column], -np.inf), each)
    row_steps += alive.sum(axis=1) * (trials.steps - done)
    best = final.max(axis=1)
    regret = best - np.where(alive, final, -np.inf).max(axis=1)
    lost = final_standing.max(axis=1) - np.where(alive, final_standing, -np.inf).max(axis=1)
    spent = row_steps / (len(who) * trials.steps)
    kept = (regret == 0.0).astype(np.float64)
    return spent, regret, lost, kept, best - final.mean(axis=1)


def _kept(scores: Numbers, each: Checkpoint) -> NDArray[np.bool_]:
    """Of [prompts, candidates]; those that have left are at minus infinity."""
    # Stable, so that of equal ones the first stays.
    order = np.argsort(-scores, axis=1, kind="stable")
    places = np.argsort(order, axis=1, kind="stable")
    kept: NDArray[np.bool_] = places < each.keep
    if each.margin is not None:
        kept &= scores >= scores.max(axis=1, keepdims=True) - each.margin
    return kept
