"""What a place does to being chosen, taken out of what results are worth.

The examination hypothesis: a result is chosen where it is looked at and found good, P(chosen at k)
= α_k · r. What α is, is told by results that were swapped. Of those whose answer might have shown
them at k and at k + 1 (their base is one of the two), choices weighted by one over the propensity
of their place have expectations α_k · Σ r and α_{k+1} · Σ r over the same results, so that

    α_{k+1} / α_k = Σ_{chosen at k+1} 1/p  /  Σ_{chosen at k} 1/p ,      α_1 = 1

(intervention harvesting: Joachims et al., WSDM 2017, section 5.2; Agarwal et al., WSDM 2019). A
prior of 1/k, worth ``PRIOR_CHOICES`` choices, stands in until there are enough of them.

What a result is worth is the clipped and self-normalised importance-sampling estimate

    r = Σ_i w_i · chosen_i  /  Σ_i w_i · α_{k_i} ,      w_i = d_i · min(1 / α_{k_i}, M)

over its impressions i at places k_i, of age weight d_i. Unclipped and without age this is the IPS
estimate (1/n) Σ chosen/α of Joachims et al.; clipping (Ionides, 2008) bounds its variance, and
since the weights of numerator and denominator are clipped alike (self-normalisation: Swaminathan
and Joachims, NIPS 2015), it costs no consistency. M = 1 is clicks over expected clicks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

PRIOR_CHOICES: Final = 20.0
MIN_EXAMINATION: Final = 0.01
MAX_WEIGHT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Swaps:
    """Choices over propensities of the results that might have stood at k and at k + 1: what was
    chosen at k, ``upper``, and at k + 1, ``lower``."""

    upper: float = 0.0
    lower: float = 0.0


@dataclass(frozen=True, slots=True)
class Shown:
    """Impressions of one result at one place, and how many were chosen; weighted by age."""

    place: int
    seen: float
    chosen: float


@dataclass(frozen=True, slots=True)
class Attraction:
    """What one result is worth: ``chosen`` of ``examined`` weighted looks at it, and the number of
    equally weighted looks that tell as much (Kish, 1965)."""

    chosen: float = 0.0
    examined: float = 0.0
    effective: float = 0.0

    @property
    def rate(self) -> float | None:
        return self.chosen / self.examined if self.examined > 0.0 else None


def contributions(base: int, place: int, count: int, propensity: float) -> dict[int, Swaps]:
    """What a choice among ``count`` results adds to the swaps of the pairs (k, k + 1), by k:
    nothing where nothing was ever swapped."""
    if propensity >= 1.0:
        return {}
    weight = 1.0 / propensity
    found = {}
    if place < count and base in (place, place + 1):
        found[place] = Swaps(upper=weight)
    if place > 1 and base in (place - 1, place):
        found[place - 1] = Swaps(lower=weight)
    return found


def examination(swaps: Mapping[int, Swaps], count: int) -> tuple[float, ...]:
    """α of the places 1 to ``count``, α_1 = 1, each at least ``MIN_EXAMINATION``."""
    alphas = [1.0]
    for place in range(1, count):
        found = swaps.get(place, Swaps())
        upper = found.upper + PRIOR_CHOICES / place
        lower = found.lower + PRIOR_CHOICES / (place + 1)
        alphas.append(max(alphas[-1] * lower / upper, MIN_EXAMINATION))
    return tuple(alphas[:count])


def attraction(shown: Sequence[Shown], alphas: Sequence[float]) -> Attraction:
    """Of impressions whose places are all within ``alphas``."""
    (found,) = attractions(
        np.zeros(len(shown), np.int64),
        1,
        np.asarray([each.place for each in shown], np.int64),
        np.asarray([each.seen for each in shown], np.float64),
        np.asarray([each.chosen for each in shown], np.float64),
        alphas,
    )
    return found


def attractions(
    owners: npt.NDArray[np.int64],
    count: int,
    places: npt.NDArray[np.int64],
    seen: npt.NDArray[np.float64],
    chosen: npt.NDArray[np.float64],
    alphas: Sequence[float],
) -> list[Attraction]:
    """As ``attraction``, of ``count`` results at once: each row is of the result that ``owners``
    names by its number."""
    examined = np.asarray(alphas, np.float64)[places - 1]
    weights = np.minimum(1.0 / examined, MAX_WEIGHT)
    looks = weights * examined
    sums = [
        np.bincount(owners, weights=values, minlength=count).tolist()
        for values in (weights * chosen, looks * seen, looks * looks * seen)
    ]
    return [
        Attraction(chosen, examined, examined * examined / squares if squares else 0.0)
        for chosen, examined, squares in zip(*sums, strict=True)
    ]
