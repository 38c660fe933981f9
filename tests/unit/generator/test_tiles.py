from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from services.core.engine import Stage
from services.generator.modes import ImageToImage
from services.generator.request import PreviewMethod, PreviewWish, Wish, resolve
from services.generator.tiles import Grid, Mosaic, tiles_for
from tests.unit.generator.drive import drive
from tests.unit.generator.fakes import SIDE, FakeNetwork, loaded_model
from tests.unit.generator.pictures import given, picture

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (17, 16), (40, 31)])
@pytest.mark.parametrize("tile", [(1, 1), (2, 3), (8, 8), (16, 9)])
def test_tiles_cover_all_and_overlap(size: tuple[int, int], tile: tuple[int, int]) -> None:
    height, width = size
    grid = Grid.over(size, tile)
    covered = torch.zeros(1, height, width)
    for index in range(grid.count):
        cut = grid.cut(covered, index)
        assert cut.shape[1:] == grid.tile
        cut += 1
    assert covered.min() >= 1
    for starts, side in ((grid.rows, grid.tile[0]), (grid.columns, grid.tile[1])):
        gaps = [after - before for before, after in pairwise(starts)]
        assert all(0 < gap <= max(side - side // 4, 1) for gap in gaps)


@pytest.mark.parametrize(("size", "tiled"), [((8, 8), False), ((7, 3), False), ((8, 9), True)])
def test_one_tile_that_covers_all_is_none(size: tuple[int, int], *, tiled: bool) -> None:
    assert (tiles_for(size, (8, 8)) is not None) is tiled


@pytest.mark.parametrize("factor", [1, 4])
@pytest.mark.parametrize("size", [(8, 8), (8, 30), (19, 13)])
def test_tiles_that_agree_make_the_whole(size: tuple[int, int], factor: int) -> None:
    whole = torch.randn(3, size[0] * factor, size[1] * factor)
    grid = Grid.over(size, (8, 8))
    mosaic = Mosaic.empty(grid, 3, factor, CPU)
    for index in range(grid.count):
        assert mosaic.lacks_one is (index == grid.count - 1)
        tile = mosaic.weighed(grid.cut(whole, index, factor))
        if mosaic.lacks_one:
            assert (mosaic.completed(tile) - whole).abs().max() < 1e-5
            assert mosaic.done == index
        mosaic.lay(tile)
    assert (mosaic.whole() - whole).abs().max() < 1e-5


def test_a_seam_is_blended_over_all_that_tiles_share() -> None:
    grid = Grid.over((4, 14), (4, 8))
    mosaic = Mosaic.empty(grid, 1, 1, CPU)
    mosaic.lay(mosaic.weighed(torch.zeros(1, 4, 8)))
    mosaic.lay(mosaic.weighed(torch.ones(1, 4, 8)))
    line = mosaic.whole()[0, 0]
    assert grid.columns == (0, 6)
    assert line.tolist() == pytest.approx([0.0] * 6 + [0.25, 0.75] + [1.0] * 6)


def plan(**asked: Any) -> list[Stage]:
    model = loaded_model()
    [work] = model.works(resolve(Wish(steps=2, **asked), model.limits, draw_seed=int))
    return list(model.plan(work))


def test_each_tile_is_a_step_that_pictures_of_its_size_may_share() -> None:
    plain, tiled = plan()[-1], plan(width=2 * SIDE, tiled=True)[-1]
    assert (tiled.key, tiled.cost) == (plain.key, plain.cost)
    assert tiled.steps == 3
    assert plan(tiled=True)[-1] == plain
    mode = ImageToImage(given(picture(2 * SIDE, SIDE)), 1.0)
    preview = PreviewWish(at_steps=(1,), method=PreviewMethod.DECODED)
    stages = plan(mode=mode, tiled=True, preview=preview)
    assert [(stage.name, stage.steps) for stage in stages] == [
        ("encode", 1),
        ("canvas", 3),
        ("denoise", 1),
        ("preview", 3),
        ("denoise", 1),
        ("decode", 3),
    ]


def test_in_tiles_or_whole_it_is_one_picture() -> None:
    """The fake's autoencoder looks at single latents: its tiles agree."""
    network = FakeNetwork()
    model = loaded_model(network)
    preview = PreviewWish(at_steps=(1,), method=PreviewMethod.DECODED)
    mode = ImageToImage(given(picture(2 * SIDE, SIDE + 8)), 0.8)
    wishes = [
        Wish(mode=mode, steps=4, seed=5, count=2, preview=preview, tiled=True),
        Wish(mode=mode, steps=4, seed=5, count=2, preview=preview),
        Wish(steps=4, seed=9),
    ]

    def shown(*wishes: Wish) -> list[list[np.ndarray]]:
        works = [
            work
            for wish in wishes
            for work in model.works(resolve(wish, model.limits, draw_seed=int))
        ]
        return [[each.pixels for each in row] for row in drive(model, works)]

    whole = shown(wishes[1])
    for together in (shown(*wishes)[:2], shown(wishes[0])):
        for one, other in zip(whole, together, strict=True):
            assert len(one) == len(other) == 2
            for before, after in zip(one, other, strict=True):
                assert np.abs(before.astype(int) - after.astype(int)).max() <= 1
