"""Folders of what the demo classifier knows."""

from __future__ import annotations

from pathlib import Path

from models.recipe import shapes

# Of pictures that nothing was trained on.
FIRST_SEED = 20_000_000


def save_shapes(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(FIRST_SEED, FIRST_SEED + count):
        picture, _ = shapes.draw(shapes.scene(seed))
        picture.save(folder / f"{seed}.png")
    return folder
