"""From what a query found to the matches of an answer: their order, and what is said of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ranker.graph import ranking
from ranker.graph.beta import Posterior
from ranker.graph.index import Found, Term
from ranker.graph.knowledge import Knowledge
from ranker.graph.ranking import Evidence
from ranker.score.estimate import Estimate, Interval, abstained

MAX_ALTERNATIVES: Final = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """A capability that was found, with what is known of it; ``score`` orders the answer."""

    found: Found
    evidence: Evidence
    score: float


def ordered(found: Sequence[Found], knowledge: Knowledge) -> list[Candidate]:
    """Best first; of equal scores the one that was found first."""
    candidates = [
        Candidate(each, evidence, ranking.score(each.relevance, evidence, knowledge.means))
        for each in found
        for evidence in (knowledge.of(each.edge),)
    ]
    return sorted(candidates, key=lambda candidate: -candidate.score)


def alternatives(shown: Sequence[Candidate], others: Sequence[Candidate]) -> list[list[str]]:
    """Of each of ``shown``: ids of other models whose capability shares an intent with its own, in
    the order of ``others``."""
    serving: defaultdict[str, set[int]] = defaultdict(set)
    for number, other in enumerate(others):
        for intent in _intents(other):
            serving[intent].add(number)
    told = []
    for candidate in shown:
        sharing = sorted(set().union(*(serving[intent] for intent in _intents(candidate))))
        models = dict.fromkeys(others[number].found.offer.model for number in sharing)
        models.pop(candidate.found.offer.model, None)
        told.append(list(models)[:MAX_ALTERNATIVES])
    return told


def _intents(candidate: Candidate) -> set[str]:
    return {intent.casefold() for intent in candidate.found.offer.intents}


def why(terms: Sequence[Term], intent: str, similarity: float | None) -> str:
    """What made it match, in words."""
    parts = []
    if terms:
        words = [f'"{term.word}" in its {_listed(term.fields)}' for term in terms]
        parts.append("; ".join(words))
    if intent:
        parts.append(f'closest to its intent "{intent}"')
    if similarity is not None:
        parts.append(f"likeness of meaning {similarity:.2f}")
    return "; ".join(parts)


def success(evidence: Evidence, min_outcomes: int) -> Estimate:
    """The share of uses that succeed: Beta(1 + successes, 1 + failures), mean and 95 % interval, of
    outcomes weighted by age; abstained where they weigh less than ``min_outcomes``."""
    counted = evidence.succeeded + evidence.failed
    if evidence.successes + evidence.failures < min_outcomes:
        return abstained(counted)
    posterior = Posterior.of(evidence.successes, evidence.failures)
    low, high = posterior.interval()
    return Interval(posterior.mean, low, high).told(counted)


def _listed(fields: Sequence[str]) -> str:
    return fields[0] if len(fields) == 1 else f"{', '.join(fields[:-1])} and {fields[-1]}"
