"""The drawn pictures: three sets that share no seed, kept as memory-mapped arrays.

`train` teaches the auto-encoder, the classifier and the generator; `judge` teaches the judge
alone, so that it has seen no picture the others learned from; `held_out` is only measured on.
"""

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models.recipe import shapes

FIRST_SEED = {"train": 0, "judge": 10_000_000, "held_out": 20_000_000}
CHUNK = 1000


@dataclass(frozen=True)
class Pictures:
    """One set: images (n, 64, 64, 3), masks (n, 32, 32), both uint8, and labels (n,) int64."""

    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    seeds: range

    def scenes(self) -> list[shapes.Scene]:
        """The scenes of the pictures, in their order."""
        return [shapes.scene(seed) for seed in self.seeds]


def render(seeds: Sequence[int]) -> tuple[npt.NDArray[np.uint8], ...]:
    """Images (n, 64, 64, 3) and masks (n, 32, 32) of these seeds."""
    side = shapes.SIDE_PX
    images = np.empty((len(seeds), side, side, 3), np.uint8)
    masks = np.empty((len(seeds), side // 2, side // 2), np.uint8)
    for row, seed in enumerate(seeds):
        images[row], masks[row] = map(np.asarray, shapes.draw(shapes.scene(seed)))
    return images, masks


def build(folder: Path, name: str, count: int) -> None:
    """Draws `count` pictures of the named set into `folder`, on every core."""
    seeds = range(FIRST_SEED[name], FIRST_SEED[name] + count)
    chunks = [seeds[i : i + CHUNK] for i in range(0, count, CHUNK)]
    with multiprocessing.get_context("spawn").Pool() as pool:
        parts = pool.map(render, chunks, chunksize=1)
    np.save(folder / f"{name}-images.npy", np.concatenate([images for images, _ in parts]))
    np.save(folder / f"{name}-masks.npy", np.concatenate([masks for _, masks in parts]))


def load(folder: Path, name: str) -> Pictures:
    """The named set that `build` wrote."""
    images = np.load(folder / f"{name}-images.npy", mmap_mode="r")
    masks = np.load(folder / f"{name}-masks.npy", mmap_mode="r")
    seeds = range(FIRST_SEED[name], FIRST_SEED[name] + len(images))
    labels = np.array([shapes.scene(seed).label for seed in seeds], np.int64)
    return Pictures(images, masks, labels, seeds)


def pixels(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Images (n, 64, 64, 3) uint8 as (n, 3, 64, 64) float32 in [-1, 1]."""
    return torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
