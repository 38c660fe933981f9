"""How many votes hold the leader up: the fewest, as far as found, whose removal changes it.

What dropping a vote does to the gap between two strengths is known to first order from its score
g and the information H: −(e_a − e_b)ᵀ H⁻¹ g. The votes that hold the gap most are dropped first.
T. Broderick, R. Giordano and R. Meager, "An automatic finite-sample robustness metric" (2020); on
leaderboards J. Huang, Y. Shen, D. Wei and T. Broderick, arXiv 2508.11847.

The approximation only proposes: strengths are fitted again without the votes, and the number told
is one after which another really leads. Fewer may do, for not every set is tried.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ranker.arena import davidson
from ranker.arena.davidson import Fit
from ranker.arena.tally import Bools, Counts, Floats, Ints, summed

RIVALS: Final = 8
"""Contenders whose gap to the leader is smallest in standard errors: those that are looked at."""
MAX_SHARE: Final = 0.5
"""Of the votes; beyond it a number says nothing any more."""

_TRIED: Final = 2
"""Rivals with the fewest votes by the approximation, whose numbers are checked by fitting."""
_NEAR: Final = 1.5
"""How many times as many votes as the first of them a rival may seem to need, to be checked."""


@dataclass(frozen=True, slots=True)
class Removal:
    """``votes`` removed make ``rival`` lead; ``proposed`` is what the approximation said.

    ``without`` are the counts that are left.
    """

    votes: int
    rival: int
    proposed: int
    without: Counts


@dataclass(frozen=True, slots=True)
class _Kinds:
    """Votes that count alike, one row a pair and outcome: ``outcome`` 0 first, 1 second, 2 tie."""

    pair: Ints
    outcome: Ints
    count: Floats


def to_change_leader(
    contenders: int,
    pairs: Counts,
    fit: Fit,
    inverse: Floats,
    errors: Floats,
    ranked: Bools,
) -> Removal | None:
    """The removal found for the leader among ``ranked``; None where none was found.

    ``errors`` [i, j] are standard errors of differences, ``inverse`` that of ``fit.information``.
    """
    eligible = np.flatnonzero(ranked)
    if eligible.size < 2:
        return None
    leader = int(eligible[np.argmax(fit.strengths[eligible])])
    search = _Search(contenders, pairs, fit, inverse, eligible, leader)
    proposals = [search.propose(rival) for rival in _rivals(fit, errors, eligible, leader)]
    found = [each for each in proposals if each is not None]
    found.sort(key=lambda each: each.votes)
    best: Removal | None = None
    for proposal in found[:_TRIED]:
        if proposal.votes > _NEAR * found[0].votes:
            break
        removal = search.verify(proposal)
        if removal is not None and (best is None or removal.votes < best.votes):
            best = removal
    return best


def _rivals(fit: Fit, errors: Floats, eligible: Ints, leader: int) -> Ints:
    others = eligible[eligible != leader]
    gap = fit.strengths[leader] - fit.strengths[others]
    nearest: Ints = others[np.argsort(gap / errors[leader, others], kind="stable")[:RIVALS]]
    return nearest


@dataclass(frozen=True, slots=True)
class _Proposal:
    """Kinds of votes in the order in which they go, and how many of them seem enough."""

    kinds: _Kinds
    votes: int


@dataclass(frozen=True, slots=True)
class _Tried:
    """``gap`` between the leader and the best of the others without so many votes."""

    votes: int
    gap: float
    fit: Fit


class _Search:
    def __init__(
        self,
        contenders: int,
        pairs: Counts,
        fit: Fit,
        inverse: Floats,
        eligible: Ints,
        leader: int,
    ) -> None:
        self._contenders = contenders
        self._pairs = pairs
        self._fit = fit
        self._inverse = inverse
        self._eligible = eligible
        self._leader = leader
        self._others = eligible[eligible != leader]
        self._most = int(pairs.totals.sum() * MAX_SHARE)

    def propose(self, rival: int) -> _Proposal | None:
        """By first order, which says too many where they are many: at most those that are allowed.
        None where no vote holds the gap."""
        kinds, effect = self._effects(rival)
        harmful = effect < 0
        order = np.flatnonzero(harmful)[np.argsort(effect[harmful], kind="stable")]
        kinds = _Kinds(kinds.pair[order], kinds.outcome[order], kinds.count[order])
        gap = self._fit.strengths[self._leader] - self._fit.strengths[rival]
        closed = -np.cumsum(kinds.count * effect[order])
        place = int(np.searchsorted(closed, gap, side="right"))
        if not order.size:
            return None
        if place == order.size:
            return _Proposal(kinds, self._limit(kinds))
        before = float(kinds.count[:place].sum())
        left = gap - (closed[place - 1] if place else 0.0)
        votes = int(before + np.floor(left / -effect[order[place]])) + 1
        return _Proposal(kinds, min(votes, self._limit(kinds)))

    def verify(self, proposal: _Proposal) -> Removal | None:
        """The smallest number of the proposal's votes found after which the leader changes.

        The gap is nearly straight in the number, so that it is looked for where the line between
        the nearest two known gaps crosses 0; what is found is fitted once more, in full.
        """
        low = _Tried(0, self._gap(self._fit), self._fit)
        high = self._enough(proposal)
        while high is not None and low.votes < high.votes - 1:
            share = low.gap / (low.gap - high.gap)
            guess = low.votes + int(share * (high.votes - low.votes))
            votes = _inside(guess, low.votes, high.votes)
            near = low if 2 * votes < low.votes + high.votes else high
            tried = self._tried(proposal, votes, near.fit)
            low, high = (low, tried) if tried.gap < 0.0 else (tried, high)
        return None if high is None else self._removal(proposal, high)

    def _enough(self, proposal: _Proposal) -> _Tried | None:
        """The proposal's number of votes, or more, such that the leader changes."""
        votes, fit = proposal.votes, self._fit
        while votes <= self._limit(proposal.kinds):
            tried = self._tried(proposal, votes, fit)
            if tried.gap < 0.0:
                return tried
            fit = tried.fit
            votes += max(1, votes // 8)
        return None

    def _removal(self, proposal: _Proposal, found: _Tried) -> Removal | None:
        """The first number from that of ``found`` on for which a full fit has another lead."""
        for number in range(found.votes, self._limit(proposal.kinds) + 1):
            without = self._without(proposal, number)
            again = davidson.fit(self._contenders, without, self._fit.ridge, start=found.fit)
            leads = int(self._eligible[np.argmax(again.strengths[self._eligible])])
            if leads != self._leader:
                return Removal(number, leads, proposal.votes, without)
        return None

    def _limit(self, kinds: _Kinds) -> int:
        return min(self._most, int(kinds.count.sum()))

    def _tried(self, proposal: _Proposal, votes: int, start: Fit) -> _Tried:
        pairs = self._without(proposal, votes)
        fit = davidson.roughly(self._contenders, pairs, start, self._leader, self._others)
        return _Tried(votes, self._gap(fit), fit)

    def _gap(self, fit: Fit) -> float:
        return float(fit.strengths[self._leader] - fit.strengths[self._others].max())

    def _without(self, proposal: _Proposal, votes: int) -> Counts:
        """The counts without the first so many votes."""
        kinds = proposal.kinds
        before = np.cumsum(kinds.count) - kinds.count
        gone = np.clip(votes - before, 0.0, kinds.count)
        size = self._pairs.first.size
        wins, losses, ties = (
            summed(kinds.pair[of], gone[of], size)
            for of in (kinds.outcome == 0, kinds.outcome == 1, kinds.outcome == 2)
        )
        left = self._pairs
        return Counts(
            left.first,
            left.second,
            left.judge,
            left.wins - wins,
            left.losses - losses,
            left.ties - ties,
        )

    def _effects(self, rival: int) -> tuple[_Kinds, Floats]:
        """All kinds of votes, and what dropping one of each adds to the leader's gap."""
        pairs, odds = self._pairs, self._fit.chances(self._pairs)
        row = self._inverse[self._leader] - self._inverse[rival]
        between = row[pairs.first] - row[pairs.second]
        of_tie = float(row[-1]) if self._fit.has_ties else 0.0
        effects = [
            -((value - odds.mean) * between + (tie - odds.tie) * of_tie)
            for value, tie in ((0.5, 0.0), (-0.5, 0.0), (0.0, 1.0))
        ]
        counts = (pairs.wins, pairs.losses, pairs.ties)
        there = [np.flatnonzero(count) for count in counts]
        kinds = _Kinds(
            np.concatenate(there),
            np.repeat(np.arange(3), [each.size for each in there]),
            np.concatenate([count[at] for count, at in zip(counts, there, strict=True)]),
        )
        effect = np.concatenate([each[at] for each, at in zip(effects, there, strict=True)])
        return kinds, effect


def _inside(guess: int, low: int, high: int) -> int:
    """``guess`` between the two, and not so near one end that the other never moves."""
    margin = (high - low) // 8
    return min(max(guess, low + max(1, margin)), high - max(1, margin))
