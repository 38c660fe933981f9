"""`easel index`, `easel similar` and `easel collections` against an index that sees colours."""

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

import pytest
from typer.testing import CliRunner, Result

from easel.cli.app import app
from easel.client import Client, EaselClientError
from tests.e2e.stack import wait_until
from tests.integration.easel.fake_index import MAX_ID_BYTES, Index, fake_index
from tests.unit.easel.pictures import png

COLOURS: Final = ("red", "blue", "green")
RED, BLUE, GREEN = "(255, 0, 0)", "(0, 0, 255)", "(0, 128, 0)"


@dataclass
class Bench:
    """Six pictures and the index that is asked about them."""

    target: str
    index: Index
    folder: Path

    def run(self, *arguments: object) -> Result:
        runner = CliRunner(env={"EASEL_TARGET": self.target, "COLUMNS": "160"})
        return runner.invoke(app, [*map(str, arguments)])

    def done(self, *arguments: object) -> Any:
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def pictures(self, collection: str = "pictures") -> list[str]:
        return sorted(self.index.collections[collection])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    folder = tmp_path / "shop"
    for number in range(2):
        for colour in COLOURS:
            path = folder / f"part {number}" / f"{colour}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(png(colour, (8 + number, 8)))
    with fake_index() as (target, index):
        yield Bench(target, index, folder)


NAMES: Final = [f"part {number}/{colour}.png" for number in range(2) for colour in sorted(COLOURS)]


def test_a_folder_is_indexed(bench: Bench) -> None:
    (bench.folder / "notes.txt").write_text("not one of them")
    told = bench.done("index", bench.folder, "--attribute", "shop=north", "-a", "year=")

    assert bench.pictures() == NAMES
    assert (told["indexed"], told["already"], told["failed"]) == (6, 0, [])
    assert (told["collection"], told["model"], told["digest"]) == ("pictures", "demo", "sha256:abc")
    assert told["ignored"] == ["notes.txt"]
    assert told["pictures_per_second"] > 0
    kept = bench.index.collections["pictures"]["part 0/red.png"]
    assert kept.attributes == {"shop": "north", "year": ""}


def test_what_is_there_is_not_sent_again(bench: Bench) -> None:
    bench.done("index", bench.folder)
    (bench.folder / "new.png").write_bytes(png("red"))
    bench.index.requests.clear()
    shown = bench.run("index", bench.folder)

    assert [request.id for request in bench.index.requests] == ["new.png"]
    assert bench.index.pages == 3
    assert "pictures: 1 pictures indexed, 6 were there" in shown.stdout


def test_of_a_large_collection_no_list_is_asked_for(bench: Bench) -> None:
    """The index itself says then what it has."""
    bench.done("index", bench.folder)
    told = bench.done("index", bench.folder / "part 0" / "red.png")
    assert (told["indexed"], told["already"]) == (1, 0)  # another name
    told = bench.done("index", bench.folder / "part 0" / "red.png")
    assert (told["indexed"], told["already"]) == (0, 1)
    assert bench.index.pages == 0


def test_all_is_indexed_again_where_that_is_wanted(bench: Bench) -> None:
    bench.done("index", bench.folder)
    told = bench.done("index", bench.folder, "--replace", "-a", "shop=south")
    assert (told["indexed"], told["already"]) == (6, 0)
    kept = bench.index.collections["pictures"]["part 1/blue.png"]
    assert kept.attributes == {"shop": "south"}


def test_pictures_that_fail_are_named(bench: Bench) -> None:
    (bench.folder / "broken.png").write_bytes(b"no picture")
    long = "x" * (MAX_ID_BYTES + 1) + ".png"
    (bench.folder / long).write_bytes(png())
    result = bench.run("index", bench.folder, "--json")

    assert result.exit_code == 2
    told = json.loads(result.stdout)
    assert told["indexed"] == 6
    assert sorted(each["file"] for each in told["failed"]) == ["broken.png", long]
    assert "Not a picture." in told["failed"][0]["error"] + told["failed"][1]["error"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_goes_on(bench: Bench, number: signal.Signals) -> None:
    bench.index.hold_after = 3
    process = subprocess.Popen(
        [sys.executable, "-m", "easel", "index", str(bench.folder)],
        env={**os.environ, "EASEL_TARGET": bench.target},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert bench.index.holding.wait(60)
        wait_until(lambda: len(bench.index.answered) == 3)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "Traceback" not in out + err
    assert process.returncode == (130 if number is signal.SIGINT else -number)

    bench.index.hold_after = None
    told = bench.done("index", bench.folder)
    assert (told["indexed"], told["already"]) == (3, 3)
    assert bench.pictures() == NAMES
    assert len(bench.index.answered) == 6


def test_a_collection_of_other_vectors(bench: Bench) -> None:
    options = ["--layer", "-3", "--pooling", "mean", "--fit", "pad", "--model", "demo"]
    bench.done("index", bench.folder, "-c", "others", *options)
    (asked,) = bench.index.asked
    assert (asked.name, asked.layer, asked.pooling, asked.fit, asked.model) == (
        "others", -3, 2, 2, "demo",
    )  # fmt: skip
    assert bench.pictures("others") == NAMES


def test_pictures_like_one(bench: Bench) -> None:
    bench.done("index", bench.folder, "-a", "shop=north")
    told = bench.done("similar", bench.folder / "part 0" / "red.png", "-k", "3")
    first, second, third = told["matches"]
    assert [first["id"], second["id"]] == ["part 0/red.png", "part 1/red.png"]
    assert first["similarity"] == 1.0
    assert third["similarity"] < 1.0
    assert first["labels"] == [{"name": RED, "probability": pytest.approx(0.9)}]
    assert first["attributes"] == {"shop": "north"}

    by_id = bench.done("similar", "--id", "part 0/red.png", "-k", "1")
    assert [match["id"] for match in by_id["matches"]] == ["part 1/red.png"]
    labelled = bench.done("similar", "--label", GREEN, "--label", BLUE)
    assert {match["id"] for match in labelled["matches"]} == {
        name for name in NAMES if "red" not in name
    }
    assert "similarity" not in labelled["matches"][0]
    none = bench.done("similar", "--label", GREEN, "-a", "shop=south")
    assert none["matches"] == []

    shown = bench.run("similar", bench.folder / "part 0" / "red.png", "--label", RED)
    assert "similarity  picture" in shown.stdout
    assert "1.000  part 0/red.png  (255, 0, 0)  0.90  shop=north" in shown.stdout


def test_collections(bench: Bench) -> None:
    assert "no collections" in bench.run("collections", "list").stdout
    bench.done("index", bench.folder, "-a", "shop=north")
    shown = bench.run("collections", "list").stdout
    assert "pictures           6  demo 7     12  cls      center-crop           3" in shown
    (told,) = bench.done("collections", "list")["collections"]
    assert (told["name"], told["images"], told["digest"]) == ("pictures", 6, "sha256:abc")
    images = bench.done("collections", "show", "pictures")["images"]
    assert [image["id"] for image in images] == NAMES
    assert "part 1/red.png    (255, 0, 0)" in bench.run("collections", "show", "pictures").stdout

    some = ("part 0/red.png", "not there")
    assert bench.done("collections", "delete", "pictures", *some) == {"deleted": 1}
    assert (
        "5 pictures deleted from pictures" in bench.run("collections", "delete", "pictures").stdout
    )
    assert bench.index.collections == {}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["similar"], "say what to look for: a picture, --id or --label"),
        (["similar", "x.png", "--id", "y"], "say what to look for"),
        (["similar", "missing.png"], "missing.png: No such file"),
        (["similar", "--id", "a", "-c", "none"], "There is no collection 'none'."),
        (["index", "missing"], "missing: No such file"),
        (["index", ".", "-a", "shop"], "--attribute: 'shop' is not NAME=VALUE"),
        (["index", ".", "-a", "=x"], "--attribute: '=x' is not NAME=VALUE"),
        (["index", ".", "-a", "a=1", "-a", "a=2"], "--attribute: 'a' is given twice"),
        (["index", ".", "--pooling", "max"], "pooling: 'max' is not one of cls, mean, patch"),
        (["collections", "show", "none"], "There is no collection 'none'."),
        (["collections", "delete", "none"], "There is no collection 'none'."),
    ],
)
def test_wrong_usage_is_told(bench: Bench, arguments: list[str], said: str) -> None:
    result = bench.run(*(bench.folder if each == "." else each for each in arguments))
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_client(bench: Bench) -> None:
    with Client(bench.target) as client:
        images = [(colour, png(colour)) for colour in COLOURS]
        answers = client.index_images(
            images, collection="c", attributes=lambda name: {"first": name[0]}
        )
        assert {(each.id, each.skipped, each.digest) for each in answers} == {
            (colour, False, "sha256:abc") for colour in COLOURS
        }
        (again,) = client.index_images([images[0]], collection="c", skip_existing=True)
        assert again.skipped
        (named,) = client.index_images([png()], collection="other")
        assert (named.id, named.labels[0].name) == ("0", RED)

        best = client.search_images("c", image=png("blue"), top_k=1)[0]
        assert (best.id, best.similarity, best.attributes) == ("blue", 1.0, {"first": "b"})
        assert client.search_images("c", labels=[RED])[0].similarity is None
        with pytest.raises(ValueError, match="one of image, embedding and id"):
            client.search_images("c", image=png(), id="red")
        assert [image.id for image in client.list_images("c")] == sorted(COLOURS)
        assert client.delete_images("c", ["red"]) == 1
        made = client.create_collection("new", layer=3, pooling="mean", fit="center-crop")
        assert (made.name, made.layer, made.fit) == ("new", 12, "center-crop")
        assert [each.name for each in client.list_collections()] == ["c", "new", "other"]
        assert client.delete_collection("c") == 2
        with pytest.raises(EaselClientError, match="no collection"):
            client.delete_collection("c")
