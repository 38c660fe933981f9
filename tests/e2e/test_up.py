"""`easel up` with real services and the demo pair: used, hurt, and stopped.

One stack serves the whole module; the tests run in this order, the last one stops it.
"""

from __future__ import annotations

import json
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from PIL import Image

from easel import Client, EaselClientError
from easel.cli.counters import scrape
from tests.e2e.stack import Stack, easel, survivors, up, wait_until

pytestmark = pytest.mark.timeout(600)
PROMPT = "a red star on a blue background"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with up(tmp_path_factory.mktemp("stack")) as stack:
        yield stack


@pytest.fixture(scope="module")
def pictures(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    arguments = ["-n", "2", "--steps", "8", "--seed", "11", "--out", folder, "--json"]
    told = document(stack.easel("generate", PROMPT, *arguments))
    assert [Path(image["file"]).name for image in told["images"]] == ["11.png", "12.png"]
    return [image["file"] for image in told["images"]]


def document(done: Any) -> Any:
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    return json.loads(done.stdout)


def test_the_state_names_every_process(stack: Stack) -> None:
    services = stack.state["services"]

    assert list(services) == ["classifier", "generator", "ranker", "gateway"]
    pids = {service["pid"] for service in services.values()}
    assert pids | {stack.process.pid} <= set(survivors(stack.mark))


def test_status_and_models(stack: Stack) -> None:
    status = document(stack.easel("status", "--json"))
    models = document(stack.easel("models", "--json"))
    shown = stack.easel("status")

    assert status["ready"]
    assert {service["state"] for service in status["services"]} == {"SERVING"}
    assert {model["kind"] for model in models["models"]} == {"classifier", "generator"}
    assert "ready" in shown.stdout


def test_classify(stack: Stack, pictures: list[str]) -> None:
    told = document(stack.easel("classify", *pictures, "-k", "3", "--json"))

    assert [answer["file"] for answer in told["results"]] == pictures
    for answer in told["results"]:
        scores = [label["score"] for label in answer["labels"]]
        assert len(scores) == 3
        assert scores == sorted(scores, reverse=True)


def test_embed(stack: Stack, pictures: list[str]) -> None:
    told = document(stack.easel("embed", pictures[0], "--layer", "-1", "--normalize", "--json"))

    values = told["results"][0]["embeddings"][0]["values"]
    assert sum(value * value for value in values) == pytest.approx(1.0, abs=1e-2)


def test_explain(stack: Stack, pictures: list[str], tmp_path: Path) -> None:
    out = tmp_path / "heat.png"
    arguments = ["--method", "gradient", "--out", out, "--json"]
    told = document(stack.easel("explain", pictures[0], *arguments))
    best = document(stack.easel("classify", pictures[0], "-k", "1", "--json"))
    shown = stack.easel("explain", pictures[0], "--label", "blue ring")
    unknown = stack.easel("explain", pictures[0], "--label", "mauve ring")

    assert told["label"]["name"] == best["results"][0]["labels"][0]["name"]
    assert [len(row) for row in told["relevance"]] == [8] * 8
    assert sum(map(sum, told["relevance"])) == pytest.approx(1.0, abs=1e-5)
    # The shape is in the middle, and it is what the label is about.
    middle = sum(sum(row[2:6]) for row in told["relevance"][2:6])
    assert middle > 0.35
    assert Image.open(out).size == Image.open(pictures[0]).size
    assert shown.returncode == 0, shown.stderr
    assert "blue ring" in shown.stdout
    assert unknown.returncode == 2
    assert "INVALID_ARGUMENT: label: The model has no label 'mauve ring'." in unknown.stderr


def test_rank(stack: Stack, pictures: list[str]) -> None:
    told = document(stack.easel("rank", *pictures, "--prompt", PROMPT, "--json"))

    assert sorted(image["file"] for image in told["images"]) == sorted(pictures)
    assert [image["rank"] for image in told["images"]] == [1, 2]


def test_rank_by_likeness_shows_equal_ones_as_tied(stack: Stack, pictures: list[str]) -> None:
    first, second = pictures
    options = ["--like", first, "--label", "red star", "--weight", "like=5"]
    told = document(stack.easel("rank", second, first, second, *options, "--json"))
    shown = stack.easel("rank", second, first, second, "--like", first)

    likeness = {image["file"]: image["parts"][1] for image in told["images"]}
    assert likeness[first] == pytest.approx(1.0, abs=1e-5)
    assert likeness[second] < likeness[first]
    assert sorted(image["tied"] for image in told["images"]) == [False, True, True]
    ranks = [line.split()[0] for line in shown.stdout.splitlines()[1:4]]
    assert ranks == ["1", "2=", "2="]


def test_best_of_by_the_calibration_that_comes_along(stack: Stack, tmp_path: Path) -> None:
    arguments = ["-n", "8", "--seed", "3", "--out", tmp_path, "--json"]
    told = document(stack.easel("best-of", PROMPT, *arguments))

    compute = told["compute"]
    assert compute["row_steps_spent"] + compute["row_steps_saved"] == 8 * 20
    assert 0.0 < compute["regret_bound"] < 0.01


def test_best_of(stack: Stack, tmp_path: Path) -> None:
    arguments = ["-n", "4", "--steps", "8", "--rounds", "0.5:2", "--out", tmp_path, "--json"]
    told = document(stack.easel("best-of", PROMPT, *arguments))

    ranks = [each["rank"] for each in told["candidates"]]
    assert ranks == sorted(ranks)
    assert ranks[0] == 1
    assert len(ranks) == 4
    finished = [each for each in told["candidates"] if each["pruned_at_step"] is None]
    assert all(Path(each["file"]).is_file() for each in finished)
    assert told["compute"]["row_steps_spent"] + told["compute"]["row_steps_saved"] == 32


def test_wrong_input_is_named(stack: Stack, tmp_path: Path) -> None:
    junk = tmp_path / "junk.png"
    junk.write_bytes(b"junk")

    steps = stack.easel("generate", PROMPT, "--steps", "0")
    model = stack.easel("generate", PROMPT, "--model", "nonsense")
    picture = stack.easel("classify", junk)

    assert (steps.returncode, model.returncode, picture.returncode) == (2, 2, 2)
    assert "INVALID_ARGUMENT: steps: " in steps.stderr
    assert "given 0" in steps.stderr
    assert "NOT_FOUND" in model.stderr
    assert "image" in picture.stdout


def test_the_gateway_counts(stack: Stack, pictures: list[str]) -> None:
    del pictures
    http = stack.state["http"].removeprefix("http://")
    counted = {
        sample.labels.get("grpc_method"): sample.value
        for sample in scrape(http)
        if sample.name == "grpc_server_handled_total"
    }

    assert counted["Generate"] >= 1


def test_a_killed_service_comes_back(stack: Stack, pictures: list[str]) -> None:
    before = set(survivors(stack.mark))
    killed = stack.state["services"]["classifier"]["pid"]
    os.kill(killed, signal.SIGKILL)

    with Client(stack.target, timeout=30) as client:
        wait_until(lambda: _classifies(client, pictures[0]))

    after = set(survivors(stack.mark))
    assert killed not in after
    assert len(after) == len(before)
    assert before - {killed} < after


def _classifies(client: Client, picture: str) -> bool:
    try:
        return bool(client.classify(picture))
    except EaselClientError as error:
        if error.code is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False


def test_the_catalogue_tells_what_is_served(stack: Stack, pictures: list[str]) -> None:
    document(stack.easel("classify", pictures[0], "--json"))
    for kind, size in (("classifier", "input_size"), ("generator", "default_size")):
        model = document(stack.easel("catalogue", "show", f"{kind}/demo", "--json"))
        facts = model["facts"]
        assert model["id"] == f"demo-{kind}"
        assert facts["source"] == f"ModelService.ListModels of the {kind}"
        assert (facts["state"], facts[size]) == ("ready", "64x64")
        assert any(name.startswith("latency_seconds[") for name in facts)
    unserved = document(stack.easel("catalogue", "show", "stable-diffusion", "--json"))
    assert "facts" not in unserved


def test_what_the_catalogue_is_told_outlives_the_ranker(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "model.json"
    file.write_text('{"id": "mine", "type": "image-classifier", "aliases": ["My own"]}')
    document(stack.easel("catalogue", "put", file, "--json"))
    os.kill(stack.state["services"]["ranker"]["pid"], signal.SIGKILL)

    wait_until(lambda: stack.easel("catalogue", "show", "MY OWN").returncode != 3)

    assert document(stack.easel("catalogue", "show", "MY OWN", "--json"))["id"] == "mine"
    assert stack.easel("catalogue", "show", "something else").returncode == 2


def test_ctrl_c_stops_everything(stack: Stack) -> None:
    assert stack.stop() == 0
    assert survivors(stack.mark) == []
    assert stack.easel("status").returncode == 3


def test_a_start_that_takes_too_long_is_an_error() -> None:
    mark = uuid.uuid4().hex
    arguments = ["--json", "--gateway-port", "0", "--http-port", "0", "--start-timeout", "0"]

    done = easel("up", *arguments, environment={"EASEL_TEST_MARK": mark})

    assert done.returncode == 1
    assert done.stdout == ""
    assert "error: classifier was not ready in 0 s\n" in done.stderr
    assert survivors(mark) == []


def test_a_bad_setting_is_shown_and_not_tried_again() -> None:
    ports = ["--gateway-port", "0", "--http-port", "0"]

    done = easel("up", "--json", *ports, environment={"EASEL_RANKER_NONSENSE": "1"})

    assert done.returncode == 1
    assert done.stdout == ""
    assert "EASEL_RANKER_NONSENSE" in done.stderr
    assert "error: ranker exited with code 2 before it was ready\n" in done.stderr
    assert done.stderr.count("ranker     starting") == 1
