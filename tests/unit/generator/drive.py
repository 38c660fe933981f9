"""Rows stepped to their end, as the engine would with all the time in the world."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from services.core.engine import Stage
from services.generator.diffusion import Answer, Picture, PictureWork
from services.generator.model import GeneratorModel


@dataclass
class Rider:
    work: PictureWork
    ahead: list[Stage]
    shown: list[Picture] = field(default_factory=list)

    def take(self, answer: Answer) -> None:
        """What a step of the stage ahead has put out."""
        self.ahead.pop(0)
        if answer is not None:
            assert isinstance(answer, Picture), answer
            self.shown.append(answer)


def rider(model: GeneratorModel, work: PictureWork) -> Rider:
    return Rider(work, _steps(model.plan(work)))


def drive(model: GeneratorModel, works: Sequence[PictureWork]) -> list[list[Picture]]:
    """All that each work puts out, the final picture last; rows of one key go together."""
    riders = [rider(model, work) for work in works]
    while going := [each for each in riders if each.ahead]:
        stage = going[0].ahead[0]
        batch = [each for each in going if each.ahead[0].key == stage.key]
        answers = model.step(stage, [each.work for each in batch])
        for each, answer in zip(batch, answers, strict=True):
            each.take(answer)
    return [each.shown for each in riders]


def _steps(stages: Sequence[Stage]) -> list[Stage]:
    return [stage for stage in stages for _ in range(stage.steps)]
