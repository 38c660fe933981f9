"""How well a picture fits a text, by a network that embeds both in one space."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from ranker.pictures.judging import Pixels, Sight, Vector


class TextImageModel(Protocol):
    """Blocking; ``embed`` answers a vector of length 1 in the space of the texts'."""

    def embed(self, pixels: Pixels) -> Vector: ...


Run = Callable[..., Awaitable[Vector]]
"""Runs a blocking call in a thread of the ranker's: ``await run(model.embed, pixels)``."""


@dataclass(frozen=True, slots=True)
class TextImageJudge:
    """Cosine of the picture's embedding to ``wanted``, the text's, -1 to 1."""

    model: TextImageModel
    wanted: Vector
    run: Run

    async def score(self, sight: Sight) -> float:
        found = await self.run(self.model.embed, await sight.pixels())
        return float(found @ self.wanted)
