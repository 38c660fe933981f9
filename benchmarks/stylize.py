"""How much of the style a stylization takes on, and how much of the content it keeps.

Pairs are drawn by seed: content and style of different shapes, colours and grounds. The style
distance of two pictures is Huang & Belongie's style loss (2017, eq. 13) without the square, on the
demo autoencoder's encoder: over the outputs of its three down blocks and its middle block, the sum
of the Euclidean distances of their channels' means, and of their standard deviations. The bound is
on the mean over pairs. The same on the demo classifier's patches after its first two layers, and
Gram matrices (Gatys et al., 2016) of the encoder's, are told beside it: nothing was tuned on them.
Content is kept where the classifier's first label names the content's shape.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from PIL import Image

from benchmarks.report import Bound, Entry, quick
from models import DEMO_CLASSIFIER, DEMO_GENERATOR, JUDGE
from models.recipe import judge
from models.recipe.intervals import wilson
from models.recipe.shapes import COLOURS, SHAPES, Scene, draw, scene
from services.core.reference import resolve as find
from services.generator import pytorch
from services.generator.diffusion import Picture, PictureWork
from services.generator.model import GeneratorModel
from services.generator.modes import Given, Stylize
from services.generator.network import Pixels
from services.generator.request import Wish, resolve

COMMAND = "make bench-generator"
PAIRS = 12 if quick() else 60
FIRST_SEED = 7_000_000
STEPS = 20
TOGETHER = 12
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
SHEET = Path("docs/stylize.png")
SHOWN = 8

Floats = npt.NDArray[np.float64]
Features = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Pair:
    content: Scene
    style: Scene


def pairs(count: int) -> list[Pair]:
    """The first so many pairs of neighbouring seeds that differ in shape, colour and ground."""
    found: list[Pair] = []
    seed = FIRST_SEED
    while len(found) < count:
        content, style = scene(seed), scene(seed + 1)
        seed += 2
        if (
            content.shape != style.shape
            and content.colour != style.colour
            and content.ground != style.ground
        ):
            found.append(Pair(content, style))
    return found


def _given(picture: Image.Image, field: str) -> Given:
    return Given(field, lambda: picture, str)


class Painter:
    """The demo generator, stepped as the engine steps it: rows of one stage together."""

    def __init__(self) -> None:
        load = partial(pytorch.load, device="cpu", precision="float32")
        self._model = GeneratorModel(partial(find, str(DEMO_GENERATOR)), load)
        self._model.load()

    def stylized(
        self, asked: Sequence[Pair], content_strength: float, style_strength: float
    ) -> list[Pixels]:
        works = [
            self._work(number, pair, content_strength, style_strength)
            for number, pair in enumerate(asked)
        ]
        parts = [works[start : start + TOGETHER] for start in range(0, len(works), TOGETHER)]
        return [pixels for part in parts for pixels in self._run(part)]

    def _work(self, number: int, pair: Pair, content: float, style: float) -> PictureWork:
        mode = Stylize(
            _given(draw(pair.content)[0], "stylize.content"),
            _given(draw(pair.style)[0], "stylize.style"),
            content,
            style,
        )
        wish = Wish(mode=mode, steps=STEPS, seed=number)
        return self._model.works(resolve(wish, self._model.limits, draw_seed=int))[0]

    def _run(self, works: Sequence[PictureWork]) -> list[Pixels]:
        made: Sequence[Any] = ()
        for stage in self._model.plan(works[0]):
            for _ in range(stage.steps):
                made = self._model.step(stage, works)
        return [picture.pixels for picture in made if isinstance(picture, Picture)]


class Critic:
    """The encoder, the classifier and the judge, none of which takes part in painting but the
    encoder's last layer.
    """

    def __init__(self) -> None:
        library: Any = transformers
        self._vae = pytorch.load(DEMO_GENERATOR, device="cpu", precision="float32").vae
        self._classifier = library.ViTForImageClassification.from_pretrained(
            DEMO_CLASSIFIER, dtype=torch.float32
        ).eval()
        self._judge = judge.load(JUDGE)
        self._shape_of = torch.tensor([SHAPES.index(shape) for shape in SHAPES for _ in COLOURS])

    @torch.inference_mode()
    def encoder_features(self, pictures: torch.Tensor) -> Features:
        """Outputs of the encoder's down blocks and middle block, each (B, C, positions)."""
        encoder, found = self._vae.encoder, {}
        state = encoder.conv_in(pictures)
        for number, block in enumerate(encoder.down_blocks):
            state = block(state)
            found[f"down {number}"] = state.flatten(2)
        found["middle"] = encoder.mid_block(state).flatten(2)
        return found

    @torch.inference_mode()
    def classifier_features(self, pictures: torch.Tensor) -> Features:
        """Patches after the first two layers, each (B, width, patches)."""
        states = self._classifier.vit(pictures, output_hidden_states=True).hidden_states
        return {f"layer {number}": states[number][:, 1:].mT for number in (1, 2)}

    @torch.inference_mode()
    def shapes(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B, shapes): the classifier's probabilities."""
        labels = self._classifier(pictures).logits.softmax(dim=1)
        found = torch.zeros(len(pictures), len(SHAPES))
        return found.index_add_(1, self._shape_of, labels)

    @torch.inference_mode()
    def judged_shapes(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B,): the shape that the judge's first label names."""
        return self._shape_of[self._judge(pictures).argmax(dim=1)]


def statistics(features: Features, others: Features) -> Floats:
    """(B,): the style distance of the module's docstring."""
    total = torch.zeros(())
    for name, mine in features.items():
        deviation, mean = torch.std_mean(mine, dim=2)
        other_deviation, other_mean = torch.std_mean(others[name], dim=2)
        total = total + (mean - other_mean).norm(dim=1)
        total = total + (deviation - other_deviation).norm(dim=1)
    return total.double().numpy()


def grams(features: Features, others: Features) -> Floats:
    """(B,): distances of the Gram matrices, summed over layers."""
    total = torch.zeros(())
    for name, mine in features.items():
        total = total + (_gram(mine) - _gram(others[name])).flatten(1).norm(dim=1)
    return total.double().numpy()


def _gram(features: torch.Tensor) -> torch.Tensor:
    return features @ features.mT / features.shape[2]


def stacked(pictures: Sequence[Pixels]) -> torch.Tensor:
    """float32 (B, 3, H, W) from -1 to 1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


class Study:
    """All pairs at any strengths, measured."""

    def __init__(self, count: int) -> None:
        self.pairs = pairs(count)
        self.contents = [np.asarray(draw(pair.content)[0]) for pair in self.pairs]
        self.styles = [np.asarray(draw(pair.style)[0]) for pair in self.pairs]
        self._wanted = torch.tensor([SHAPES.index(pair.content.shape) for pair in self.pairs])
        self._painter = Painter()
        self._critic = Critic()
        self._painted: dict[tuple[float, float], list[Pixels]] = {}

    def painted(self, content_strength: float = 0.5, style_strength: float = 0.5) -> list[Pixels]:
        strengths = (content_strength, style_strength)
        if strengths not in self._painted:
            self._painted[strengths] = self._painter.stylized(self.pairs, *strengths)
        return self._painted[strengths]

    def encoder_distance(self, pictures: Sequence[Pixels], measure: Measure = statistics) -> float:
        return self._distance(self._critic.encoder_features, pictures, measure)

    def classifier_distance(self, pictures: Sequence[Pixels]) -> float:
        return self._distance(self._critic.classifier_features, pictures, statistics)

    def kept(self, pictures: Sequence[Pixels]) -> float:
        found = self._critic.shapes(stacked(pictures)).argmax(dim=1)
        return float((found == self._wanted).double().mean())

    def judged_kept(self, pictures: Sequence[Pixels]) -> float:
        found = self._critic.judged_shapes(stacked(pictures))
        return float((found == self._wanted).double().mean())

    def content_distance(self, pictures: Sequence[Pixels]) -> float:
        """Mean Euclidean distance of the pictures' normalised middle features to the content's,
        by position: what is where, whatever its colours (Huang & Belongie, 2017, eq. 12).
        """
        mine, content = (
            torch.nn.functional.instance_norm(
                self._critic.encoder_features(stacked(each))["middle"]
            )
            for each in (pictures, self.contents)
        )
        return float((mine - content).flatten(1).norm(dim=1).mean())

    def _distance(
        self,
        read: Callable[[torch.Tensor], Features],
        pictures: Sequence[Pixels],
        measure: Measure,
    ) -> float:
        return float(measure(read(stacked(pictures)), read(stacked(self.styles))).mean())


Measure = Callable[[Features, Features], Floats]


def least_gain(values: Sequence[float]) -> float:
    """The smallest rise from one value to the next."""
    return min(after - before for before, after in itertools.pairwise(values))


def entries(study: Study) -> list[Entry]:
    made = study.painted()
    fall = 1 - study.encoder_distance(made) / study.encoder_distance(study.contents)
    gram = study.encoder_distance(made, grams) / study.encoder_distance(study.contents, grams)
    patches = study.classifier_distance(made) / study.classifier_distance(study.contents)
    kept, count = study.kept(made), len(study.pairs)
    low, high = wilson(kept, count)
    return [
        Entry("stylize, pairs", count, "pairs", COMMAND),
        Entry("style distance, fall", fall, "share", COMMAND, Bound(">=", 0.4)),
        Entry("style distance by Gram matrices, fall", 1 - gram, "share", COMMAND),
        Entry("style distance by classifier features, fall", 1 - patches, "share", COMMAND),
        Entry(
            "content's shape seen by the classifier",
            kept,
            "share",
            COMMAND,
            Bound(">=", 0.85),
            (high - low) / 2,
        ),
        Entry("content's shape seen by the judge", study.judged_kept(made), "share", COMMAND),
        *_by_style_strength(study),
        *_by_content_strength(study),
    ]


def _by_style_strength(study: Study) -> list[Entry]:
    found = [study.encoder_distance(study.painted(style_strength=each)) for each in STRENGTHS]
    name = "least fall of the style distance from one style strength to the next"
    return [
        *_listed("style distance at style strength", found),
        Entry(name, least_gain([-each for each in found]), "", COMMAND, Bound(">", 0.0)),
    ]


def _by_content_strength(study: Study) -> list[Entry]:
    at = [study.painted(content_strength=each) for each in STRENGTHS]
    found = [study.content_distance(each) for each in at]
    name = "least fall of the content distance from one content strength to the next"
    return [
        *_listed("shape seen at content strength", [study.kept(each) for each in at]),
        *_listed("content distance at content strength", found),
        Entry(name, least_gain([-each for each in found]), "", COMMAND, Bound(">", 0.0)),
    ]


def _listed(name: str, values: Sequence[float]) -> list[Entry]:
    return [
        Entry(f"{name} {strength:g}", value, "", COMMAND)
        for strength, value in zip(STRENGTHS, values, strict=True)
    ]


def sheet(study: Study) -> Image.Image:
    """Rows: contents, styles, then their stylization at rising style strengths."""
    rows = [study.contents, study.styles]
    rows += [study.painted(style_strength=strength) for strength in STRENGTHS[1:]]
    return Image.fromarray(np.concatenate([np.concatenate(row[:SHOWN], 1) for row in rows], 0))


def measure() -> list[Entry]:
    return entries(Study(PAIRS))


if __name__ == "__main__":
    whole = Study(PAIRS)
    sheet(whole).save(SHEET, optimize=True)
    for entry in entries(whole):
        print(f"{entry.name}: {entry.value:.4g} {'' if entry.holds else 'DOES NOT HOLD'}")
