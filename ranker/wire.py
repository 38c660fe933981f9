"""Conversions that the services of the ranker share."""

from __future__ import annotations

from easel.common.v1 import common_pb2
from easel.ranker.v1 import ranker_pb2
from ranker.pictures.judging import TopLabel
from ranker.score.estimate import Estimate


def label(top: TopLabel) -> common_pb2.Label:
    return common_pb2.Label(index=top.index, name=top.name, score=top.probability)


def estimate(found: Estimate) -> ranker_pb2.Estimate:
    return ranker_pb2.Estimate(
        value=found.value,
        low=found.low,
        high=found.high,
        evidence=found.evidence,
        abstained=found.abstained,
    )
