"""A score as its message."""

from __future__ import annotations

from easel.ranker.v1 import ranker_pb2
from ranker import wire
from ranker.score.formula import HUNDREDTHS, Component
from ranker.score.log import Scored


def score(scored: Scored) -> ranker_pb2.Score:
    total = scored.score.total
    message = ranker_pb2.Score(
        total=ranker_pb2.Estimate(
            value=total.points / HUNDREDTHS,
            low=total.low / HUNDREDTHS,
            high=total.high / HUNDREDTHS,
            evidence=total.evidence,
            abstained=total.abstained,
        ),
        components=[_component(each) for each in scored.score.components],
        version=scored.version,
        total_hundredths=total.points,
        low_hundredths=total.low,
        high_hundredths=total.high,
        evidenced=float(total.evidenced),
        rules_digest=scored.record.rules_digest,
        evidence_digest=scored.record.evidence_digest,
    )
    message.computed_at.FromDatetime(scored.computed_at)
    return message


def _component(component: Component) -> ranker_pb2.ScoreComponent:
    found = component.valued
    return ranker_pb2.ScoreComponent(
        name=component.name,
        weight=float(component.weight),
        value=wire.estimate(found.estimate),
        points=component.points / HUNDREDTHS,
        inputs=found.inputs,
        points_hundredths=component.points,
        why=found.why,
    )
