from __future__ import annotations

import json
from typing import Any

import pytest

from easel.vectors.recipe import Column, Recipe, numbers
from tests.unit.easel.vectors.made import RECIPE, recipe


def test_it_is_read_as_it_was_written() -> None:
    assert Recipe.from_json(RECIPE.to_json()) == RECIPE


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"digest": "sha256:b"}, "digest sha256:a, this run has sha256:b"),
        ({"layers": (4,)}, "layers 2,4, this run has 4"),
        ({"layers": (4, 2)}, "layers 2,4, this run has 4,2"),
        ({"pooling": "mean"}, "pooling cls, this run has mean"),
        ({"normalize": True}, "normalize False, this run has True"),
        ({"dtype": "float16"}, "dtype float32, this run has float16"),
        ({"final_norm": False}, "final_norm True, this run has False"),
        ({"fit": "pad"}, "fit model, this run has pad"),
    ],
)
def test_each_difference_is_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"here was made with {says}"):
        RECIPE.check_same(recipe(**change), "here")


def test_a_model_may_go_by_another_name() -> None:
    RECIPE.check_same(recipe(model="other", version="2"), "here")


@pytest.mark.parametrize("text", ["[]", "{}", json.dumps({"model": "demo"})])
def test_what_is_no_recipe(text: str) -> None:
    with pytest.raises(ValueError, match="no recipe"):
        Recipe.from_json(text)


def test_columns() -> None:
    patches = Column(12, (2, 3, 4))

    assert (patches.name, patches.size) == ("layer_12", 24)


def test_numbers_of_both_kinds() -> None:
    assert numbers(b"\x00\x00\x80\x3f\x00\x00\x00\xc0", "float32") == [1.0, -2.0]
    assert numbers(b"\x00\x3c\x00\xc0", "float16") == [1.0, -2.0]
