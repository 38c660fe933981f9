"""A network that computes nothing, for tests of everything around it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from services.classifier.catalogue import card
from services.classifier.explanation import Explained, Method
from services.classifier.model import ClassifierModel
from services.classifier.network import Floats, Pass, Pooling, Reading, Traits
from services.classifier.preprocessing import Pixels, Preprocessing, Size
from services.core.card import ModelKind
from services.core.engine import EngineLimits
from services.core.fleet import Fleet
from services.core.reference import ModelFiles

LABELS = ("red", "green", "blue", "crane", "crane")
DEPTH = 3
HIDDEN = 4
GRID = (2, 2)
FILES = ModelFiles("fake", "1", Path("nowhere"), "sha256:00")
TRAITS = Traits(
    architecture="FakeNetwork",
    labels=LABELS,
    multi_label=False,
    preprocessing=Preprocessing(input=Size(8, 8), resize=Size(8, 8)),
    patch_size=4,
    rows=GRID[0],
    columns=GRID[1],
    depth=DEPTH,
    hidden_size=HIDDEN,
    parameters=1,
    bytes_in_memory=4,
    backend="fake",
    device="none",
    device_name="none",
    precision="float32",
    threads=1,
)


def fleet_of(model: ClassifierModel, limits: EngineLimits | None = None) -> Fleet[ClassifierModel]:
    """A fleet of one model."""
    return Fleet(
        lambda: (model.find(), model),
        card,
        kind=ModelKind.CLASSIFIER,
        limits=limits or EngineLimits(),
        registry=CollectorRegistry(),
    )


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until something holds that nothing announces."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0)


class FakeNetwork:
    """Logits are the mean red, green and blue (0 to 1), then -1 and -2.

    Vectors hold the layer's number, with 0.5 added by the final norm. ``gate``, when given, holds
    every batch back until it is set; ``faults`` are raised by the next batches, one each.
    """

    def __init__(
        self,
        *,
        gate: threading.Event | None = None,
        faults: Sequence[Exception] = (),
        traits: Traits = TRAITS,
    ) -> None:
        self.traits = traits
        self.faults = list(faults)
        self.batches: list[int] = []
        self.deepest: list[int] = []
        self.closed = False
        self._gate = gate

    def load(self, directory: Path) -> Traits:
        del directory
        return self.traits

    def run(
        self, pixels: Sequence[Pixels], *, head: bool, readings: Mapping[Reading, Sequence[int]]
    ) -> Pass:
        if self._gate is not None:
            self._gate.wait()
        self.batches.append(len(pixels))
        self.deepest.append(DEPTH if head else max(reading.layer for reading in readings))
        if self.faults:
            raise self.faults.pop(0)
        logits = np.stack([_logits(picture) for picture in pixels]) if head else None
        return Pass(
            logits, {reading: _vectors(reading, rows) for reading, rows in readings.items()}
        )

    def close(self) -> None:
        self.closed = True


class FakeExplainer:
    """Relevance is how red, green or blue each patch is: the target output's own colour for
    ``Method.GRADIENT``, red for ``Method.ROLLOUT``; all of it on the first patch where there is
    none. ``faults`` are raised by the next checks, one each.
    """

    def __init__(
        self, *, gate: threading.Event | None = None, faults: Sequence[Exception] = ()
    ) -> None:
        self.faults = list(faults)
        self.loads = 0
        self.batches: list[tuple[Method, int]] = []
        self.closed = False
        self._gate = gate

    def check(self, directory: Path) -> None:
        del directory
        if self.faults:
            raise self.faults.pop(0)

    def load(self, directory: Path, preprocessing: Preprocessing) -> None:
        del directory, preprocessing
        self.loads += 1

    def explain(
        self, pixels: Sequence[Pixels], method: Method, among: Sequence[Sequence[int]]
    ) -> Explained:
        if self._gate is not None:
            self._gate.wait()
        self.batches.append((method, len(pixels)))
        logits = np.stack([_logits(picture) for picture in pixels])
        targets = [
            max(indices or range(len(LABELS)), key=row.__getitem__)
            for row, indices in zip(logits, among, strict=True)
        ]
        channels = targets if method is Method.GRADIENT else [0] * len(targets)
        return Explained(
            logits,
            np.stack([_relevance(*each) for each in zip(pixels, channels, strict=True)]),
        )

    def close(self) -> None:
        self.closed = True


def _relevance(picture: Pixels, channel: int) -> Floats:
    rows, columns = GRID
    patches = picture[..., channel % 3].astype(np.float32)
    means = patches.reshape(rows, -1, columns, picture.shape[1] // columns).mean(axis=(1, 3))
    if means.sum() == 0.0:
        means[0, 0] = 1.0
    shares: Floats = means / means.sum()
    return shares


def _logits(picture: Pixels) -> Floats:
    means = picture.reshape(-1, 3).mean(axis=0) / 255
    return np.array([*means, -1.0, -2.0], np.float32)


def _vectors(reading: Reading, rows: Sequence[int]) -> Floats:
    shape = (len(rows), *GRID, HIDDEN) if reading.pooling is Pooling.PATCH else (len(rows), HIDDEN)
    return np.full(shape, reading.layer + 0.5 * reading.final_norm, np.float32)
