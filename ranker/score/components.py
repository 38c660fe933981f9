"""The five parts of a score, each valued 0 to 1 from its evidence, or abstaining."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from ranker.graph.beta import Posterior
from ranker.score.estimate import Estimate, Interval, abstained, mean, weighted_sum, wilson
from ranker.score.evidence import Evidence, Outcomes

ADOPTION: Final = "adoption"
QUALITY: Final = "quality"
ECOSYSTEM: Final = "ecosystem"
MATCH_GRAPH: Final = "match_graph"
FRESHNESS: Final = "freshness"
COMPONENTS: Final = (ADOPTION, QUALITY, ECOSYSTEM, MATCH_GRAPH, FRESHNESS)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the parts need to be told: the least evidence, and in how many days freshness halves."""

    min_evidence: int
    half_life_days: float


@dataclass(frozen=True, slots=True)
class Valued:
    """A part's value with what it was computed from, as text; ``why`` it abstains, else empty."""

    estimate: Estimate
    inputs: Mapping[str, str]
    why: str = ""


def valued(name: str, evidence: Evidence, terms: Terms) -> Valued:
    """Raises ``KeyError`` for a part that does not exist."""
    return _VALUED_BY[name](evidence, terms)


def adoption(evidence: Evidence, terms: Terms) -> Valued:
    """The share of the type's other models that are used less, a tie counting half, with Wilson's
    interval; averaged over the facts of use. The logarithm that is often taken of such counts would
    change no place in the order."""
    inputs = {
        each.name: f"{each.value}: more than {each.below} and as much as "
        f"{each.equal} of {each.peers} others"
        for each in evidence.usage
    }
    enough = [each for each in evidence.usage if each.peers >= terms.min_evidence]
    if not enough:
        most = max((each.peers for each in evidence.usage), default=0)
        why = (
            f"{most} other models of the type have a count of use; at least {terms.min_evidence} "
            "are needed"
            if evidence.usage
            else "no count of its use is known"
        )
        return Valued(abstained(most), inputs, why)
    found = mean(wilson(each.below + each.equal / 2, each.peers) for each in enough)
    return Valued(found.told(min(each.peers for each in enough)), inputs)


def quality(evidence: Evidence, terms: Terms) -> Valued:
    """The share of its measured claims that hold, and each rate that was counted, all with Wilson's
    interval; the mean of the claims' share and the mean rate where there are both."""
    claims, least = evidence.claims, terms.min_evidence
    inputs = {
        "claims verified": str(claims.verified),
        "claims contradicted": str(claims.contradicted),
        "claims without a measurement": str(claims.unmeasured),
        **{each.name: f"{each.successes} of {each.trials}" for each in evidence.measurements},
    }
    sources: list[Interval] = []
    count = 0
    if claims.judged >= least:
        sources.append(wilson(claims.verified, claims.judged))
        count += claims.judged
    counted = [each for each in evidence.measurements if each.trials >= max(1, least)]
    if counted:
        rates = [wilson(each.successes, each.trials) for each in counted]
        sources.append(weighted_sum((1 / len(rates), rate) for rate in rates))
        count += sum(each.trials for each in counted)
    if not sources:
        why = f"{claims.judged} of its claims were measured; at least {least} are needed"
        return Valued(abstained(claims.judged), inputs, why)
    return Valued(weighted_sum((1 / len(sources), each) for each in sources).told(count), inputs)


def ecosystem(evidence: Evidence, terms: Terms) -> Valued:  # noqa: ARG001
    """The share that is there of what one looks for around its type. Nothing is sampled: the
    interval is as wide as what could not be seen."""
    seen = evidence.ecosystem
    present, unknown = len(seen.present), len(seen.unknown)
    count = present + len(seen.absent)
    inputs = {
        "there": ", ".join(seen.present),
        "missing": ", ".join(seen.absent),
        "not seen": ", ".join(seen.unknown),
    }
    if not count:
        return Valued(abstained(), inputs, "nothing around it could be looked at")
    total = count + unknown
    share = Interval(present / count, present / total, (present + unknown) / total)
    return Valued(share.told(count), inputs)


def match_graph(evidence: Evidence, terms: Terms) -> Valued:
    """The success rate's posterior mean and 95 % credible interval: Beta(1 + successes, 1 +
    failures) of the outcomes that were recorded, each halved in weight as it ages."""
    seen = evidence.outcomes
    inputs = {
        "outcomes recorded": str(seen.recorded),
        "successes, weighted by age": _number(seen.successes),
        "failures, weighted by age": _number(seen.failures),
    }
    if min(seen.recorded, seen.successes + seen.failures) < terms.min_evidence:
        why = (
            f"{seen.recorded} outcomes were recorded, weighing {_number(_weight(evidence))}; "
            f"at least {terms.min_evidence} are needed"
        )
        return Valued(abstained(seen.recorded), inputs, why)
    return Valued(success(seen).told(seen.recorded), inputs)


def success(seen: Outcomes) -> Interval:
    """The success rate that outcomes tell of, from a uniform prior."""
    posterior = Posterior.of(seen.successes, seen.failures)
    return Interval(posterior.mean, *posterior.interval())


def freshness(evidence: Evidence, terms: Terms) -> Valued:
    """2 to the power of minus age / half-life. The interval is a day's: the hour is not known."""
    half_life = _number(terms.half_life_days)
    if evidence.released is None:
        inputs = {"half-life in days": half_life}
        return Valued(abstained(), inputs, "the day of its release is not known")
    days = max(0, (evidence.as_of - evidence.released).days)
    inputs = {
        "released": evidence.released.isoformat(),
        "age in days": str(days),
        "half-life in days": half_life,
    }
    value = math.exp2(-days / terms.half_life_days)
    sooner = math.exp2(-(days + 1) / terms.half_life_days)
    later = math.exp2(-max(0, days - 1) / terms.half_life_days)
    return Valued(Interval(value, sooner, later).told(1), inputs)


def _weight(evidence: Evidence) -> float:
    return evidence.outcomes.successes + evidence.outcomes.failures


def _number(value: float) -> str:
    return f"{value:.4f}".rstrip("0").rstrip(".")


_VALUED_BY: Final[Mapping[str, Callable[[Evidence, Terms], Valued]]] = {
    ADOPTION: adoption,
    QUALITY: quality,
    ECOSYSTEM: ecosystem,
    MATCH_GRAPH: match_graph,
    FRESHNESS: freshness,
}
