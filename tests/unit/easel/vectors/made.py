"""Recipes and records to test with."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

from easel.vectors.recipe import Column, Recipe, Record

RECIPE = Recipe("demo", "1", "sha256:a", (2, 4), "cls", False, "float32", True, "model")
COLUMNS = (Column(2, (3,)), Column(4, (2,)))


def recipe(**changes: Any) -> Recipe:
    return replace(RECIPE, **changes)


def record(name: str, first: float = 0.0, letter: str = "f") -> Record:
    """``first``, ``first`` + 1, ... through both columns."""
    return Record(
        name,
        (
            struct.pack(f"<3{letter}", first, first + 1, first + 2),
            struct.pack(f"<2{letter}", first + 3, first + 4),
        ),
    )


ONE = recipe(layers=(4,))
ONE_COLUMN = (Column(4, (2,)),)


def single(name: str, first: float = 0.0, letter: str = "f") -> Record:
    """Two numbers of one layer."""
    return Record(name, (struct.pack(f"<2{letter}", first, first + 1),))
