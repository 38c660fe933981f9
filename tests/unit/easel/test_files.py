"""Which files below a folder are pictures, and what they are called."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from easel.cli.files import named_pictures, pictures_under


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_pictures_are_told_by_their_suffix_and_named_from_the_folder(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.JPG", "b/1.jpeg", "a.png", "c/d/e.WebP", "b/notes.txt", "b/noext")
    found, others = pictures_under(tmp_path)

    assert [each.name for each in found] == ["a.png", "b/1.jpeg", "b/2.JPG", "c/d/e.WebP"]
    assert all(each.path.is_file() for each in found)
    assert others == ["b/noext", "b/notes.txt"]


def test_what_is_hidden_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, ".cache/a.png", "b/.hidden.png", "b/.DS_Store", "b/a.png")

    assert [each.name for each in pictures_under(tmp_path)[0]] == ["b/a.png"]
    assert pictures_under(tmp_path)[1] == []


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/a.png", "set/x/b.png")
    (tmp_path / "set" / "y").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "x" / "up").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "x" / "self").symlink_to(tmp_path / "set" / "x")

    assert [each.name for each in pictures_under(tmp_path / "set")[0]] == ["x/b.png", "y/a.png"]


def test_a_name_that_is_no_utf8_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, os.fsdecode(b"\xff.png"))

    with pytest.raises(ValueError, match=r"'\\udcff.png': the name is no UTF-8"):
        pictures_under(tmp_path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        pictures_under(tmp_path / "nowhere")


def test_files_keep_the_names_they_were_given_by(tmp_path: Path) -> None:
    touch(tmp_path, "one.bin", "folder/two.png", "folder/rest.txt")
    found, others = named_pictures([str(tmp_path / "one.bin"), str(tmp_path / "folder")])

    assert [each.name for each in found] == [(tmp_path / "one.bin").as_posix(), "two.png"]
    assert others == ["rest.txt"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        named_pictures([str(tmp_path / "gone.png")])


def test_two_of_one_name_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png")

    with pytest.raises(ValueError, match=r"a/1\.png and .*b/1\.png would both be called '1\.png'"):
        named_pictures([str(tmp_path / "a"), str(tmp_path / "b")])
