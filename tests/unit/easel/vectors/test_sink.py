"""A file that is written at the end, and a run that is taken up again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from easel.vectors.recipe import Column, Recipe, Record
from easel.vectors.sink import FileSink
from tests.unit.easel.vectors.made import COLUMNS, RECIPE, recipe, record


class FakeFile:
    """A file of names; ``fails`` makes its writing end as a full disk would."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fails = False

    def read(self) -> tuple[Recipe, Sequence[str]] | None:
        if not self.path.exists():
            return None
        made_by, *names = self.path.read_text().splitlines()
        return Recipe.from_json(made_by), names

    def write(self, recipe: Recipe, columns: tuple[Column, ...], records: Iterator[Record]) -> None:
        assert columns == COLUMNS
        there = self.read()
        names = [*(there[1] if there else ()), *(record.name for record in records)]
        if self.fails:
            raise OSError("No space left on device")
        self.path.write_text("\n".join([recipe.to_json(), *names]))

    @property
    def names(self) -> list[str]:
        found = self.read()
        return list(found[1]) if found else []


@pytest.fixture
def file(tmp_path: Path) -> FakeFile:
    return FakeFile(tmp_path / "v.txt")


def sink(file: FakeFile, *, resume: bool = False, made_by: Recipe = RECIPE) -> FileSink:
    return FileSink(file, made_by, resume=resume)


def fill(sink: FileSink, *names: str) -> None:
    sink.begin(COLUMNS)
    for name in names:
        sink.add(record(name))


def partial(file: FakeFile) -> Path:
    return file.path.with_name("v.txt.partial")


def test_all_is_written_by_name_at_the_end(file: FakeFile) -> None:
    with sink(file) as first:
        fill(first, "c", "a", "b")
        assert not file.path.exists()
        first.finish()

    assert file.names == ["a", "b", "c"]
    assert not partial(file).exists()


def test_an_interrupted_run_is_taken_up(file: FakeFile) -> None:
    with sink(file) as first:
        fill(first, "c", "a")
    with sink(file, resume=True) as second:
        assert second.kept(["a", "b", "c"]) == {"a", "c"}
        fill(second, "b")
        second.finish()

    assert file.names == ["a", "b", "c"]


def test_more_pictures_are_added_to_a_finished_file(file: FakeFile) -> None:
    with sink(file) as first:
        fill(first, "b")
        first.finish()
    with sink(file, resume=True) as second:
        assert second.kept(["a", "b", "c"]) == {"b"}
        fill(second, "c", "a")
        second.finish()

    assert file.names == ["b", "a", "c"]


def test_nothing_left_leaves_the_file_as_it_is(file: FakeFile) -> None:
    with sink(file) as first:
        fill(first, "a")
        first.finish()
    before = file.path.stat().st_mtime_ns
    with sink(file, resume=True) as second:
        second.finish()

    assert file.path.stat().st_mtime_ns == before
    assert not partial(file).exists()


def test_nothing_at_all_makes_no_file(file: FakeFile) -> None:
    with sink(file) as first:
        first.finish()

    assert list(file.path.parent.iterdir()) == []


def test_a_file_that_could_not_be_written_loses_nothing(file: FakeFile) -> None:
    file.fails = True
    with sink(file) as first:
        fill(first, "a")
        with pytest.raises(OSError, match="No space left"):
            first.finish()
    file.fails = False
    with sink(file, resume=True) as second:
        assert second.kept(["a", "b"]) == {"a"}
        second.finish()

    assert file.names == ["a"]


def test_ended_between_file_and_journal_nothing_is_there_twice(file: FakeFile) -> None:
    with sink(file) as first:
        fill(first, "a", "b")
        left = partial(file).read_bytes()
        first.finish()
    partial(file).write_bytes(left)
    with sink(file, resume=True) as second:
        fill(second, "c")
        second.finish()

    assert file.names == ["a", "b", "c"]


def test_what_is_there_is_not_replaced(file: FakeFile) -> None:
    with sink(file) as first:
        fill(first, "a")
    with pytest.raises(ValueError, match=r"v\.txt\.partial is there already; --resume"):
        sink(file)
    with sink(file, resume=True) as second:
        second.finish()
    with pytest.raises(ValueError, match=r"v\.txt is there already; --resume"):
        sink(file)


def test_another_recipe_is_refused(file: FakeFile) -> None:
    with sink(file) as first:
        fill(first, "a")
    other = recipe(pooling="mean")
    with pytest.raises(ValueError, match=r"v\.txt\.partial was made with pooling cls"):
        sink(file, resume=True, made_by=other)
    with sink(file, resume=True) as second:
        second.finish()
    with pytest.raises(ValueError, match=r"v\.txt was made with pooling cls"):
        sink(file, resume=True, made_by=other)


def test_other_shapes_are_refused(file: FakeFile) -> None:
    with sink(file) as first:
        fill(first, "a")
    with (
        sink(file, resume=True) as second,
        pytest.raises(ValueError, match="of other shapes"),
    ):
        second.begin((Column(2, (3,)), Column(4, (9,))))
