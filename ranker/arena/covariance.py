"""How sure strengths are: the sandwich covariance, with a judge's votes taken together.

Of independent votes the scores (gradients of the log-likelihood, one a vote) are squared vote by
vote; a judge's votes share a taste, so the scores of one judge are summed before they are
squared. With H the information at the maximum and J the sum of those squares, the covariance is
H⁻¹ J H⁻¹: right for the spread of the estimate even where the model is not.

P. J. Huber, "The behavior of maximum likelihood estimates under nonstandard conditions" (1967);
H. White, Econometrica 50 (1982); K.-Y. Liang and S. Zeger, Biometrika 73 (1986) for clusters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from ranker.arena.davidson import Fit, quadratic
from ranker.arena.tally import ANONYMOUS, Bools, Counts, Floats, Ints, Tally, summed
from ranker.quantiles import NORMAL_97_5, student

MIN_CLUSTERS: Final = 50
"""Fewer judges say too little about how judges differ: the squares of so few sums are too small."""

_FEW: Final = 100
"""Contenders up to which a judge's square is added entry by entry, and above which by rows."""
_BLOCK: Final = 256


@dataclass(frozen=True, slots=True)
class Covariance:
    """Of the strengths, (contenders, contenders), and of log ν (0 where it was not fitted).

    ``by_judge`` tells that the votes of a judge were taken together; otherwise the intervals are
    about these judges alone. ``judges`` is the effective number of independent voices,
    (Σ n)² / Σ n² over their numbers of votes n; anonymous votes are one each. Of judges it is
    widened as far as makes 95 % intervals of normal quantiles those of Student's t.
    """

    strengths: Floats
    log_tie: float
    by_judge: bool
    judges: float


def sandwich(tally: Tally, fit: Fit, inverse: Floats) -> Covariance:
    """The covariance of ``fit`` to ``tally``; ``inverse`` is that of ``fit.information``."""
    judges = effective_judges(tally.cells)
    by_judge = judges >= MIN_CLUSTERS and bool((tally.cells.judge != ANONYMOUS).any())
    parts = tally.cells if by_judge else tally.pairs
    alone = parts.judge == ANONYMOUS if by_judge else np.ones(parts.judge.shape, dtype=bool)
    meat = _squares(tally.contenders, parts.where(alone), fit)
    if by_judge:
        meat += clustered(tally.contenders, parts.where(~alone), fit)
    # Of judges one for the mean of their sums, as in CR1; of votes one for each parameter.
    spent = 1.0 if by_judge else float(len(inverse))
    units = judges if by_judge else float(tally.votes)
    meat *= units / max(units - spent, 1.0)
    if by_judge:
        # As for clusters is usual, of one degree of freedom less than there are.
        meat *= (student(NORMAL_97_5, judges - 1) / NORMAL_97_5) ** 2
    size = len(inverse)
    full: Floats = inverse @ meat[:size, :size] @ inverse
    tie = float(full[-1, -1]) if fit.has_ties else 0.0
    return Covariance(full[: tally.contenders, : tally.contenders], tie, by_judge, judges)


def effective_judges(cells: Counts) -> float:
    """(Σ n)² / Σ n² over the judges' votes n, where an anonymous vote is a judge of its own."""
    totals = cells.totals
    if not totals.size:
        return 0.0
    named = summed(cells.judge, totals, 1)
    anonymous, named[ANONYMOUS] = named[ANONYMOUS], 0.0
    return float(totals.sum() ** 2 / ((named**2).sum() + anonymous))


def widened(strengths: Floats, inverse: Floats, separated: Bools) -> Floats:
    """``strengths``, a covariance, with the posterior's variance for those who are ``separated``.

    Who never lost leaves no residual to judge by: the sandwich of such votes would be certain of
    what the prior alone holds in place. A diagonal that is not negative keeps it a covariance.
    """
    missing = np.diag(inverse)[: len(strengths)] - np.diag(strengths)
    wider: Floats = strengths + np.diag(np.where(separated, np.maximum(missing, 0.0), 0.0))
    return wider


def centred(covariance: Floats, among: Bools) -> Floats:
    """The covariance of strengths less the mean of those for which ``among`` is true."""
    share = among / among.sum()
    shift = np.eye(len(covariance)) - share
    centred: Floats = shift @ covariance @ shift.T
    return centred


def _squares(contenders: int, parts: Counts, fit: Fit) -> Floats:
    """The sum of the squared scores of votes that are independent."""
    odds = fit.chances(parts)
    won, lost, tied = 0.5 - odds.mean, -0.5 - odds.mean, -odds.mean
    weight = parts.wins * won**2 + parts.losses * lost**2 + parts.ties * tied**2
    with_tie = -(parts.wins * won + parts.losses * lost) * odds.tie + parts.ties * tied * (
        1 - odds.tie
    )
    of_tie = (parts.wins + parts.losses) * odds.tie**2 + parts.ties * (1 - odds.tie) ** 2
    return quadratic(contenders, parts, weight, with_tie, float(of_tie.sum()))


def clustered(contenders: int, cells: Counts, fit: Fit, few: int = _FEW) -> Floats:
    """The sum over judges of the squared sums of their scores; ``few`` changes the way alone."""
    scores = Scores.of(contenders, cells, fit)
    width = contenders + 1
    meat = np.zeros((width, width))
    entries = np.bincount(scores.judge)
    many = entries[scores.judge] > few
    for block in scores.where(many).rows(_BLOCK):
        meat += block.T @ block
    sparse = scores.where(~many)
    for distance in range(few):
        # Entries stand by judge: those of one judge that are `distance` apart.
        left, right = sparse.judge[: sparse.judge.size - distance], sparse.judge[distance:]
        same = np.flatnonzero(left == right)
        if not same.size:
            break
        product = sparse.value[same] * sparse.value[same + distance]
        place = sparse.parameter[same] * width + sparse.parameter[same + distance]
        added = summed(place, product, width * width).reshape(width, width)
        meat += added if distance == 0 else added + added.T
    return meat


@dataclass(frozen=True, slots=True)
class Scores:
    """Sums of scores by judge and parameter (the last is log ν), entries in the judges' order."""

    judge: Ints
    parameter: Ints
    value: Floats
    width: int

    @classmethod
    def of(cls, contenders: int, cells: Counts, fit: Fit) -> Scores:
        odds, totals = fit.chances(cells), cells.totals
        surprise = (cells.wins - cells.losses) / 2 - totals * odds.mean
        tie = np.full(cells.judge.shape, contenders, dtype=np.int64)
        width = contenders + 1
        judge = np.concatenate([cells.judge] * 3)
        parameter = np.concatenate([cells.first, cells.second, tie])
        value = np.concatenate([surprise, -surprise, cells.ties - totals * odds.tie])
        key, entry = np.unique(judge * width + parameter, return_inverse=True)
        return cls(key // width, key % width, summed(entry, value, key.size), width)

    def where(self, chosen: Bools) -> Scores:
        return Scores(self.judge[chosen], self.parameter[chosen], self.value[chosen], self.width)

    def rows(self, block: int) -> Iterator[Floats]:
        """One row a judge that has entries, ``block`` of them at a time."""
        judges, row = np.unique(self.judge, return_inverse=True)
        for begin in range(0, judges.size, block):
            end = min(begin + block, judges.size)
            low, high = np.searchsorted(row, (begin, end))
            dense = np.zeros((end - begin, self.width))
            dense[row[low:high] - begin, self.parameter[low:high]] = self.value[low:high]
            yield dense
