"""Calibrations in files: kept, read again, and refused when they are something else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ranker.pictures.pruning.calibration import (
    Calibration,
    Circumstances,
    find,
    made,
    parse,
    read,
    read_all,
)
from ranker.pictures.pruning.replay import replay
from ranker.pictures.pruning.search import held, search
from ranker.pictures.schedule import Checkpoint, Round, checkpoints
from services.core.errors import FailedPrecondition
from tests.unit.ranker.pictures.pruning.trial_data import STEPS, drawn

WHERE = Circumstances("sha256:g", "sha256:c", ("label weight 1 spread 1",), STEPS, 3.0)


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    trials = drawn(24)
    return made(WHERE, trials, search(trials, 0.65), "2026-01-01T00:00:00+00:00")


def test_it_comes_back_from_its_file(calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text(calibration.as_json())
    found = read(path)
    assert replace(found, trials=calibration.trials) == calibration
    np.testing.assert_allclose(found.trials.standing, calibration.trials.standing, rtol=1e-4)
    np.testing.assert_allclose(found.trials.final, calibration.trials.final, rtol=1e-4)


def test_the_bound_of_the_chosen_schedule_is_the_cross_validated_one(
    calibration: Calibration,
) -> None:
    own = held(calibration.schedule, 8, STEPS)
    assert calibration.regret_bound(own, 8) == calibration.expected.regret_bound


def test_the_bound_of_any_other_is_replayed(calibration: Calibration) -> None:
    rounds = checkpoints((Round(0.6, 2),), STEPS)
    wanted = replay(calibration.trials, rounds, 5).regret_bound()
    assert calibration.regret_bound(rounds, 5) == wanted
    assert calibration.regret_bound((), 5) == 0.0


def test_no_bound_where_the_trials_do_not_tell(calibration: Calibration) -> None:
    assert calibration.regret_bound((Checkpoint(12, 2, 0.6),), 9) is None
    assert calibration.regret_bound((Checkpoint(1, 2, 0.05),), 8) is None


@pytest.mark.parametrize(
    "other",
    [
        {"generator": "sha256:h"},
        {"classifier": "sha256:d"},
        {"judges": ("label weight 2 spread 1",)},
        {"steps": 21},
        {"guidance_scale": None},
        {"sampler": "SAMPLER_EULER"},
        {"width": 64},
    ],
)
def test_it_holds_for_the_same_circumstances_alone(
    calibration: Calibration, other: dict[str, Any]
) -> None:
    assert find([calibration], WHERE) is calibration
    assert find([calibration], replace(WHERE, **other)) is None
    assert find([calibration], None) is None


def _without(name: str) -> Any:
    return lambda document: document.pop(name)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda document: document.update(format="x"), "does not begin"),
        (_without("final"), "lacks a field"),
        (lambda document: document["holds_for"].update(colour="red"), "one too many"),
        (lambda document: document["final"].pop(), "shape"),
        (lambda document: document["schedule"].append({"at": 0.1, "keep": 0.1}), "rise and fall"),
        (lambda document: document["schedule"][0].update(margin=-1.0), "margin of -1"),
        (lambda document: document["expected"].update(regret_bound=float("nan")), "not finite"),
        (lambda document: document.update(checkpoints=[4, 3, 12, 16]), "checkpoints"),
    ],
)
def test_files_that_are_something_else(
    calibration: Calibration, tmp_path: Path, change: Any, told: str
) -> None:
    document = json.loads(calibration.as_json())
    change(document)
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(document))
    with pytest.raises(FailedPrecondition, match=rf"odd\.json cannot be used: .*{told}"):
        read(path)


def test_no_file_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match=r"none\.json cannot be used"):
        read(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(FailedPrecondition, match=r"bad\.json cannot be used"):
        read(tmp_path / "bad.json")
    with pytest.raises(ValueError, match="does not begin"):
        parse("[]")


def test_those_that_come_with_the_ranker_can_be_read() -> None:
    for each in read_all(()):
        # All but one take a step more, while they are judged.
        dropped = (each.trials.candidates - 1) / each.trials.candidates
        assert each.expected.work + dropped / each.trials.steps <= 0.65
        assert each.trials.prompts >= 20
