"""Rows stepped to their end, as the engine would with all the time in the world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.core.engine import Stage
from services.generator.diffusion import Picture, PictureWork
from services.generator.model import GeneratorModel


@dataclass
class Rider:
    work: PictureWork
    ahead: list[Stage]
    shown: list[Picture] = field(default_factory=list)


def drive(model: GeneratorModel, works: Sequence[PictureWork]) -> list[list[Picture]]:
    """All that each work puts out, the final picture last; rows of one key go together."""
    riders = [Rider(work, _steps(model.plan(work))) for work in works]
    while going := [rider for rider in riders if rider.ahead]:
        stage = going[0].ahead[0]
        batch = [rider for rider in going if rider.ahead[0].key == stage.key]
        answers = model.step(stage, [rider.work for rider in batch])
        for rider, answer in zip(batch, answers, strict=True):
            rider.ahead.pop(0)
            if answer is not None:
                assert isinstance(answer, Picture), answer
                rider.shown.append(answer)
    return [rider.shown for rider in riders]


def _steps(stages: Sequence[Stage]) -> list[Stage]:
    return [stage for stage in stages for _ in range(stage.steps)]
