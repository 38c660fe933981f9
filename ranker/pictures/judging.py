"""What judges see and say: the words that every judge and everything over judges shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]
Vector: TypeAlias = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class TopLabel:
    """The classifier's best label. ``probability`` is 0 to 1."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Score:
    """``value``: larger is better, finite; comparable within one ranking only.

    ``parts``: what each judge said, in its own unit and in the order of the request; empty where
    there is nothing to take apart. ``evidence``: the value on a scale on which gaps mean the same
    everywhere, in the same order; None where the value's own scale is one.
    """

    value: float
    top: TopLabel | None
    parts: tuple[float, ...] = ()
    evidence: float | None = None

    @property
    def standing(self) -> float:
        """What candidates are pruned by."""
        return self.value if self.evidence is None else self.evidence


@dataclass(frozen=True, slots=True)
class Classified:
    """``logits``: of all labels, by index."""

    logits: tuple[float, ...]
    top: TopLabel


class Sight(Protocol):
    """One picture as judges look at it. What was found out once is not asked again, however many of
    them want to know. Every method raises EaselError."""

    async def classified(self, model: str) -> Classified:
        """By the classifier's ``model``; its default when empty."""

    async def embedding(self, model: str, layer: int) -> Vector:
        """Of length 1, of the class token in ``layer``."""

    async def pixels(self) -> Pixels:
        """uint8 RGB [height, width, 3], upright."""


class PointwiseJudge(Protocol):
    """Scores pictures one by one."""

    async def score(self, sight: Sight) -> float:
        """Larger is better; finite. Raises EaselError."""


class PairwiseJudge(Protocol):
    """Compares pictures two by two."""

    async def prefer(self, a: Sight, b: Sight) -> float:
        """The probability that ``a`` is better than ``b``, 0 to 1. Raises EaselError."""
