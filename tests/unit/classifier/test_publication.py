"""Folders that appear whole, and the record in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.classifier.network import Options
from services.classifier.publication import (
    RECORD_FILE,
    Record,
    appearing,
    bytes_below,
    copied,
    digests,
    read_record,
    runs_artefact,
)
from services.core.errors import FailedPrecondition, InvalidInput


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A directory with an artefact of two files, and its record."""
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "model.xml").write_text("<net/>")
    (tmp_path / "openvino" / "model.bin").write_bytes(b"weights")
    record = Record(
        scheme="int8-static",
        precision="int8",
        backend="openvino",
        artefact="openvino/model.xml",
        height=8,
        width=6,
        source="sha256:ab",
        sha256=digests(tmp_path, "openvino"),
        figures={"agreement": {"rate": 1.0}},
    )
    record.write(tmp_path)
    return tmp_path


def test_a_folder_appears_when_the_block_ends(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with appearing(out) as folder:
        (folder / "file").write_text("all of it")
        assert not out.exists()
    assert (out / "file").read_text() == "all of it"
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_nothing_is_left_of_a_block_that_fails(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "file").write_text("half of it")
        raise RuntimeError("no more room")

    with pytest.raises(RuntimeError, match="no more"), appearing(tmp_path / "out") as folder:
        half(folder)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "file").write_text("mine")
    with pytest.raises(InvalidInput, match="is there already") as caught, appearing(out):
        pass
    assert caught.value.field == "out"
    assert (out / "file").read_text() == "mine"


def test_what_is_copied_is_what_is_there(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    (source / "config.json").write_text("{}")
    copied(source, target, ("config.json", "temperature.json"))
    assert [path.name for path in target.iterdir()] == ["config.json"]
    assert bytes_below(target) == 2


def test_a_directory_that_was_not_quantised(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None


def test_a_record_is_read_as_it_was_written(published: Path) -> None:
    record = read_record(published)
    assert record is not None
    assert (record.scheme, record.backend) == ("int8-static", "openvino")
    assert record.artefact == "openvino/model.xml"
    assert record.source == "sha256:ab"
    assert sorted(record.sha256) == ["openvino/model.bin", "openvino/model.xml"]
    assert record.figures == {"agreement": {"rate": 1.0}}


def test_a_damaged_artefact_is_named_with_both_digests(published: Path) -> None:
    expected = json.loads((published / RECORD_FILE).read_text())["sha256"]["openvino/model.bin"]
    (published / "openvino" / "model.bin").write_bytes(b"weighty")
    with pytest.raises(FailedPrecondition) as caught:
        read_record(published)
    assert "openvino/model.bin is damaged" in caught.value.message
    assert expected in caught.value.message


def test_an_artefact_that_is_missing(published: Path) -> None:
    (published / "openvino" / "model.xml").unlink()
    with pytest.raises(FailedPrecondition, match=r"lacks openvino/model\.xml"):
        read_record(published)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "what": 0}'])
def test_a_record_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD_FILE).write_text(text)
    with pytest.raises(FailedPrecondition, match=r"quantisation\.json cannot be used"):
        read_record(tmp_path)


def test_a_path_out_of_the_directory_is_no_artefact(published: Path) -> None:
    document = json.loads((published / RECORD_FILE).read_text())
    document["sha256"]["../other"] = "00"
    (published / RECORD_FILE).write_text(json.dumps(document))
    with pytest.raises(FailedPrecondition, match="cannot be used"):
        read_record(published)


RECORD = Record("int8-static", "int8", "openvino", "openvino/trunk.xml", 8, 6, "sha256:ab")
HALF = Record("float16", "float16", "pytorch", "", 8, 6, "sha256:ab")


@pytest.mark.parametrize(
    ("options", "runs"),
    [
        (Options(), True),
        (Options(precision="int8"), True),
        (Options(backend="openvino"), True),
        (Options(precision="float32"), False),
        (Options(precision="float32", backend="pytorch"), False),
    ],
)
def test_when_what_was_quantised_runs(options: Options, runs: bool) -> None:
    assert runs_artefact(options, RECORD) is runs


@pytest.mark.parametrize("record", [None, HALF])
def test_a_model_without_an_artefact_runs_as_any_other(record: Record | None) -> None:
    assert not runs_artefact(Options(), record)
    with pytest.raises(FailedPrecondition, match="Precision int8 is for a model that was quant"):
        runs_artefact(Options(precision="int8"), record)


def test_a_precision_that_it_was_not_quantised_to() -> None:
    with pytest.raises(FailedPrecondition, match="quantised to int8, not to int4"):
        runs_artefact(Options(precision="int4"), RECORD)


def test_a_backend_that_it_was_not_quantised_for() -> None:
    with pytest.raises(FailedPrecondition, match="quantised for openvino: say backend auto or"):
        runs_artefact(Options(backend="pytorch"), RECORD)
