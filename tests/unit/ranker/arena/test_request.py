from __future__ import annotations

import pytest

from ranker.arena import request
from services.core.errors import InvalidInput


def test_names_at_and_above_their_limit() -> None:
    most = "é" * 64
    assert request.check_name(most, "name") == most
    with pytest.raises(InvalidInput) as raised:
        request.check_name(most + "x", "contender.name")
    assert (raised.value.field, raised.value.limit, raised.value.given) == (
        "contender.name",
        "128 bytes",
        "129 bytes",
    )


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "\x00"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InvalidInput):
        request.check_name(name, "name")


def test_a_judge_may_be_nobody_and_not_one_of_the_rankers() -> None:
    assert request.check_judge("") == ""
    assert request.check_judge("ada") == "ada"
    with pytest.raises(InvalidInput, match="ranker's own"):
        request.check_judge("easel:vit")


def test_prompts_at_and_above_their_limit() -> None:
    assert request.check_prompt("x" * 10_000, "prompt")
    for text in ("", "  ", "a\0b", "x" * 10_001):
        with pytest.raises(InvalidInput):
            request.check_prompt(text, "prompt")


def test_numbers_at_and_above_their_limit() -> None:
    assert request.check_number(1, 1, 5, "pairs") == 1
    assert request.check_number(5, 1, 5, "pairs") == 5
    for given in (0, 6):
        with pytest.raises(InvalidInput, match="out of range"):
            request.check_number(given, 1, 5, "pairs")
