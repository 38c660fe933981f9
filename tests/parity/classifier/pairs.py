"""One model in both hands: our backend's and transformers'."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from services.classifier.model import Answer, ClassifierModel, Row
from services.classifier.network import Options, Precision, Traits
from services.classifier.pytorch import TorchNetwork
from services.core.reference import ModelFiles
from tests.parity.classifier.models import Reference

LOGIT_TOLERANCE = 1e-4
# Hidden states grow with the depth, so that theirs is relative to their largest number.
HIDDEN_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Pair:
    """One model, in both hands."""

    model: ClassifierModel
    reference: Reference

    @property
    def traits(self) -> Traits:
        return self.model.loaded.traits

    def rows(self, pictures: list[Image.Image], *, head: bool = True) -> list[Row]:
        return [Row(self.traits.preprocessing.prepare(p), head=head) for p in pictures]

    def step(self, *rows: Row) -> list[Answer]:
        answers = self.model.step(self.model.plan(rows[0])[0], rows)
        return [answer for answer in answers if isinstance(answer, Answer)]

    def logits(self, *rows: Row) -> np.ndarray:
        return np.stack([a.logits for a in self.step(*rows) if a.logits is not None])


def loaded(
    directory: Path, precision: Precision = "float32", image_size: int | None = None
) -> ClassifierModel:
    network = TorchNetwork(Options("cpu", precision, threads=1, image_size=image_size))
    model = ClassifierModel(network, lambda: ModelFiles("m", "1", directory, ""))
    model.load()
    return model


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
