import json
from pathlib import Path

import pytest

from services.core.artifacts import KEY_FILE, ArtifactStore

MADE_OF = {"model": "sha256:00", "version": "1"}


def write(folder: Path) -> None:
    (folder / "made").write_text("x")


def refuse(_folder: Path) -> None:
    raise AssertionError("it is there already")


def test_made_once_and_found_again(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "deep" / "store")
    with store.artifact(MADE_OF, write) as folder:
        assert (folder / "made").read_text() == "x"
    assert json.loads((folder / KEY_FILE).read_text()) == MADE_OF
    with store.artifact(dict(reversed(MADE_OF.items())), refuse) as again:
        assert again == folder
    assert list(store.root.iterdir()) == [folder]


def test_other_ingredients_make_another(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    with store.artifact(MADE_OF, write) as one, store.artifact({"model": "x"}, write) as other:
        assert one != other


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        write(folder)
        raise RuntimeError("no more room")

    store = ArtifactStore(tmp_path)
    with pytest.raises(RuntimeError, match="no more room"), store.artifact(MADE_OF, half):
        pass
    assert list(tmp_path.iterdir()) == []
    with store.artifact(MADE_OF, write) as folder:
        assert (folder / "made").is_file()


def test_of_two_that_make_the_same_the_first_stays(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)

    def slow(folder: Path) -> None:
        write(folder)
        with store.artifact(MADE_OF, write) as quick:
            (quick / "made").write_text("first")

    with store.artifact(MADE_OF, slow) as folder:
        assert (folder / "made").read_text() == "first"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_store_that_cannot_be_written_keeps_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with ArtifactStore(tmp_path / "file").artifact(MADE_OF, write) as folder:
        assert (folder / "made").is_file()
    assert not folder.exists()
    assert "not kept" in caplog.text
