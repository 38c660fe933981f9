"""Large pictures through the autoencoder a tile at a time: less memory at once, and steps short
enough that others need not wait for them. Tiles overlap, and are blended where they do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

import torch

from services.accelerator import placed

# Of a tile's side, as AutoencoderKL.tile_overlap_factor is.
_OVERLAP: Final = 4


@dataclass(frozen=True, slots=True)
class Grid:
    """Tiles of one size over latents. ``tile``: (h, w); ``rows`` and ``columns``: where they begin,
    evenly spread from border to border, overlapping by a quarter or more.
    """

    tile: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def over(cls, size: tuple[int, int], tile: tuple[int, int]) -> Grid:
        """``size`` and the largest ``tile``: (h, w) in latents."""
        height, width = (min(*sides) for sides in zip(size, tile, strict=True))
        rows, columns = _starts(size[0], height), _starts(size[1], width)
        return cls((height, width), rows, columns)

    @property
    def count(self) -> int:
        return len(self.rows) * len(self.columns)

    def cut(self, whole: torch.Tensor, index: int, factor: int = 1) -> torch.Tensor:
        """The tile of this index out of (C, H, W), which has ``factor`` to a side of one latent."""
        row, column = divmod(index, len(self.columns))
        top, left = factor * self.rows[row], factor * self.columns[column]
        height, width = (factor * side for side in self.tile)
        return whole[:, top : top + height, left : left + width]

    def weights(self, index: int, factor: int, device: torch.device) -> torch.Tensor:
        """(H, W) of a tile: rising over what it shares with its neighbours, 1 elsewhere."""
        row, column = divmod(index, len(self.columns))
        down = _ramp(self.rows, row, self.tile[0], factor)
        across = _ramp(self.columns, column, self.tile[1], factor)
        return placed(down[:, None] * across[None, :], device)


def tiles_for(size: tuple[int, int], tile: tuple[int, int]) -> Grid | None:
    """None where one tile covers all of it."""
    grid = Grid.over(size, tile)
    return grid if grid.count > 1 else None


@dataclass(frozen=True, slots=True)
class WeighedTile:
    """``levels`` (C, h, w), already weighed by ``weights`` (h, w)."""

    levels: torch.Tensor
    weights: torch.Tensor


@dataclass(slots=True)
class Mosaic:
    """What the tiles of a grid make, as they come: (C, H, W), ``factor`` to a side of a latent."""

    grid: Grid
    factor: int
    total: torch.Tensor
    weight: torch.Tensor
    done: int = field(default=0)

    @classmethod
    def empty(cls, grid: Grid, channels: int, factor: int, device: torch.device) -> Mosaic:
        top, left = factor * grid.rows[-1], factor * grid.columns[-1]
        height, width = (factor * side for side in grid.tile)
        size = (top + height, left + width)
        total = torch.zeros((channels, *size), dtype=torch.float32, device=device)
        return cls(grid, factor, total, torch.zeros(size, dtype=torch.float32, device=device))

    @property
    def lacks_one(self) -> bool:
        """Whether the next tile is the last."""
        return self.done + 1 == self.grid.count

    def weighed(self, tile: torch.Tensor) -> WeighedTile:
        """The next tile (C, h, w), not laid yet."""
        weights = self.grid.weights(self.done, self.factor, self.total.device)
        return WeighedTile(weights * tile, weights)

    def lay(self, tile: WeighedTile) -> None:
        """Takes no memory, so that it never stops half way."""
        self.grid.cut(self.total, self.done, self.factor).add_(tile.levels)
        self.grid.cut(self.weight[None], self.done, self.factor).add_(tile.weights)
        self.done += 1

    def completed(self, tile: WeighedTile) -> torch.Tensor:
        """(C, H, W): the whole with its last tile, which is not laid here."""
        copy = replace(self, total=self.total.clone(), weight=self.weight.clone())
        copy.lay(tile)
        return copy.whole()

    def whole(self) -> torch.Tensor:
        return self.total / self.weight


def _starts(size: int, tile: int) -> tuple[int, ...]:
    step = max(tile - max(tile // _OVERLAP, 1), 1)
    count = 1 + -(-(size - tile) // step)
    return tuple(index * (size - tile) // max(count - 1, 1) for index in range(count))


def _ramp(starts: tuple[int, ...], index: int, tile: int, factor: int) -> torch.Tensor:
    ramp = torch.ones(tile * factor, dtype=torch.float32)
    for shared, flip in _shared(starts, index, tile):
        places = torch.arange(shared * factor, dtype=torch.float32)
        rising = (places + 0.5) / (shared * factor)
        if flip:
            ramp[-len(rising) :] *= rising.flip(0)
        else:
            ramp[: len(rising)] *= rising
    return ramp


def _shared(starts: tuple[int, ...], index: int, tile: int) -> Iterator[tuple[int, bool]]:
    if index > 0:
        yield starts[index - 1] + tile - starts[index], False
    if index + 1 < len(starts):
        yield starts[index] + tile - starts[index + 1], True
