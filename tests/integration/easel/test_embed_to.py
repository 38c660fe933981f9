"""`easel embed --to` against a classifier that sees colours: what is written, and what is left of
it when the command is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import faiss
import pyarrow.parquet as parquet
import pytest
from typer.testing import CliRunner, Result

from easel.cli.app import app
from tests.e2e.stack import wait_until
from tests.integration.easel.fake_classifier import Script, fake_classifier
from tests.unit.easel.pictures import png

COLOURS: Final = {"red": [255, 0, 0], "blue": [0, 0, 255], "green": [0, 128, 0]}


@dataclass
class Bench:
    """Twelve pictures and the service that is asked about them."""

    target: str
    script: Script
    folder: Path

    @property
    def vectors(self) -> dict[str, list[float]]:
        """What each picture's vector of the last layer is."""
        names = {path: path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*")}
        colours = {name: COLOURS[path.stem.split("-")[0]] for path, name in names.items()
                   if path.is_file()}  # fmt: skip
        return {name: [*map(float, colour), 12.0] for name, colour in colours.items()}

    def command(self, to: object, *arguments: object) -> list[str]:
        return ["embed", str(self.folder), "--to", str(to), *map(str, arguments)]

    def run(self, to: object, *arguments: object) -> Result:
        runner = CliRunner(env={"EASEL_TARGET": self.target, "COLUMNS": "160"})
        return runner.invoke(app, self.command(to, *arguments))

    def done(self, to: object, *arguments: object) -> Any:
        result = self.run(to, *arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def interrupt(self, to: object, after: int, number: signal.Signals) -> str:
        """Run the command and end it when ``after`` pictures have been answered."""
        self.script.hold_after = after
        self.script.holding.clear()
        process = subprocess.Popen(
            [sys.executable, "-m", "easel", *self.command(to, "--resume")],
            env={**os.environ, "EASEL_TARGET": self.target},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        partial = Path(f"{to}.partial")
        try:
            assert self.script.holding.wait(60)
            wait_until(lambda: partial.read_bytes().count(b".png") == after)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        self.script.hold_after = None
        assert "Traceback" not in out + err
        assert process.returncode == (130 if number is signal.SIGINT else -number)
        return err


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    folder = tmp_path / "pictures"
    for number in range(4):
        for colour in COLOURS:
            path = folder / f"part {number % 2}" / f"{colour}-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(colour, (8 + number, 8)))
    with fake_classifier() as (target, script):
        yield Bench(target, script, folder)


def rows(file: Path) -> dict[str, Any]:
    table = parquet.read_table(file).to_pylist()
    names = [row.pop("file") for row in table]
    assert len(names) == len(set(names))
    return dict(zip(names, table, strict=True))


def last_layer(file: Path) -> dict[str, list[float]]:
    return {name: row["layer_12"] for name, row in rows(file).items()}


def indexed(file: Path) -> dict[str, list[float]]:
    index = faiss.read_index(str(file))
    names = json.loads(Path(f"{file}.json").read_text())["names"]
    assert len(names) == len(set(names)) == index.ntotal
    return {name: index.reconstruct(place).tolist() for place, name in enumerate(names)}


def test_names_stay_with_their_vectors(bench: Bench, tmp_path: Path) -> None:
    told = bench.done(tmp_path / "v.parquet")

    assert last_layer(tmp_path / "v.parquet") == bench.vectors
    assert (told["written"], told["already"], told["failed"]) == (12, 0, [])
    assert (told["layers"], told["pooling"], told["normalized"]) == ([12], "cls", False)
    assert told["pictures_per_second"] > 0


def test_several_layers_in_one_pass(bench: Bench, tmp_path: Path) -> None:
    shown = bench.run(tmp_path / "v.parquet", "--layers", "4,-1", "--layers", "0", "--normalize")

    assert shown.exit_code == 0
    assert "demo, layers 4,12,0, cls, float32, length 1" in shown.stdout
    assert "12 pictures written" in shown.stdout
    row = rows(tmp_path / "v.parquet")["part 0/red-0.png"]
    assert row == {
        "layer_4": [255, 0, 0, 4], "layer_12": [255, 0, 0, 12], "layer_0": [255, 0, 0, 0]
    }  # fmt: skip
    assert {tuple(request.layers) for request in bench.script.requests} == {(4, -1, 0)}
    assert len(bench.script.requests) == 12


def test_patches_and_half_floats(bench: Bench, tmp_path: Path) -> None:
    bench.done(tmp_path / "v.parquet", "--pooling", "patch", "--dtype", "float16")

    row = rows(tmp_path / "v.parquet")["part 1/blue-1.png"]
    assert row == {"layer_12": [[[0, 0, 255, 12]] * 2] * 2}


def test_an_index_with_names_beside_it(bench: Bench, tmp_path: Path) -> None:
    bench.done(tmp_path / "v.index", "--dtype", "float16")

    assert indexed(tmp_path / "v.index") == bench.vectors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("name", ["v.parquet", "v.index"])
def test_an_interrupted_run_is_resumed(
    bench: Bench, tmp_path: Path, name: str, number: signal.Signals
) -> None:
    file = tmp_path / name
    first = bench.interrupt(file, 5, number)
    second = bench.interrupt(file, 9, number)
    assert not file.exists()
    told = bench.done(file, "--resume")

    # Nothing is lost, nothing is there twice, and what was kept is not asked again.
    assert (last_layer if name == "v.parquet" else indexed)(file) == bench.vectors
    assert told["already"] == 9
    assert told["written"] == 3
    assert len(bench.script.answered) == len(set(bench.script.answered)) == 12
    assert sorted(path.name for path in tmp_path.glob("*v.*")) == (
        ["v.parquet"] if name == "v.parquet" else ["v.index", "v.index.json"]
    )
    if number is signal.SIGINT:
        assert "what was embedded is kept, --resume goes on with it" in first + second


def test_a_service_that_goes_away_loses_nothing(bench: Bench, tmp_path: Path) -> None:
    bench.script.end_after = 7
    ended = bench.run(tmp_path / "v.parquet")
    bench.script.end_after = None
    told = bench.done(tmp_path / "v.parquet", "--resume")

    assert ended.exit_code == 3
    assert "what was embedded is kept, --resume goes on with it" in ended.stderr
    assert (told["already"], told["written"]) == (7, 5)
    assert last_layer(tmp_path / "v.parquet") == bench.vectors


def test_new_pictures_are_added(bench: Bench, tmp_path: Path) -> None:
    for name, read in (("v.parquet", last_layer), ("v.index", indexed)):
        bench.done(tmp_path / name)
        new = bench.folder / f"blue-{name}.png"
        new.write_bytes(png("blue", (40, 40)))
        told = bench.done(tmp_path / name, "--resume")

        assert (told["written"], told["already"]) == (1, len(bench.vectors) - 1)
        assert read(tmp_path / name) == bench.vectors


def test_a_finished_one_has_nothing_left(bench: Bench, tmp_path: Path) -> None:
    bench.done(tmp_path / "v.parquet")
    asked = len(bench.script.requests)
    told = bench.done(tmp_path / "v.parquet", "--resume")

    assert (told["written"], told["already"]) == (0, 12)
    assert len(bench.script.requests) == asked
    assert (
        "0 pictures written, 12 were there" in bench.run(tmp_path / "v.parquet", "--resume").stdout
    )


def test_what_is_there_is_not_replaced(bench: Bench, tmp_path: Path) -> None:
    bench.done(tmp_path / "v.parquet")
    result = bench.run(tmp_path / "v.parquet")

    assert result.exit_code == 2
    assert result.stderr == (
        f"error: {tmp_path / 'v.parquet'} is there already; --resume goes on with it\n"
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--pooling", "mean"], "pooling cls, this run has mean"),
        (["--layers", "3"], "layers 12, this run has 3"),
        (["--normalize"], "normalize False, this run has True"),
        (["--no-final-norm"], "final_norm True, this run has False"),
        (["--fit", "pad"], "fit model, this run has pad"),
    ],
)
def test_other_vectors_do_not_go_with_it(
    bench: Bench, tmp_path: Path, options: list[str], says: str
) -> None:
    bench.done(tmp_path / "v.parquet")
    result = bench.run(tmp_path / "v.parquet", "--resume", *options)

    assert result.exit_code == 2
    assert f"was made with {says}" in result.stderr


def test_another_model_does_not_go_with_it(bench: Bench, tmp_path: Path) -> None:
    bench.done(tmp_path / "v.index")
    bench.script.digest = "sha256:def"
    result = bench.run(tmp_path / "v.index", "--resume")

    assert result.exit_code == 2
    assert "was made with digest sha256:abc, this run has sha256:def" in result.stderr


def test_unreadable_pictures_are_told_and_the_rest_is_written(bench: Bench, tmp_path: Path) -> None:
    expected = bench.vectors
    (bench.folder / "junk.png").write_bytes(b"junk")
    result = bench.run(tmp_path / "v.parquet", "--json")
    told = json.loads(result.stdout)

    assert result.exit_code == 2
    assert told["failed"] == [
        {"file": "junk.png", "error": "INVALID_ARGUMENT: image.encoded: Not a picture."}
    ]
    assert last_layer(tmp_path / "v.parquet") == expected
    (bench.folder / "junk.png").write_bytes(png("blue", (50, 50)))
    assert bench.done(tmp_path / "v.parquet", "--resume")["written"] == 1


def test_what_there_was_no_room_for_is_asked_again(bench: Bench, tmp_path: Path) -> None:
    (bench.folder / "gray.png").write_bytes(png("gray"))

    assert bench.done(tmp_path / "v.parquet")["written"] == 13


@pytest.mark.parametrize(
    ("to", "options", "says"),
    [
        ("v.csv", [], "--to: '{to}' is none of FILE.parquet, FILE.index (FAISS) and milvus:URI"),
        ("v.parquet", ["--layers", "13"], "--layers: demo has the layers -13 to 12, given 13"),
        ("v.parquet", ["--layers", "-14"], "--layers: demo has the layers -13 to 12, given -14"),
        ("v.parquet", ["--layers", "1,x"], "--layers: '1,x' is not whole numbers, e.g. 4,-1"),
        ("v.parquet", ["--pooling", "max"], "pooling: 'max' is not one of cls, mean, patch"),
        ("v.index", ["--layers", "1,2"], "--layers: a FAISS index holds one layer, given 1,2"),
        ("v.parquet", ["--model", "none"], "NOT_FOUND: There is no model 'none' here."),
    ],
)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    bench: Bench, tmp_path: Path, to: str, options: list[str], says: str
) -> None:
    result = bench.run(tmp_path / to, *options)

    assert result.exit_code == 2
    assert says.format(to=tmp_path / to) in result.stderr
    assert list(tmp_path.glob("*v.*")) == []


@pytest.mark.parametrize("layer", [-13, 12])
def test_the_outermost_layers(bench: Bench, tmp_path: Path, layer: int) -> None:
    assert bench.done(tmp_path / "v.parquet", "--layers", layer)["layers"] == [layer % 13]


def test_no_pictures_at_all(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    runner = CliRunner(env={"EASEL_TARGET": bench.target})
    result = runner.invoke(app, ["embed", str(tmp_path / "none"), "--to", "v.parquet"])

    assert result.exit_code == 2
    assert result.stderr == f"error: {tmp_path / 'none'}: no pictures (JPEG, PNG, WebP)\n"


def test_two_pictures_of_one_name(bench: Bench, tmp_path: Path) -> None:
    runner = CliRunner(env={"EASEL_TARGET": bench.target})
    parts = [str(bench.folder), str(bench.folder)]
    result = runner.invoke(app, ["embed", *parts, "--to", str(tmp_path / "v.parquet")])

    assert result.exit_code == 2
    assert "would both be called 'part 0/blue-0.png'" in result.stderr


def test_resume_needs_a_destination(bench: Bench) -> None:
    runner = CliRunner(env={"EASEL_TARGET": bench.target})
    result = runner.invoke(app, ["embed", "x.png", "--resume"])

    assert result.exit_code == 2
    assert result.stderr == "error: --resume: needs --to\n"


def test_two_at_once_are_kept_apart(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "v.parquet"
    bench.script.hold_after = 3
    process = subprocess.Popen(
        [sys.executable, "-m", "easel", *bench.command(file)],
        env={**os.environ, "EASEL_TARGET": bench.target},
        stderr=subprocess.DEVNULL,
    )
    try:
        assert bench.script.holding.wait(60)
        result = bench.run(file, "--resume")
    finally:
        process.kill()
        process.wait(30)

    assert result.exit_code == 2
    assert "another process is writing it" in result.stderr
