"""Judges that other packages bring: found, loaded, asked, and what goes wrong with them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

import numpy as np
import pytest

from ranker.pictures.judges.reward import (
    GROUP,
    Plugin,
    Plugins,
    RewardComparison,
    RewardJudge,
)
from services.core.errors import FailedPrecondition, InvalidInput, ModelFault
from tests.unit.ranker.pictures.judges.sights import FakeSight, at_once

PIXELS = np.zeros((2, 2, 3), np.uint8)
MODULE = "easel_test_judges"
SOURCE = """
class Brightness:
    spread = 20.0
    def score(self, pixels, prompt):
        return float(pixels.mean()) + len(prompt)

class Brighter:
    def prefer(self, a, b, prompt):
        # It likes what comes first.
        return min(1.0, 0.5 + 0.5 * (a.mean() > b.mean()) - 0.5 * (a.mean() < b.mean()) + 0.25)

class Both(Brightness, Brighter): pass
class Neither: pass
class Flat(Brightness): spread = 0.0
class Falling(Brightness):
    def score(self, pixels, prompt): raise OSError("/secret/path")
class Odd(Brightness):
    def score(self, pixels, prompt): return float("nan")
class Sure(Brighter):
    def prefer(self, a, b, prompt): return 1.5
def missing(): raise ImportError("no torch")
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A package as pip installs it: the module, and its metadata beside it."""
    folder = tmp_path_factory.mktemp("site")
    (folder / f"{MODULE}.py").write_text(SOURCE)
    info = folder / "easel_test_judges-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: easel-test-judges\nVersion: 1.2\n")
    kinds = ("Brightness", "Brighter", "Both", "Neither", "Flat", "Falling", "Odd", "Sure")
    lines = [f"{kind.lower()} = {MODULE}:{kind}" for kind in kinds]
    lines += [
        f"missing = {MODULE}:missing",
        f"nowhere = {MODULE}:Nowhere",
        "gone = no_such_module:x",
    ]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]))
    sys.path.insert(0, str(folder))
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop(MODULE, None)


@pytest.fixture
def plugins(package: Path) -> Plugins:
    def find() -> Iterable[EntryPoint]:
        (found,) = distributions(path=[str(package)])
        return [point for point in found.entry_points if point.group == GROUP]

    return Plugins(find)


def test_the_environment_is_searched(package: Path) -> None:
    found = Plugins().load("brightness", at="x")
    assert (found.pairwise, found.spread) == (False, 20.0)


async def test_a_pointwise_one(plugins: Plugins) -> None:
    plugin = plugins.load("brightness", at="x")
    assert plugins.load("brightness", at="x") is plugin
    assert await RewardJudge(plugin, "red", at_once).score(FakeSight(level=10)) == 13.0


async def test_a_pairwise_one_is_asked_in_both_orders(plugins: Plugins) -> None:
    plugin = plugins.load("brighter", at="x")
    assert plugin.pairwise
    comparison = RewardComparison(plugin, "", at_once)
    dark, light = FakeSight(level=1), FakeSight(level=9)
    assert await comparison.prefer(dark, dark) == pytest.approx(0.5)
    forth, back = await comparison.prefer(light, dark), await comparison.prefer(dark, light)
    assert forth == pytest.approx(1.0 - back)
    assert forth > 0.8


def test_none_of_that_name_offers_the_nearest(plugins: Plugins) -> None:
    with pytest.raises(InvalidInput) as caught:
        plugins.load("brightnes", at="judges[0].reward.name")
    assert caught.value.field == "judges[0].reward.name"
    assert (caught.value.limit or "").startswith("brightness")
    assert caught.value.given == "brightnes"


def test_none_at_all() -> None:
    with pytest.raises(InvalidInput) as caught:
        Plugins(list).load("x", at="y")
    assert caught.value.limit == "none is installed"


def test_two_packages_of_one_name(package: Path) -> None:
    (found,) = distributions(path=[str(package)])
    twice = [point for point in found.entry_points if point.name == "brightness"] * 2
    with pytest.raises(InvalidInput, match="Several packages"):
        Plugins(lambda: twice).load("brightness", at="x")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing", "'missing' of easel-test-judges 1.2 could not be loaded: ImportError"),
        ("nowhere", "could not be loaded: AttributeError"),
        ("gone", "could not be loaded: ModuleNotFoundError"),
        ("neither", "must have either `score` and `spread`, or `prefer`"),
        ("both", "must have either `score` and `spread`, or `prefer`"),
        ("flat", "spread of 0.0"),
    ],
)
def test_what_cannot_be_loaded(plugins: Plugins, name: str, told: str) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        plugins.load(name, at="x")
    assert told in caught.value.message


@pytest.mark.parametrize(
    ("name", "told"), [("falling", "failed: OSError."), ("odd", "answered nan")]
)
def test_what_cannot_be_scored(plugins: Plugins, name: str, told: str) -> None:
    with pytest.raises(ModelFault) as caught:
        plugins.load(name, at="x").score(PIXELS, "")
    assert told in caught.value.message
    assert "secret" not in caught.value.message


def test_a_preference_that_is_no_probability(plugins: Plugins) -> None:
    with pytest.raises(ModelFault, match=r"answered 1\.5"):
        plugins.load("sure", at="x").prefer(PIXELS, PIXELS, "")


def test_one_call_at_a_time(plugins: Plugins) -> None:
    inside, most = [0], [0]
    release = threading.Event()

    class Slow:
        spread = 1.0

        def score(self, pixels: object, prompt: str) -> float:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            release.wait(10)
            inside[0] -= 1
            return 0.0

    plugin = Plugin("slow", Slow())
    threads = [threading.Thread(target=plugin.score, args=(PIXELS, "")) for _ in range(4)]
    for thread in threads:
        thread.start()
    release.set()
    for thread in threads:
        thread.join()
    assert most[0] == 1
