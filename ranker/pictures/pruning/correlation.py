"""How much the scores on the way say of those at the end, step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ranker.pictures.pruning.trials import Numbers, Trials

RESAMPLES = 2000
# The same numbers at every run of the same trials.
_SEED = 0


@dataclass(frozen=True, slots=True)
class Signal:
    """After ``step``: Spearman's rank correlation of the scores with the final ones among the
    candidates of a prompt, in the mean over prompts, with its 95 % bootstrap interval over them;
    and how often the better half still has the best one.

    ``slope`` and ``spread`` predict: of two candidates whose standings differ by g, the final ones
    differ by ``slope * g``, with a standard deviation of ``spread`` for each.
    """

    step: int
    correlation: float
    low: float
    high: float
    best_in_half: float
    slope: float
    spread: float


def signals(trials: Trials) -> tuple[Signal, ...]:
    """One for each checkpoint."""
    return tuple(_signal(trials, column) for column in range(len(trials.checkpoints)))


def spearman(scores: Numbers, others: Numbers) -> Numbers:
    """[prompts, candidates] of both to [prompts]; 0 where one of them tells nobody apart."""
    ranks, against = (_centred(_ranks(each)) for each in (scores, others))
    scale = np.sqrt((ranks**2).sum(axis=1) * (against**2).sum(axis=1))
    found: Numbers = np.zeros(len(scores))
    np.divide((ranks * against).sum(axis=1), scale, out=found, where=scale > 0.0)
    return found


def _signal(trials: Trials, column: int) -> Signal:
    standing = trials.standing[:, :, column]
    by_prompt = spearman(standing, trials.final)
    draw = np.random.default_rng(_SEED)
    again = draw.integers(0, len(by_prompt), (RESAMPLES, len(by_prompt)))
    low, high = np.quantile(by_prompt[again].mean(axis=1), (0.025, 0.975))
    half = -(-trials.candidates // 2)
    order = np.argsort(-standing, axis=1, kind="stable")[:, :half]
    best = trials.final.max(axis=1)
    in_half = np.take_along_axis(trials.final, order, axis=1).max(axis=1) == best
    x, y = _centred(standing), _centred(trials.final_standing)
    square = float((x * x).sum())
    slope = float((x * y).sum()) / square if square > 0.0 else 0.0
    freedom = trials.prompts * (trials.candidates - 1)
    spread = float(np.sqrt(((y - slope * x) ** 2).sum() / freedom))
    return Signal(
        trials.checkpoints[column],
        float(by_prompt.mean()),
        float(low),
        float(high),
        float(in_half.mean()),
        slope,
        spread,
    )


def _ranks(numbers: Numbers) -> Numbers:
    """Of [prompts, candidates], within each prompt; equal ones share their mean rank."""
    one, other = numbers[:, :, None], numbers[:, None, :]
    ranks: Numbers = (one > other).sum(axis=2) + (one == other).sum(axis=2) / 2
    return ranks


def _centred(numbers: Numbers) -> Numbers:
    centred: Numbers = numbers - numbers.mean(axis=1, keepdims=True)
    return centred
