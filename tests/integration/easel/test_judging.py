"""Judges, ties and calibrations at the command line, and in the client."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from easel.cli.judging import read_judges
from easel.client import (
    CalibrationProgress,
    Client,
    Judge,
    PruningCalibration,
)
from easel.ranker.v1 import ranker_pb2
from tests.integration.easel.fake_gateway import FakeGateway
from tests.integration.easel.test_cli import document, run

PROMPTS = ["a red star", "a blue ring", "a green heart", "a white moon"]


def judges_of(gateway: FakeGateway) -> list[ranker_pb2.Judge]:
    request = gateway.seen.requests[-1]
    assert isinstance(
        request,
        ranker_pb2.BestOfRequest
        | ranker_pb2.RankImagesRequest
        | ranker_pb2.CalibratePruningRequest,
    )
    return list(request.judges)


def test_rank_by_several_judges(gateway: FakeGateway, picture: Path, big_picture: Path) -> None:
    options = ["--label", "red star", "--like", big_picture, "--like", picture, "--text", ""]
    options += ["--reward", "nice", "--weight", "like=0.5", "--weight", "nice=-2"]
    told = run(gateway, "rank", picture, "--prompt", "a star", *options)
    assert told.exit_code == 0
    label, like, text, reward = judges_of(gateway)
    assert label.label.label == "red star"
    assert not label.HasField("weight")
    references = [each.encoded for each in like.similarity.references]
    assert references == [big_picture.read_bytes(), picture.read_bytes()]
    assert like.weight == 0.5
    assert (text.WhichOneof("kind"), text.text_image.text) == ("text_image", "")
    assert (reward.reward.name, reward.weight) == ("nice", -2.0)


def test_best_of_by_likeness_alone(gateway: FakeGateway, picture: Path, tmp_path: Path) -> None:
    told = run(gateway, "best-of", "x", "--like", picture, "--out", tmp_path, "--json")
    assert told.exit_code == 0
    (judge,) = judges_of(gateway)
    assert judge.WhichOneof("kind") == "similarity"


def test_without_judges_the_ranker_finds_its_own(gateway: FakeGateway, tmp_path: Path) -> None:
    run(gateway, "best-of", "x", "--out", tmp_path)
    assert judges_of(gateway) == []


def test_a_weight_alone_weighs_the_label_of_the_prompt() -> None:
    (judge,) = read_judges(None, None, None, None, ["label=2"])
    message = judge.message()
    assert (message.label.label, message.weight) == ("", 2.0)


@pytest.mark.parametrize(
    ("weight", "told"),
    [
        ("like=1", "there is no judge 'like'; there are: label"),
        ("label", "'label' is not JUDGE=NUMBER"),
        ("=2", "'=2' is not JUDGE=NUMBER"),
        ("label=much", "'label=much' is not JUDGE=NUMBER"),
    ],
)
def test_weights_that_weigh_nothing(
    gateway: FakeGateway, picture: Path, weight: str, told: str
) -> None:
    result = run(gateway, "rank", picture, "--label", "red star", "--weight", weight)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_weight_given_twice() -> None:
    with pytest.raises(ValueError, match="'label' is given twice"):
        read_judges("x", None, None, None, ["label=1", "label=2"])


def test_a_picture_to_be_like_that_is_not_there(gateway: FakeGateway, picture: Path) -> None:
    result = run(gateway, "rank", picture, "--like", "nowhere.png")
    assert result.exit_code == 2
    assert "nowhere.png" in result.stderr


def test_ties_are_shown_as_ties(gateway: FakeGateway, picture: Path, big_picture: Path) -> None:
    files = [picture, big_picture, picture]
    shown = run(gateway, "rank", *files, "--prompt", "a red star")
    told = document(run(gateway, "rank", *files, "--prompt", "a red star", "--json"))
    ranks = [line.split()[0] for line in shown.stdout.splitlines()[1:4]]
    assert ranks == ["1", "2=", "2="]
    assert [(each["rank"], each["tied"]) for each in told["images"]] == [
        (1, False),
        (2, True),
        (2, True),
    ]


def test_a_ranking_that_does_not_exist() -> None:
    with pytest.raises(ValueError, match="'best' is not one of bradley-terry, win-rate"):
        Judge.reward("x", ranking="best")
    told = Judge.reward("x", ranking="win-rate", spread=2.0).message()
    assert told.reward.ranking == ranker_pb2.PAIRWISE_RANKING_WIN_RATE
    assert told.spread == 2.0


# ---- calibrations ----


def test_calibrate_pruning(gateway: FakeGateway, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join([*PROMPTS[:3], "", "  "]))
    out = tmp_path / "out"
    arguments = ["calibrate-pruning", prompts, "--prompt", PROMPTS[3], "--out", out]
    options = ["--at", "0.2,0.4", "--max-work", "0.7", "-n", "6", "--guidance", "1", "--seed", "5"]
    shown = run(gateway, *arguments, *options)
    assert shown.exit_code == 0, shown.stderr
    request = gateway.seen.requests[-1]
    assert isinstance(request, ranker_pb2.CalibratePruningRequest)
    assert list(request.prompts) == PROMPTS
    assert list(request.at) == pytest.approx([0.2, 0.4])
    assert request.max_work == pytest.approx(0.7)
    assert (request.candidates, request.generate.seed) == (6, 5)
    assert request.generate.guidance_scale == 1.0
    assert "0.4:4 0.8:2:1.5" in shown.stdout
    assert "3 prompts, 6 candidates each, 1 prompts left out" in shown.stdout
    assert (out / "calibration.json").read_text() == '{"format":"x"}\n'
    drawing = ElementTree.fromstring((out / "calibration.svg").read_text())
    assert drawing.tag.endswith("svg")
    told = document(run(gateway, *arguments, "--json"))
    assert told["chosen"]["work"] == 0.62
    assert [each["step"] for each in told["steps"]] == [4, 8, 12, 16]
    assert told["files"] == [str(out / "calibration.json"), str(out / "calibration.svg")]


def test_too_few_prompts_and_shares_that_are_none(gateway: FakeGateway, tmp_path: Path) -> None:
    few = run(gateway, "calibrate-pruning", "--prompt", "x", "--out", tmp_path)
    assert few.exit_code == 2
    assert "prompts" in few.stderr
    odd = run(gateway, "calibrate-pruning", "--prompt", "x", "--at", "half")
    assert odd.exit_code == 2
    assert "'half' is no list of shares" in odd.stderr
    gone = run(gateway, "calibrate-pruning", tmp_path / "nowhere.txt")
    assert gone.exit_code == 2
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe")
    assert "no text in UTF-8" in run(gateway, "calibrate-pruning", binary).stderr


def test_the_clients_calibration(gateway: FakeGateway) -> None:
    with Client(gateway.target) as client:
        judges = [Judge.label("red star", weight=2.0)]
        events = list(client.calibrate_pruning(PROMPTS, judges=judges))
    assert [event for event in events if isinstance(event, CalibrationProgress)] == [
        CalibrationProgress(done, 4, 1) for done in (1, 2, 3, 4)
    ]
    found = events[-1]
    assert isinstance(found, PruningCalibration)
    first, second = found.chosen.rounds
    assert first[0] == pytest.approx(0.4)
    assert (first[1:], second[1:]) == ((4, None), (2, 1.5))
    assert len(found.schedules) == 3
