"""`easel embed --to milvus:FILE.db`, on Milvus Lite: the same calls as on a server."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymilvus import MilvusClient
from typer.testing import CliRunner, Result

from easel.cli.app import app
from easel.vectors.milvus import Milvus
from easel.vectors.recipe import Column, Recipe, Record
from tests.integration.easel.fake_classifier import Script, fake_classifier
from tests.unit.easel.pictures import png

RECIPE = Recipe("demo", "7", "sha256:abc", (12,), "cls", False, "float32", True, "model")
COLUMNS = (Column(12, (4,)),)
NAMES = ['a "quoted" name.png', "b\\back.png", "c's/ü.png"]


def record(name: str, first: float) -> Record:
    return Record(name, (struct.pack("<4f", first, 2, 3, 4),))


def rows(path: Path, collection: str = "easel") -> dict[str, Any]:
    client = MilvusClient(str(path))
    try:
        client.load_collection(collection)
        found = client.query(collection, filter='file != ""', output_fields=["*"])
    finally:
        client.close()
    assert len(found) == len({row["file"] for row in found})
    return {row["file"]: row for row in found}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "v.db"


@pytest.fixture
def service() -> Iterator[tuple[str, Script]]:
    with fake_classifier() as served:
        yield served


def test_what_was_sent_is_kept_and_nothing_is_there_twice(path: Path) -> None:
    store = Milvus(str(path), "easel", batch_rows=2)
    first = store.open(RECIPE, resume=False)
    assert first.kept(NAMES) == set()
    first.begin(COLUMNS)
    for name in NAMES:
        first.add(record(name, 1.0))
    first.close()  # interrupted: the third waits for a full batch

    second = store.open(RECIPE, resume=True)
    assert second.kept(NAMES) == set(NAMES[:2])
    second.begin(COLUMNS)
    second.add(record(NAMES[2], 5.0))
    second.add(record(NAMES[0], 7.0))
    second.finish()
    second.close()

    found = rows(path)
    assert {name: row["layer_12"][0] for name, row in found.items()} == dict(
        zip(NAMES, [7.0, 1.0, 5.0], strict=True)
    )
    assert Recipe.from_json(found[NAMES[1]]["recipe"]) == RECIPE


def test_vectors_that_do_not_go_together_are_refused(path: Path) -> None:
    store = Milvus(str(path), "easel")
    first = store.open(RECIPE, resume=False)
    first.begin(COLUMNS)
    first.add(record("a", 1.0))
    first.finish()
    first.close()

    with pytest.raises(ValueError, match=r"collection easel at .*v\.db is there already"):
        store.open(RECIPE, resume=False)
    other = Recipe("demo", "7", "sha256:abc", (12,), "mean", False, "float32", True, "model")
    sink = store.open(other, resume=True)
    for names in (["a"], ["another"]):
        with pytest.raises(ValueError, match="was made with pooling cls, this run has mean"):
            sink.kept(names)
    with pytest.raises(ValueError, match="has no field layer_3 of 4 numbers; --collection"):
        sink.begin((Column(3, (4,)),))
    with pytest.raises(ValueError, match="has no field layer_12 of 5 numbers"):
        sink.begin((Column(12, (5,)),))
    sink.close()


def test_a_collection_of_somebody_else_is_refused(path: Path) -> None:
    path.parent.mkdir()
    client = MilvusClient(str(path))
    client.create_collection("theirs", dimension=4)
    client.close()
    sink = Milvus(str(path), "theirs").open(RECIPE, resume=True)
    try:
        with pytest.raises(ValueError, match=r"theirs at .* has no field file; --collection"):
            sink.kept(["a"])
    finally:
        sink.close()


@pytest.mark.parametrize(("length", "fits"), [(4096, True), (4097, False)])
def test_names_have_a_longest(path: Path, length: int, fits: bool) -> None:
    sink = Milvus(str(path), "easel").open(RECIPE, resume=False)
    sink.begin(COLUMNS)
    name = "x" * length
    try:
        if fits:
            sink.add(record(name, 1.0))
            sink.finish()
            assert sink.kept([name]) == {name}
        else:
            with pytest.raises(ValueError, match="longer than 4096 bytes"):
                sink.add(record(name, 1.0))
    finally:
        sink.close()


def test_the_whole_command(service: tuple[str, Script], path: Path, tmp_path: Path) -> None:
    target, script = service
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.png").write_bytes(png("red"))
    (folder / "b.png").write_bytes(png("blue"))

    def run(*options: str) -> Result:
        runner = CliRunner(env={"EASEL_TARGET": target})
        arguments = ["embed", str(folder), "--to", f"milvus:{path}", "--layers", "3,-1"]
        return runner.invoke(app, [*arguments, "--dtype", "float16", "--json", *options])

    first = run()
    (folder / "c.png").write_bytes(png("green"))
    refused, second = run(), run("--resume")

    assert (first.exit_code, refused.exit_code, second.exit_code) == (0, 2, 0), first.output
    assert "--collection names another" in refused.stderr
    told = json.loads(second.stdout)
    assert (told["written"], told["already"]) == (1, 2)
    found = rows(path)
    assert {name: row["layer_3"] for name, row in found.items()} == {
        "a.png": [255, 0, 0, 3],
        "b.png": [0, 0, 255, 3],
        "c.png": [0, 128, 0, 3],
    }
    assert found["c.png"]["layer_12"] == [0, 128, 0, 12]
    assert len(script.requests) == 3
    assert run("--collection", "another").exit_code == 0
    assert len(rows(path, "another")) == 3


def test_a_service_that_goes_away_loses_nothing(
    service: tuple[str, Script], path: Path, tmp_path: Path
) -> None:
    target, script = service
    for number, colour in enumerate(("red", "blue", "green")):
        (tmp_path / f"{number}.png").write_bytes(png(colour))
    files = [str(tmp_path / f"{number}.png") for number in range(3)]

    def run() -> Result:
        runner = CliRunner(env={"EASEL_TARGET": target})
        return runner.invoke(app, ["embed", *files, "--to", f"milvus:{path}", "--json", "--resume"])

    script.end_after = 2
    ended = run()
    script.end_after = None
    told = json.loads(run().stdout)

    assert ended.exit_code == 3
    assert (told["already"], told["written"]) == (2, 1)
    assert sorted(rows(path)) == files


def test_a_grid_of_patches_is_refused(path: Path) -> None:
    grid = Recipe("demo", "7", "sha256:abc", (12,), "patch", False, "float32", True, "model")

    with pytest.raises(ValueError, match="--pooling: patch gives a grid of vectors"):
        Milvus(str(path), "easel").open(grid, resume=False)
    assert not path.exists()


def test_a_server_that_is_not_there(service: tuple[str, Script], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png("red"))
    runner = CliRunner(env={"EASEL_TARGET": service[0]})
    arguments = ["embed", str(tmp_path / "a.png"), "--to", "milvus:http://127.0.0.1:1"]
    result = runner.invoke(app, arguments)

    assert result.exit_code == 1
    assert "error: collection easel at http://127.0.0.1:1: " in result.stderr
    assert result.stderr.count("\n") == 1
