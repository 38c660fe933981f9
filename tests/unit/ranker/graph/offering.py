"""Offers of a small catalogue, and a model of meaning whose meaning is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ranker.graph.index import MatchIndex, Meaning, Shelf, Vectors
from ranker.graph.offers import Offer


def offer(model: str, capability: str, **fields: object) -> Offer:
    values = {"type": "classifier", "name": capability.replace("-", " "), **fields}
    return Offer(model=model, capability=capability, **values)  # type: ignore[arg-type]


CATALOGUE = (
    offer(
        "vit",
        "classification",
        intents=("classify an image", "label a photo"),
        description="Says what is on a picture, among a thousand classes.",
        best_for=("photographs with one subject",),
        aliases=("ViT-L/16",),
    ),
    offer(
        "vit",
        "embedding",
        intents=("embed an image", "find similar images"),
        description="Vectors of 1024 numbers for search.",
    ),
    offer(
        "resnet",
        "classification",
        intents=("classify an image",),
        description="Says what is on a picture, with convolutions.",
    ),
    offer(
        "stable-diffusion",
        "text-to-image",
        type="generator",
        intents=("generate an image from text",),
        description="Pictures from a prompt.",
    ),
    offer(
        "stable-diffusion",
        "inpainting",
        type="generator",
        intents=("remove an object from a photo", "replace part of an image"),
        description="Paints what a mask covers anew.",
    ),
)


def indexed(
    offers: Sequence[Offer] = CATALOGUE, revision: int = 0, meaning: Meaning | None = None
) -> MatchIndex:
    shelf = Shelf(meaning)
    shelf.put(offers)
    return shelf.index(revision)


class Subjects:
    """Vectors by the subjects that a text speaks of; counts what it was asked."""

    SUBJECTS = (
        ("classif", "label", "recognise"),
        ("paint", "remove", "erase"),
        ("generat", "draw"),
    )

    def __init__(self) -> None:
        self.texts = 0

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        return self.embed_documents(texts)

    def embed_documents(self, texts: Sequence[str]) -> Vectors:
        self.texts += len(texts)
        rows = [
            [0.1, *(float(any(word in text.lower() for word in s)) for s in self.SUBJECTS)]
            for text in texts
        ]
        found = np.asarray(rows, np.float32)
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)
