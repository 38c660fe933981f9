"""A score as its message."""

from __future__ import annotations

import json

from easel.ranker.v1 import ranker_pb2
from ranker import wire
from ranker.score.formula import HUNDREDTHS, Component
from ranker.score.log import Logged, Scored
from ranker.score.record import is_recomputed


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


def logged(entry: Logged) -> ranker_pb2.LoggedScore:
    """Computed again here, which takes half a millisecond."""
    record = entry.record
    recomputed = is_recomputed(record)
    return ranker_pb2.LoggedScore(
        score=score(Scored.of(entry)) if recomputed else _as_written(entry),
        rules=record.rules,
        evidence=record.evidence,
        recomputed=recomputed,
    )


def _as_written(entry: Logged) -> ranker_pb2.Score:
    """What the record says came out; nothing of it where that cannot be read."""
    message = ranker_pb2.Score(
        version=entry.record.version,
        rules_digest=entry.record.rules_digest,
        evidence_digest=entry.record.evidence_digest,
    )
    message.computed_at.FromDatetime(entry.computed_at)
    try:
        total = json.loads(entry.record.result)["total"]
        message.total_hundredths = total["points"]
        message.low_hundredths, message.high_hundredths = total["low"], total["high"]
        message.evidenced = float(total["evidenced"])
        message.total.abstained = total["abstained"]
    except (LookupError, TypeError, ValueError):
        return message
    message.total.value = message.total_hundredths / HUNDREDTHS
    message.total.low = message.low_hundredths / HUNDREDTHS
    message.total.high = message.high_hundredths / HUNDREDTHS
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
