"""The next pair: what a vote on it would tell, with a known share of mere chance.

A vote on i and j adds I x xᵀ to the information H, where x = e_i − e_j and I is the variance of
the vote's value by the fit. log det H, whose inverse is the volume of the strengths' joint
confidence region, then grows by log(1 + I xᵀ H⁻¹ x): pairs are drawn in proportion to that, as
D-optimal design has it, and with a known chance, so that it can be corrected for. With the chance
``exploration`` a pair is drawn from all alike, whatever the fit says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ranker.arena import davidson
from ranker.arena.davidson import Fit, chances
from ranker.arena.tally import Bools, Floats, Ints, Tally

EXPLORATION: Final = 0.1


@dataclass(frozen=True, slots=True)
class Entrant:
    """A contender that takes part. ``prompts`` are those it has pictures for; one that
    ``generates`` can show any."""

    contender: int
    name: str
    generates: bool
    prompts: frozenset[int]


@dataclass(frozen=True, slots=True)
class Belief:
    """What is known of the contenders' strengths: the fit to ``votes`` votes, and (contenders,
    contenders) the covariance of the posterior."""

    fit: Fit
    covariance: Floats
    votes: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """Places of two entrants among those given, in random order; ``propensity`` is the chance of
    this pair in either order."""

    left: int
    right: int
    propensity: float


def belief(tally: Tally, before: Belief | None = None) -> Belief:
    """By the MAP of all contenders, connected or not; ``before`` is where to begin."""
    start = before.fit if before and len(before.fit.strengths) == tally.contenders else None
    fit = davidson.fit(tally.contenders, tally.pairs, start=start)
    size = tally.contenders
    return Belief(fit, davidson.inverted(fit.information)[:size, :size], tally.votes)


def possible(entrants: Sequence[Entrant], *, standing: bool) -> tuple[Ints, Ints]:
    """Places of all pairs that can show the same prompt; first < second. ``standing``: there are
    prompts, so that any two that generate can."""
    together = _share_a_prompt(entrants, standing)
    first, second = np.nonzero(np.triu(together, k=1))
    return first, second


def possible_for(entrants: Sequence[Entrant], prompt: int | None) -> tuple[Ints, Ints]:
    """The same for one prompt; None is one that is new, which those that generate can show."""
    shows = np.array([each.generates or prompt in each.prompts for each in entrants], dtype=bool)
    together = shows[:, None] & shows[None, :]
    first, second = np.nonzero(np.triu(together, k=1))
    return first, second


def weights(belief: Belief, first: Ints, second: Ints, exploration: float) -> Floats:
    """The chance of each pair; ``first`` and ``second`` are contenders of the belief."""
    strengths, covariance = belief.fit.strengths, belief.covariance
    variance = np.diag(covariance)
    unsure = variance[first] + variance[second] - 2 * covariance[first, second]
    told = chances(strengths[first] - strengths[second], belief.fit.log_tie).variance
    gain = np.log1p(np.maximum(unsure * told, 0.0))
    even = np.full(first.shape, 1 / max(first.size, 1))
    if not gain.sum() > 0.0:
        return even
    mixed: Floats = exploration * even + (1 - exploration) * gain / gain.sum()
    return mixed


def draw(rng: np.random.Generator, first: Ints, second: Ints, chance: Floats) -> Drawn:
    """One of the pairs, which must be at least one, by its chance; sides by a coin."""
    reached = np.cumsum(chance)
    at = int(np.searchsorted(reached, rng.random() * reached[-1], side="right"))
    at = min(at, first.size - 1)
    left, right = int(first[at]), int(second[at])
    if rng.random() < 0.5:
        left, right = right, left
    return Drawn(left, right, float(chance[at]))


def common_prompts(one: Entrant, other: Entrant, standing: frozenset[int]) -> list[int]:
    """What both can show of the arena's ``standing`` prompts, which who generates can."""
    if one.generates and other.generates:
        return sorted(standing)
    if one.generates:
        return sorted(other.prompts)
    if other.generates:
        return sorted(one.prompts)
    return sorted(one.prompts & other.prompts)


def _share_a_prompt(entrants: Sequence[Entrant], standing: bool) -> Bools:
    number = {prompt: at for at, prompt in enumerate({p for e in entrants for p in e.prompts})}
    has = np.zeros((len(entrants), max(len(number), 1)), dtype=np.float32)
    for place, entrant in enumerate(entrants):
        has[place, [number[prompt] for prompt in entrant.prompts]] = 1.0
    generates = np.array([each.generates for each in entrants], dtype=bool)
    given = has.any(axis=1)
    together = has @ has.T > 0
    able = given | (generates & standing)
    together |= generates[:, None] & able[None, :]
    together |= generates[None, :] & able[:, None]
    return together
