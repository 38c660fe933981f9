"""`easel evaluate` against a classifier that sees colours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from easel.cli.app import app
from tests.integration.easel.fake_classifier import Script, fake_classifier
from tests.unit.easel.pictures import png


@dataclass
class Bench:
    """A labelled folder and the service that is asked about it."""

    target: str
    script: Script
    folder: Path

    def put(self, name: str, colour: str, **options: Any) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(colour, **options))

    def run(self, *arguments: object) -> Result:
        runner = CliRunner(env={"EASEL_TARGET": self.target, "COLUMNS": "160"})
        return runner.invoke(app, ["evaluate", str(self.folder), *map(str, arguments)])

    def report(self, *arguments: object) -> Any:
        result = self.run(*arguments, "--json")
        assert result.stdout.count("\n") == 1, result.output
        return json.loads(result.stdout)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with fake_classifier() as (target, script):
        yield Bench(target, script, tmp_path / "labelled")


@pytest.fixture
def mixed(bench: Bench) -> Bench:
    """Ten pictures: red ones all right, an orange one among the greens (in the top 5), and
    one among the pink ones (not even there)."""
    for number in range(4):
        bench.put(f"red star/{number}.png", "red", size=(8 + number, 8))
    for number in range(3):
        bench.put(f"green heart/{number}.jpg", "green", size=(8 + number, 8), format="PNG")
    bench.put("green heart/deeper/3.png", "orange")
    bench.put("pink circle/0.webp", "orange", size=(9, 9), format="WEBP")
    bench.put("blue ring/0.png", "blue")
    return bench


def test_rates_and_confusions(mixed: Bench) -> None:
    told = mixed.report()

    assert (told["pictures"], told["evaluated"], told["failed"]) == (10, 10, [])
    assert (told["top_1"]["correct"], told["top_1"]["of"], told["top_1"]["share"]) == (8, 10, 0.8)
    assert [round(end, 4) for end in told["top_1"]["interval"]] == [0.4902, 0.9433]
    assert told["top_5"]["correct"] == 9
    assert told["mean_recall"] == pytest.approx((1 + 1 + 0.75 + 0) / 4)
    labels = {each["label"]: each for each in told["labels"]}
    assert list(labels) == ["red star", "blue ring", "green heart", "pink circle"]
    assert labels["green heart"]["recall"]["correct"] == 3
    assert labels["green heart"]["top_5"]["correct"] == 4
    assert labels["green heart"]["taken_for"] == "red star"
    assert labels["red star"]["precision"]["share"] == pytest.approx(4 / 6)
    assert labels["pink circle"]["precision"]["share"] is None
    assert {"label": "green heart", "said": "red star", "pictures": 1} in told["confusion"]
    assert sum(each["pictures"] for each in told["confusion"]) == 10
    assert [each["file"] for each in told["mistakes"]] == [
        "green heart/deeper/3.png",
        "pink circle/0.webp",
    ]
    assert told["model"] == {
        "name": "demo", "version": "7", "digest": "sha256:abc", "architecture": "",
        "backend": "fake", "device": "cpu", "precision": "float32",
    }  # fmt: skip


def test_throughput_is_told(mixed: Bench) -> None:
    pace = mixed.report()["throughput"]

    assert pace["pictures_per_second"] == pytest.approx(10 / pace["seconds"])
    assert pace["mean_compute_seconds"] == pytest.approx(0.5)
    assert pace["mean_batch_rows"] == 4


def test_one_model_and_version_is_asked_throughout(mixed: Bench) -> None:
    mixed.report("--fit", "pad")

    assert {request.model for request in mixed.script.requests} == {"demo"}
    assert {request.model_version for request in mixed.script.requests} == {"7"}
    assert {request.top_k for request in mixed.script.requests} == {5}
    assert {request.fit for request in mixed.script.requests} == {2}


def test_a_person_reads_tables(mixed: Bench) -> None:
    shown = mixed.run()

    assert shown.exit_code == 0
    assert "top-1 80.0% (49.0% to 94.3%), top-5 90.0% (59.6% to 98.2%)" in shown.stdout
    assert "10 pictures of 4 labels" in shown.stdout
    assert "fake cpu float32" in shown.stdout
    lines = shown.stdout.splitlines()
    worst = next(line for line in lines if line.startswith("pink circle"))
    assert lines.index(worst) == 1  # under the header: the worst comes first
    assert worst.split()[-2:] == ["red", "star"]


def test_report_and_picture_are_written(mixed: Bench, tmp_path: Path) -> None:
    told = mixed.report("--out", tmp_path / "out")

    assert json.loads((tmp_path / "out" / "report.json").read_text()) == told
    with Image.open(BytesIO((tmp_path / "out" / "confusion.png").read_bytes())) as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300


def test_unreadable_pictures_are_told_and_count_in_no_rate(mixed: Bench) -> None:
    (mixed.folder / "red star" / "junk.png").write_bytes(b"junk")
    (mixed.folder / "red star" / "empty.png").touch()
    (mixed.folder / "red star" / "gone.png").symlink_to("nowhere")
    mixed.put("blue ring/broken.png", "black")
    result = mixed.run("--json")
    told = json.loads(result.stdout)
    shown = mixed.run()

    assert result.exit_code == 1  # the model's own failure comes first, by name
    assert (told["pictures"], told["evaluated"]) == (14, 10)
    assert told["top_1"]["of"] == 10
    assert {each["file"]: each["error"] for each in told["failed"]} == {
        "blue ring/broken.png": "INTERNAL: Something went wrong.",
        "red star/empty.png": "INVALID_ARGUMENT: image.encoded: Not a picture.",
        "red star/gone.png": "No such file or directory",
        "red star/junk.png": "INVALID_ARGUMENT: image.encoded: Not a picture.",
    }
    assert "4 pictures failed and are not counted:" in shown.stderr
    assert "red star/gone.png: No such file or directory" in shown.stderr


def test_all_unreadable(bench: Bench, tmp_path: Path) -> None:
    (bench.folder / "red star").mkdir(parents=True)
    (bench.folder / "red star" / "junk.png").write_bytes(b"junk")
    result = bench.run("--out", tmp_path / "out", "--json")
    told = json.loads(result.stdout)

    assert result.exit_code == 2
    assert told["top_1"] == {"correct": 0, "of": 0, "share": None, "interval": [0.0, 1.0]}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.json"]
    assert bench.run().exit_code == 2


def test_what_there_was_no_room_for_is_asked_again(bench: Bench) -> None:
    for number in range(3):
        bench.put(f"red star/{number}.png", "gray", size=(8 + number, 8))
    told = bench.report()

    assert told["top_1"]["share"] == 1.0
    assert len(bench.script.requests) == 6


def test_other_files_are_counted_and_hidden_ones_are_not(mixed: Bench) -> None:
    (mixed.folder / "red star" / "notes.txt").write_text("x")
    (mixed.folder / "red star" / ".DS_Store").write_text("x")
    (mixed.folder / ".cache").mkdir()
    (mixed.folder / ".cache" / "a.png").write_bytes(png())

    assert mixed.report()["ignored"] == ["red star/notes.txt"]
    assert "1 other files left out" in mixed.run().stdout


def test_folders_that_are_no_labels(mixed: Bench) -> None:
    mixed.put("red stars/0.png", "red")
    result = mixed.run()

    assert result.exit_code == 2
    assert result.stderr == (
        "error: 1 folder is none of the model's 7 labels: 'red stars' (closest: 'red star'); "
        "`easel models --json` lists them, --names FILE says which is meant\n"
    )
    assert mixed.script.requests == []


def test_names_say_which_label_is_meant(bench: Bench, tmp_path: Path) -> None:
    bench.put("n01/0.png", "red")
    bench.put("n02/0.png", "blue", size=(9, 9))
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"n01": "red star", "n02": 1}))

    assert bench.report("--names", names)["top_1"]["correct"] == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [("nonsense", "no JSON: "), ("[1]", "no JSON object of folder names"), (None, "No such file")],
)
def test_names_that_cannot_be_read(mixed: Bench, content: str | None, says: str) -> None:
    names = mixed.folder.parent / "names.json"
    if content is not None:
        names.write_text(content)
    result = mixed.run("--names", names)

    assert result.exit_code == 2
    assert f"{names}: {says}" in result.stderr


def test_a_folder_without_labels(bench: Bench) -> None:
    missing = bench.run()
    bench.folder.mkdir()
    empty = bench.run()
    bench.put("loose.png", "red")
    loose = bench.run()

    assert (missing.exit_code, empty.exit_code, loose.exit_code) == (2, 2, 2)
    assert missing.stderr == f"error: {bench.folder}: no such folder\n"
    assert empty.stderr == f"error: {bench.folder}: no pictures in folders (JPEG, PNG, WebP)\n"
    assert loose.stderr == f"error: {bench.folder}: loose.png in no folder of a label\n"


def test_a_model_that_is_not_there(mixed: Bench) -> None:
    result = mixed.run("--model", "nonsense")

    assert result.exit_code == 2
    assert "NOT_FOUND: There is no model 'nonsense' here." in result.stderr


def test_nobody_there_is_3(mixed: Bench) -> None:
    assert mixed.run("--target", "127.0.0.1:1", "--timeout", "5").exit_code == 3
