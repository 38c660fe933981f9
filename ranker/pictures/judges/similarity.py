"""How alike a picture is to reference pictures, by the classifier's embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ranker.pictures.judging import Sight, Vector
from services.core.errors import FailedPrecondition, ModelFault


@dataclass(frozen=True, slots=True)
class SimilarityJudge:
    """Mean of the cosines to the references, -1 to 1. ``centre``: the mean of their unit vectors,
    with which one product is that mean."""

    centre: Vector
    model: str
    layer: int

    async def score(self, sight: Sight) -> float:
        found = await sight.embedding(self.model, self.layer)
        if found.shape != self.centre.shape:
            raise ModelFault("The classifier's embeddings have changed their size.")
        return float(found @ self.centre)


async def look_at(references: Sequence[Sight], model: str, layer: int) -> SimilarityJudge:
    """The judge of pictures like ``references``, at least one. Raises EaselError."""
    found = await asyncio.gather(*(sight.embedding(model, layer) for sight in references))
    if len({vector.shape for vector in found}) != 1:
        raise FailedPrecondition("The references' embeddings differ in size.")
    centre = np.mean([vector.astype(np.float64) for vector in found], axis=0)
    return SimilarityJudge(centre, model, layer)
