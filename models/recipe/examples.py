"""What the generator learns from: latents with a caption worded anew each time."""

import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTokenizer

from models.recipe import captions, dataset


class Examples:
    """Latents, the weight of their shape, and a freshly worded caption, drawn at random."""

    def __init__(self, work: Path, tokenizer: CLIPTokenizer) -> None:
        pictures = dataset.load(work / "data", "train")
        self.latents = np.load(work / "encode" / "latents.npy", mmap_mode="r")
        self.masks = pictures.masks
        self.scenes = pictures.scenes()
        striped = [row for row, scene in enumerate(self.scenes) if scene.texture == "striped"]
        self.striped = np.array(striped)
        self.tokenizer = tokenizer

    def draw(
        self, count: int, numbers: torch.Generator, rng: random.Random, more_stripes: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (n, 4, 16, 16), masks (n, 1, 16, 16) in [0, 1], token ids (n, tokens)."""
        rows = torch.randint(len(self.latents), (count,), generator=numbers).numpy()
        if more_stripes:
            # Every fourth, not the first fourth: the timesteps rise along the batch.
            rows[::4] = self.striped[rows[::4] % len(self.striped)]
        latents = torch.from_numpy(self.latents[rows]).float()
        masks = torch.from_numpy(self.masks[rows]).float()[:, None] / 255
        masks = functional.max_pool2d(functional.avg_pool2d(masks, 2), 3, 1, 1)
        texts = [captions.distort(captions.describe(self.scenes[row], rng), rng) for row in rows]
        return latents, masks, self._ids(texts)

    def _ids(self, texts: list[str]) -> Tensor:
        ids: Tensor = self.tokenizer(
            texts, padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        return ids
