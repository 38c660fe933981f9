"""How far the answers of one model are from those of another on the same pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from services.classifier.network import Floats
from services.core.errors import ModelFault
from services.core.rates import wilson

_Z: Final = 1.96


@dataclass(frozen=True, slots=True)
class Comparison:
    """``agreeing`` of ``pictures`` have the same best label. ``max_difference`` is the largest
    absolute difference of two logits, ``largest_logit`` the reference's largest absolute one.
    """

    pictures: int
    agreeing: int
    max_difference: float
    largest_logit: float

    @property
    def agreement(self) -> float:
        """0 to 1."""
        return self.agreeing / self.pictures

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the agreement (Wilson, 1927)."""
        return wilson(self.agreeing, self.pictures, _Z)

    @property
    def relative_difference(self) -> float:
        return self.max_difference / max(self.largest_logit, float(np.finfo(np.float32).tiny))


def compare(reference: Floats, other: Floats) -> Comparison:
    """Both are logits [pictures, labels], of at least one picture.

    Raises ``ModelFault`` where ``other`` has another shape or numbers that are not finite.
    """
    if other.shape != reference.shape:
        raise ModelFault(f"It answers {list(other.shape)} logits, not {list(reference.shape)}.")
    if not np.isfinite(other).all():
        raise ModelFault("It answers numbers that are not finite.")
    return Comparison(
        pictures=len(reference),
        agreeing=int((reference.argmax(axis=1) == other.argmax(axis=1)).sum()),
        max_difference=float(np.abs(reference - other).max()),
        largest_logit=float(np.abs(reference).max()),
    )
