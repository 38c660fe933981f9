"""Names that are one, and names that are near."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.catalogue.names import NameIndex, fold, index_of

NAMES = ("vit-large-patch16-384", "ViT-L/16-384", "Stable Diffusion", "stable-diffusion", "Demo")


@pytest.mark.parametrize("text", ["Stable  Diffusion", " STABLE DIFFUSION ", "Ｓtable diffusion"])
def test_case_width_and_blanks_are_left_out(text: str) -> None:
    assert fold(text) == "stable diffusion"


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("vit-large-patch16", "vit-large-patch16-384"),
        ("vit-large-patch-384", "vit-large-patch16-384"),
        ("stable difusion", "Stable Diffusion"),
        ("diffusion", "Stable Diffusion"),
        ("demmo", "Demo"),
    ],
)
def test_the_nearest_comes_first(text: str, nearest: str) -> None:
    assert NameIndex(NAMES).nearest(text)[0] == nearest


def test_what_is_like_nothing_is_offered_nothing() -> None:
    assert NameIndex(NAMES).nearest("zzzzqqqq") == []
    assert NameIndex([]).nearest("vit") == []
    assert NameIndex(NAMES).nearest("x" * 100_000) == []


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=20), st.data())
def test_a_name_is_the_nearest_to_itself(names: list[str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(names))
    if fold(name):
        nearest = NameIndex(names).nearest(name, count=len(names))
        assert fold(name) in map(fold, nearest)


def test_the_index_of_the_same_names_is_made_once() -> None:
    assert index_of(tuple(NAMES)) is index_of(tuple(NAMES))
    assert index_of(("another",)).nearest("anothr") == ["another"]
