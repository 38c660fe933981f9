"""Best-ofs that were run to their end, with the scores that their candidates had on the way."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trials:
    """``steps``: of each picture. ``checkpoints``: the steps after which candidates were scored,
    rising, from 1, below ``steps``. ``standing``: [prompts, candidates, checkpoints], what
    candidates are pruned by. ``final``: [prompts, candidates], the finished pictures' scores, by
    which they are ranked; ``final_standing``: the same on the scale of ``standing``.
    """

    steps: int
    checkpoints: tuple[int, ...]
    standing: Numbers
    final: Numbers
    final_standing: Numbers

    def __post_init__(self) -> None:
        """Raises ValueError on shapes that do not agree, and on numbers that are not finite."""
        prompts, candidates = self.final.shape
        if prompts < 1 or candidates < 2:
            raise ValueError(f"{prompts} prompts of {candidates} candidates tell nothing")
        if self.standing.shape != (prompts, candidates, len(self.checkpoints)):
            raise ValueError(f"standing of shape {self.standing.shape}")
        if self.final_standing.shape != self.final.shape:
            raise ValueError(f"final_standing of shape {self.final_standing.shape}")
        for numbers in (self.standing, self.final, self.final_standing):
            if not np.isfinite(numbers).all():
                raise ValueError("scores that are not finite")
        rising = (0, *self.checkpoints, self.steps)
        if not all(a < b for a, b in pairwise(rising)):
            raise ValueError(f"checkpoints {self.checkpoints} of {self.steps} steps")

    @property
    def prompts(self) -> int:
        return len(self.final)

    @property
    def candidates(self) -> int:
        return int(self.final.shape[1])

    def part(self, chosen: NDArray[np.bool_]) -> Trials:
        """Those of the prompts that are ``chosen``, [prompts]."""
        return Trials(
            self.steps,
            self.checkpoints,
            self.standing[chosen],
            self.final[chosen],
            self.final_standing[chosen],
        )
