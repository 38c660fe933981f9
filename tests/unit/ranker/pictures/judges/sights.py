"""Pictures as judges look at them, made for the tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ranker.pictures.judging import Classified, Pixels, TopLabel, Vector
from services.core.errors import EaselError


class FakeSight:
    """``logits`` by model, ``embeddings`` by (model, layer), one grey ``level``; or ``error``."""

    def __init__(
        self,
        logits: Mapping[str, Sequence[float]] | None = None,
        embeddings: Mapping[tuple[str, int], Sequence[float]] | None = None,
        level: int = 0,
        error: EaselError | None = None,
    ) -> None:
        self._logits = logits or {}
        self._embeddings = embeddings or {}
        self.level = level
        self._error = error

    async def classified(self, model: str) -> Classified:
        self._check()
        logits = tuple(self._logits[model])
        best = max(range(len(logits)), key=logits.__getitem__)
        return Classified(logits, TopLabel(best, f"{model}{best}", 0.5))

    async def embedding(self, model: str, layer: int) -> Vector:
        self._check()
        return np.asarray(self._embeddings[model, layer], np.float64)

    async def pixels(self) -> Pixels:
        self._check()
        return np.full((2, 3, 3), self.level, np.uint8)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error


async def at_once(work: Callable[..., Any], *given: Any) -> Any:
    """Runs a blocking call where it stands."""
    return work(*given)
