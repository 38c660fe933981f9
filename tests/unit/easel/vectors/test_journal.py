"""Whatever moment the process ends at, what was written whole is there again, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from easel.vectors.journal import Journal
from tests.unit.easel.vectors.made import COLUMNS, RECIPE, record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of two pictures."""
    path = tmp_path / "v.partial"
    journal = Journal(path)
    journal.begin(RECIPE, COLUMNS)
    journal.append(record("a", 1.0))
    journal.append(record("ü/b", 2.0))
    journal.close()
    return path


def test_it_is_read_as_it_was_written(path: Path) -> None:
    journal = Journal(path)

    assert journal.recipe == RECIPE
    assert journal.columns == COLUMNS
    assert journal.names == ["a", "ü/b"]
    assert list(journal.records(["ü/b", "a"])) == [record("ü/b", 2.0), record("a", 1.0)]
    journal.close()


def test_more_is_appended_after_reading(path: Path) -> None:
    journal = Journal(path)
    list(journal.records(["a"]))
    journal.append(record("c", 3.0))
    journal.close()

    again = Journal(path)
    assert list(again.records(again.names)) == [
        record("a", 1.0),
        record("c", 3.0),
        record("ü/b", 2.0),
    ]
    again.close()


def test_a_picture_written_twice_counts_once(path: Path) -> None:
    journal = Journal(path)
    journal.append(record("a", 9.0))

    assert journal.names == ["a", "ü/b"]
    assert list(journal.records(["a"])) == [record("a", 9.0)]
    journal.close()


def test_cut_off_at_any_byte_it_goes_on_from_the_last_whole_picture(path: Path) -> None:
    whole = path.read_bytes()
    lengths = set()
    for end in range(len(whole) + 1):
        path.write_bytes(whole[:end])
        journal = Journal(path)
        names = journal.names
        lengths.add(len(names))
        if journal.recipe is None:
            assert names == []
            journal.begin(RECIPE, COLUMNS)
        journal.append(record("z", 5.0))
        journal.close()

        again = Journal(path)
        assert again.names == [*names, "z"] or again.names == sorted([*names, "z"])
        assert list(again.records(["z"])) == [record("z", 5.0)]
        again.close()
    assert lengths == {0, 1, 2}


def test_a_damaged_picture_and_what_follows_is_dropped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-10] ^= 1  # within the last record
    path.write_bytes(data)
    journal = Journal(path)

    assert journal.names == ["a"]
    journal.close()


def test_only_one_process_writes(path: Path) -> None:
    journal = Journal(path)

    with pytest.raises(ValueError, match="another process is writing it"):
        Journal(path)
    journal.close()
    Journal(path).close()


def test_another_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "v.partial"
    path.write_bytes(b"something of somebody else")

    with pytest.raises(ValueError, match="no journal of vectors"):
        Journal(path)
    assert path.read_bytes() == b"something of somebody else"


def test_one_without_a_picture_is_not_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "v.partial"
    journal = Journal(path)
    journal.begin(RECIPE, COLUMNS)
    journal.close()

    assert not path.exists()


def test_removed(path: Path) -> None:
    Journal(path).remove()

    assert not path.exists()


def test_it_begins_once(path: Path) -> None:
    journal = Journal(path)

    with pytest.raises(ValueError, match="begun already"):
        journal.begin(RECIPE, COLUMNS)
    journal.close()
