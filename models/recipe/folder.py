"""Draws pictures that no model has learned from into a folder a label, to evaluate on.

python -m models.recipe.folder out/held-out 10
"""

import sys
from collections import Counter
from itertools import count
from pathlib import Path

from models.recipe import shapes
from models.recipe.dataset import FIRST_SEED


def fill(folder: Path, per_label: int) -> None:
    """Write `per_label` pictures of each label as PNG, named by their seeds."""
    drawn: Counter[int] = Counter()
    for seed in count(FIRST_SEED["held_out"]):
        scene = shapes.scene(seed)
        if drawn[scene.label] < per_label:
            drawn[scene.label] += 1
            path = folder / shapes.LABELS[scene.label] / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture, _ = shapes.draw(scene)
            picture.save(path)
        elif drawn.total() == per_label * len(shapes.LABELS):
            return


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]))
