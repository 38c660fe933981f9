import pytest

from services.core.errors import InvalidInput
from services.generator.weighting import MAX_DEPTH, Fragment, fragments


def read(prompt: str) -> list[tuple[str, float]]:
    return [(part.text, round(part.weight, 6)) for part in fragments(prompt, "prompt")]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", [("", 1.0)]),
        ("a red star", [("a red star", 1.0)]),
        ("a (red:1.3) star", [("a ", 1.0), ("red", 1.3), (" star", 1.0)]),
        ("a (red : 1.3 ) star", [("a ", 1.0), ("red ", 1.3), (" star", 1.0)]),
        ("(red:0) star", [("red", 0.0), (" star", 1.0)]),
        ("(red:10)", [("red", 10.0)]),
        ("(red:.5)", [("red", 0.5)]),
        ("(red)", [("red", 1.1)]),
        ("((red))", [("red", 1.21)]),
        ("[red]", [("red", round(1 / 1.1, 6))]),
        ("[(red)] star", [("red star", 1.0)]),
        ("(a (red:2) star:1.5)", [("a ", 1.5), ("red", 3.0), (" star", 1.5)]),
        ("(red:1.0) star", [("red star", 1.0)]),
        (r"a \(red\) \[star\]", [("a (red) [star]", 1.0)]),
        (r"(a\:1.3)", [("a:1.3", 1.1)]),
        (r"back\slash \\(x)", [("back\\slash \\", 1.0), ("x", 1.1)]),
        ("(time: noon)", [("time: noon", 1.1)]),
        ("at 16:9", [("at 16:9", 1.0)]),
        ("(ratio 16:9 wide)", [("ratio 16:9 wide", 1.1)]),
        ("(:1.3)()", [("", 1.0)]),
        ("(x:١)", [("x:١", 1.1)]),
    ],
)
def test_spellings(prompt: str, expected: list[tuple[str, float]]) -> None:
    assert read(prompt) == expected


def test_a_fragment_weighs_one_unless_told() -> None:
    assert Fragment("x").weight == 1.0


@pytest.mark.parametrize(
    ("prompt", "given"),
    [
        ("a (red", "( at character 3"),
        ("a red)", ") at character 6"),
        ("[red", "[ at character 1"),
        ("(red]", "] at character 5"),
        ("16:9)", ") at character 5"),
        ("(red:10.1)", "10.1"),
        ("(red:-1)", "-1"),
        ("(((a:9):9):9)", "729"),
        ("[red:1.3]", ":1.3"),
        (f"[red:{'1' * 100}]", f":{'1' * 80}"),
    ],
)
def test_what_cannot_be_read_is_named(prompt: str, given: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        fragments(prompt, "negative_prompt")
    assert caught.value.field == "negative_prompt"
    assert caught.value.given == given


def test_brackets_nest_to_a_depth() -> None:
    opened = "[" * MAX_DEPTH + "x" + "]" * MAX_DEPTH
    assert len(fragments(opened, "prompt")) == 1
    with pytest.raises(InvalidInput) as caught:
        fragments("[" * 16_000, "prompt")
    assert caught.value.limit == str(MAX_DEPTH)
