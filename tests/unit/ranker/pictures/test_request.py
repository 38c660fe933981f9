"""Limits of BestOf and RankImages."""

from __future__ import annotations

import pytest

from ranker.pictures.request import (
    check_count,
    check_id,
    check_images,
    check_prompt,
    count_candidates,
)
from services.core.errors import InvalidInput


def count(
    candidates: int = 0,
    *,
    count: int = 0,
    seeds: tuple[int, ...] = (),
    has_seed: bool = False,
) -> int:
    return count_candidates(
        candidates, count=count, seeds=seeds, has_seed=has_seed, max_candidates=64
    )


def test_candidates() -> None:
    assert count() == 4
    assert count(7) == 7
    assert count(64, has_seed=True) == 64
    assert count(seeds=(1, 2)) == 2
    assert count(3, seeds=(1, 2)) == 3
    assert count(3, count=3) == 3
    assert count(count=4) == 4


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"candidates": 65}, "candidates"),
        ({"candidates": 2**32 - 1}, "candidates"),
        ({"candidates": 3, "count": 4}, "generate.count"),
        ({"count": 3}, "generate.count"),
        ({"candidates": 1, "seeds": (1, 2)}, "generate.seeds"),
        ({"seeds": tuple(range(65))}, "generate.seeds"),
        ({"seeds": (1,), "has_seed": True}, "generate.seeds"),
    ],
)
def test_what_does_not_agree_names_its_field(given: dict[str, int], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        count(**given)  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("ids", "field"),
    [
        ([], "images"),
        (["a", "b", "a"], "images[2].id"),
        (["", ""], "images[1].id"),
        (["a", "x" * 129], "images[1].id"),
    ],
)
def test_bad_images(ids: list[str], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_images(ids)
    assert caught.value.field == field


def test_good_images() -> None:
    check_images([""])
    check_images(["a", "b", ""])


def test_ids_are_measured_in_bytes() -> None:
    check_id("é" * 64)
    with pytest.raises(InvalidInput):
        check_id("é" * 65)


def test_prompt() -> None:
    check_prompt("x" * 10_000, field="prompt")
    with pytest.raises(InvalidInput):
        check_prompt("x" * 10_001, field="prompt")


def test_lists_that_are_too_long() -> None:
    check_count(3, 3, field="judges")
    with pytest.raises(InvalidInput) as caught:
        check_count(4, 3, field="judges")
    assert (caught.value.field, caught.value.limit, caught.value.given) == ("judges", "3", "4")
