"""That relevance means something: the deletion and insertion scores of Petsiuk, Das and Saenko
("RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018) on pictures that
the demo model has not seen.

Patches of a picture are taken away, or put on an empty one, the most relevant first, and the
label's probability is averaged over the way (the area under its curve). An order that means
something scores lower than chance at taking away, and higher at putting on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from models import DEMO_CLASSIFIER
from models.recipe import shapes
from services.classifier.explanation import Method
from services.classifier.network import Options
from services.classifier.preprocessing import Pixels
from services.classifier.pytorch import TorchNetwork
from services.classifier.relevance import TorchExplainer
from services.core.images import to_rgb

# Past every seed of the recipe's own sets.
FIRST_SEED = 30_000_000
PICTURES = 32
STEP = 8
RANDOM_ORDERS = 2
GREY = 128

Order = npt.NDArray[np.intp]
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bench:
    network: TorchNetwork
    explainer: TorchExplainer
    pictures: list[Pixels]
    patch: int

    def targets(self) -> list[int]:
        result = self.network.run(self.pictures, head=True, readings={})
        assert result.logits is not None
        return [int(index) for index in result.logits.argmax(axis=1)]

    def probabilities(self, pictures: list[Pixels], target: int) -> Scores:
        result = self.network.run(pictures, head=True, readings={})
        assert result.logits is not None
        powers = np.exp(result.logits.astype(np.float64) - result.logits.max(axis=1)[:, None])
        scores: Scores = (powers / powers.sum(axis=1)[:, None])[:, target]
        return scores


@pytest.fixture(scope="module")
def bench() -> Bench:
    network, explainer = TorchNetwork(Options("cpu", "float32", threads=1)), TorchExplainer("cpu")
    traits = network.load(Path(DEMO_CLASSIFIER))
    explainer.load(DEMO_CLASSIFIER, traits.preprocessing)
    drawn = [shapes.draw(shapes.scene(FIRST_SEED + index))[0] for index in range(PICTURES)]
    pictures = [traits.preprocessing.prepare(to_rgb(picture)) for picture in drawn]
    return Bench(network, explainer, pictures, traits.patch_size)


@pytest.fixture(scope="module")
def targets(bench: Bench) -> list[int]:
    return bench.targets()


def by_relevance(bench: Bench, method: Method, targets: list[int]) -> list[Order]:
    among = [(target,) for target in targets]
    found = bench.explainer.explain(bench.pictures, method, among).relevance
    return [np.argsort(-patches.ravel(), kind="stable") for patches in found]


def by_chance(seed: int) -> list[Order]:
    random = np.random.default_rng(seed)
    return [random.permutation(64) for _ in range(PICTURES)]


def on_the_way(start: Pixels, end: Pixels, order: Order, patch: int) -> list[Pixels]:
    """``start``, and then with ``STEP`` more patches of ``end`` at a time, up to all."""
    columns = start.shape[1] // patch
    stages, current = [start], start.copy()
    for first in range(0, len(order), STEP):
        for index in order[first : first + STEP]:
            row, column = (place * patch for place in divmod(int(index), columns))
            area = np.s_[row : row + patch, column : column + patch]
            current[area] = end[area]
        stages.append(current.copy())
    return stages


def scores(bench: Bench, orders: list[Order], targets: list[int], *, insert: bool) -> Scores:
    """One a picture: the area under the probability's curve, 0 to 1."""
    areas = []
    for picture, order, target in zip(bench.pictures, orders, targets, strict=True):
        empty = np.full_like(picture, GREY)
        start, end = (empty, picture) if insert else (picture, empty)
        curve = bench.probabilities(on_the_way(start, end, order, bench.patch), target)
        areas.append(float((curve[1:] + curve[:-1]).sum() / 2 / (len(curve) - 1)))
    return np.array(areas)


@pytest.fixture(scope="module")
def chance(bench: Bench, targets: list[int]) -> dict[bool, Scores]:
    """The mean scores of several random orders, by whether patches are put on."""
    every = [by_chance(seed) for seed in range(RANDOM_ORDERS)]
    return {
        insert: np.mean([scores(bench, each, targets, insert=insert) for each in every], axis=0)
        for insert in (False, True)
    }


@pytest.mark.parametrize("method", Method)
def test_taking_away_what_is_relevant_takes_the_label_away(
    bench: Bench, targets: list[int], chance: dict[bool, Scores], method: Method
) -> None:
    ours = scores(bench, by_relevance(bench, method, targets), targets, insert=False)
    random = chance[False]
    print(f"deletion {method.value}: {ours.mean():.3f}, by chance {random.mean():.3f}")
    assert (ours < random).mean() >= 0.9
    assert ours.mean() < 0.5 * random.mean()


@pytest.mark.parametrize("method", Method)
def test_putting_on_what_is_relevant_brings_the_label(
    bench: Bench, targets: list[int], chance: dict[bool, Scores], method: Method
) -> None:
    ours = scores(bench, by_relevance(bench, method, targets), targets, insert=True)
    random = chance[True]
    print(f"insertion {method.value}: {ours.mean():.3f}, by chance {random.mean():.3f}")
    assert (ours > random).mean() >= 0.8
    assert ours.mean() > random.mean() + 0.15


def test_the_least_relevant_first_is_worse_than_chance(
    bench: Bench, targets: list[int], chance: dict[bool, Scores]
) -> None:
    """The other end of the order means something too."""
    orders = [order[::-1] for order in by_relevance(bench, Method.GRADIENT, targets)]
    assert scores(bench, orders, targets, insert=False).mean() > chance[False].mean() + 0.1
