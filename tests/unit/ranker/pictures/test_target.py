"""Labels found in prompts."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.pictures.target import find_by_name, find_in_prompt
from services.core.errors import InvalidInput

_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
_SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "arrow")
LABELS = tuple(f"{colour} {shape}" for shape in _SHAPES for colour in _COLOURS)
IMAGENET = (
    "tench, Tinca tinca",
    "tiger cat",
    "tiger, Panthera tigris",
    "cat",
    "crane",
    "crane",
    "rock crab, Cancer irroratus",
)


@pytest.mark.parametrize(
    ("prompt", "label"),
    [
        ("red circle", "red circle"),
        ("a Red Circle on a blue background", "red circle"),
        ("a red star on a striped green sheet of paper, white border", "red star"),
        ("a red, shiny star", "red star"),
        ("A drawing of a small purple arrow!", "purple arrow"),
        ("a star that is red", "red star"),
        ("a red star under a blue sky", "red star"),
        ("a big_yellow_ring", "yellow ring"),
    ],
)
def test_found(prompt: str, label: str) -> None:
    assert LABELS[find_in_prompt(prompt, LABELS)] == label


@pytest.mark.parametrize(
    ("prompt", "label"),
    [
        ("a photo of a tench", "tench, Tinca tinca"),
        ("tinca TINCA in a pond", "tench, Tinca tinca"),
        ("my tiger cat", "tiger cat"),
        ("a brown tiger-cat asleep", "tiger cat"),
        ("a cat", "cat"),
        ("a tiger in the grass", "tiger, Panthera tigris"),
    ],
)
def test_synonyms(prompt: str, label: str) -> None:
    assert IMAGENET[find_in_prompt(prompt, IMAGENET)] == label


@pytest.mark.parametrize(
    "prompt",
    ["", "  ", "a dog", "reddish circles", "infrared circled", "red", "circle", "\x00\ud800"],
)
def test_none_fits(prompt: str) -> None:
    with pytest.raises(InvalidInput, match="names no label") as caught:
        find_in_prompt(prompt, LABELS)
    assert caught.value.field == "judges"
    assert "judges[].label.label" in caught.value.message


def test_ambiguous_names_the_labels() -> None:
    with pytest.raises(InvalidInput, match="'red circle', 'blue square'") as caught:
        find_in_prompt("a red circle and a blue square", LABELS)
    assert caught.value.field == "judges"


def test_equal_names_are_ambiguous() -> None:
    with pytest.raises(InvalidInput, match="several"):
        find_in_prompt("a crane", IMAGENET)


def test_no_labels() -> None:
    with pytest.raises(InvalidInput):
        find_in_prompt("a red circle", ())


@given(
    st.sampled_from(LABELS),
    st.lists(st.sampled_from(("a", "big", "shiny", "drawing", "of", "sky"))),
    st.lists(st.sampled_from(("on", "the", "table", "paper", "sky"))),
)
def test_a_label_among_other_words_is_found(
    label: str, before: list[str], after: list[str]
) -> None:
    prompt = " ".join([*before, label, *after])
    assert LABELS[find_in_prompt(prompt, LABELS)] == label


@given(st.text(), st.lists(st.text(max_size=20), max_size=10))
def test_any_text_is_answered_or_refused(prompt: str, labels: list[str]) -> None:
    with suppress(InvalidInput):
        assert 0 <= find_in_prompt(prompt, labels) < len(labels)


def test_long_repetitive_prompt() -> None:
    prompt = "red " * 1000 + "blue " * 1000 + "circle"
    assert LABELS[find_in_prompt(prompt, LABELS)] == "blue circle"


@pytest.mark.parametrize(
    ("name", "index"),
    [("tiger cat", 1), ("Tiger Cat", 1), ("tench", 0), ("tench, Tinca tinca", 0), ("cat", 3)],
)
def test_by_name(name: str, index: int) -> None:
    assert find_by_name(name, IMAGENET, field="judges[0].label.label") == index


@pytest.mark.parametrize("name", ["dog", "crane", "", "  ", "ten"])
def test_by_name_refuses(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        find_by_name(name, IMAGENET, field="judges[2].label.label")
    assert caught.value.field == "judges[2].label.label"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("red starr", "No label is called that. The nearest: 'red star'"),
        ("zzzz", "No label is called that."),
        ("x" * 100_000, "No label is called that."),
    ],
)
def test_the_nearest_labels_are_offered(name: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        find_by_name(name, LABELS, field="label")
    assert refused.value.message.startswith(said)
    assert ("nearest" in refused.value.message) == ("nearest" in said)
    assert refused.value.given == name[:100]
