from __future__ import annotations

import pytest

from easel.evaluation.folder import label_of_each

LABELS = ["tench", "red star", "crane", "blue ring", "crane"]


def test_folders_are_named_like_labels() -> None:
    assert label_of_each(["red star", "tench"], LABELS) == {"red star": 1, "tench": 0}


def test_names_say_what_a_folder_means() -> None:
    names = {"n01440764": "tench", "n02012849": 4, "unused": "whatever"}

    assert label_of_each(["n01440764", "n02012849", "red star"], LABELS, names) == {
        "n01440764": 0,
        "n02012849": 4,
        "red star": 1,
    }


def test_folders_that_are_no_label_are_named_with_what_is_close() -> None:
    with pytest.raises(ValueError, match="none of the model's 5 labels") as raised:
        label_of_each(["red sta", "zzz", "tench"], LABELS)

    said = str(raised.value)
    assert said.startswith("2 folders are none")
    assert "'red sta' (closest: 'red star'), 'zzz';" in said
    assert "--names" in said


def test_one_unknown_folder() -> None:
    with pytest.raises(ValueError, match=r"^1 folder is none of the model's 5 labels: 'zzz';"):
        label_of_each(["zzz"], LABELS)


@pytest.mark.parametrize(("count", "more"), [(5, False), (6, True)])
def test_many_unknown_folders_are_counted(count: int, more: bool) -> None:
    with pytest.raises(ValueError, match=f"{count} folders are none") as raised:
        label_of_each([f"zz{number}" for number in range(count)], LABELS)

    assert ("and 1 more" in str(raised.value)) is more


def test_a_label_that_the_model_has_twice_needs_an_index() -> None:
    with pytest.raises(ValueError, match="2 labels 'crane', 2 and 4; --names"):
        label_of_each(["crane"], LABELS)


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_out_of_range(index: int) -> None:
    with pytest.raises(ValueError, match=f"label {index} is out of range \\(0 to 4\\)"):
        label_of_each(["a"], LABELS, {"a": index})


@pytest.mark.parametrize("said", [None, True, 1.5, ["tench"]])
def test_a_name_that_is_neither(said: object) -> None:
    with pytest.raises(ValueError, match="neither a label nor an index"):
        label_of_each(["a"], LABELS, {"a": said})


def test_two_folders_of_one_label() -> None:
    with pytest.raises(ValueError, match="'fish' and 'tench' are both 'tench'"):
        label_of_each(["tench", "fish"], LABELS, {"fish": 0})
