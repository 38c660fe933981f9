"""CalibratePruning on the wire, and requests that are pruned by what it found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2
from easel.ranker.v1 import ranker_pb2
from ranker.pictures.pruning.calibration import parse
from services.core.errors import FailedPrecondition, InvalidInput, ModelFault
from services.core.server.status import from_rpc_error
from tests.integration.ranker.conftest import RunningRanker, running_ranker
from tests.integration.ranker.upstreams import FIRST_SEED, PROMPT, upstreams

PROMPTS = [PROMPT, "a green ring", "a blue circle", "a red star", "one more red star"]


def asking(**fields: Any) -> ranker_pb2.CalibratePruningRequest:
    generate = generator_pb2.GenerateRequest(**{"seed": FIRST_SEED, **fields.pop("generate", {})})
    told = {"prompts": PROMPTS, "candidates": 4, **fields}
    return ranker_pb2.CalibratePruningRequest(generate=generate, **told)


async def calibrated(
    ranker: RunningRanker, request: ranker_pb2.CalibratePruningRequest
) -> tuple[list[ranker_pb2.CalibrationProgress], ranker_pb2.PruningCalibration]:
    events = [event async for event in ranker.stub.CalibratePruning(request)]
    return [event.progress for event in events[:-1]], events[-1].calibration


async def best_of(ranker: RunningRanker, **fields: Any) -> list[ranker_pb2.BestOfEvent]:
    generate = generator_pb2.GenerateRequest(prompt=PROMPT, **fields.pop("generate", {}))
    request = ranker_pb2.BestOfRequest(generate=generate, **{"candidates": 4, **fields})
    return [event async for event in ranker.stub.BestOf(request)]


async def failing(
    ranker: RunningRanker, request: ranker_pb2.CalibratePruningRequest
) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        [event async for event in ranker.stub.CalibratePruning(request)]
    return caught.value


async def test_everybody_is_kept_scored_and_counted(ranker: RunningRanker) -> None:
    progress, found = await calibrated(ranker, asking())
    assert [each.done for each in progress] == [1, 2, 3, 4, 5]
    assert {each.prompts for each in progress} == {5}
    assert {each.left_out for each in progress} == {0}
    script = ranker.upstreams.generator
    assert script.row_steps == 5 * 4 * 10
    assert [each.seed for each in script.submitted] == [FIRST_SEED + 4 * i for i in range(5)]
    assert [each.prompt for each in script.submitted] == PROMPTS
    assert list(script.submitted[0].preview.at_steps) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert (found.prompts, found.candidates) == (5, 4)
    assert [each.step for each in found.steps] == [2, 3, 4, 5, 6, 7, 8, 9]
    # The larger the seed the better, of the red star at every step.
    assert all(each.correlation == pytest.approx(1.0) for each in found.steps)
    assert 0.0 < found.chosen.work <= 0.65
    assert found.chosen.regret == 0.0
    assert found.chosen.best_kept == 1.0
    assert found.chosen.pruning.rounds
    kept = parse(found.json)
    assert kept.circumstances.generator == "sha256:g"
    assert kept.circumstances.classifier == "sha256:c"
    assert kept.circumstances.judges == ("label weight 1 spread 1",)
    assert kept.expected.regret_bound == found.chosen.regret_bound > 0.0


async def test_requests_like_those_are_pruned_by_it(ranker: RunningRanker, tmp_path: Path) -> None:
    _, found = await calibrated(ranker, asking())
    path = tmp_path / "kept.json"
    path.write_text(found.json)
    rounds = found.chosen.pruning.rounds
    async with upstreams() as up, running_ranker(up, calibrations=[path]) as own:
        up.generator.patience = {_step(rounds[0]): rounds[0].keep}
        events = await best_of(own)
        result = events[-1].result
        assert events[0].started.pruning == found.chosen.pruning
        assert result.regret_bound == pytest.approx(found.chosen.regret_bound)
        assert result.row_steps_spent == up.generator.row_steps
        assert result.row_steps_spent + result.row_steps_saved == 4 * 10
        up.generator.patience = {}
        # Rounds of one's own are replayed, and without any nothing is lost.
        own_rounds = {"rounds": [{"at": 0.5, "keep": 2}]}
        assert (await best_of(own, pruning=own_rounds))[-1].result.regret_bound > 0.0
        every = (await best_of(own, pruning={"disabled": True}))[-1].result
        assert every.HasField("regret_bound")
        assert every.regret_bound == 0.0
        # Fewer are replayed too; of more than were calibrated nothing is known.
        assert (await best_of(own, candidates=3))[-1].result.regret_bound > 0.0
        assert not (await best_of(own, candidates=5))[-1].result.HasField("regret_bound")
        # The calibration is of other steps than these.
        other = await best_of(own, generate={"steps": 12})
        assert not other[-1].result.HasField("regret_bound")
        assert [each.at for each in other[0].started.pruning.rounds] == pytest.approx([0.6, 0.8])


def _step(each: ranker_pb2.PruneRound) -> int:
    return round(each.at * 10)


async def test_without_a_calibration_no_bound_is_told(ranker: RunningRanker) -> None:
    assert not (await best_of(ranker))[-1].result.HasField("regret_bound")


async def test_a_margin_drops_whoever_is_too_far_behind(ranker: RunningRanker) -> None:
    """The red star's log-odds rise by the seed's thousandth."""
    script = ranker.upstreams.generator
    script.patience = {5: 2}
    seeds = [1000, 2000, 2400, 2600]
    rounds = {"rounds": [{"at": 0.5, "keep": 4, "margin": 0.3}]}
    events = await best_of(ranker, pruning=rounds, generate={"seeds": seeds})
    assert events[0].started.pruning.rounds[0].margin == pytest.approx(0.3)
    pruned = [each.pruned.index for each in events if each.HasField("pruned")]
    assert pruned == [0, 1]
    assert [each.index for each in events[-1].result.candidates] == [3, 2, 1, 0]
    assert script.row_steps == 4 * 5 + 2 * 5


async def test_a_prompt_that_cannot_be_judged_is_left_out(ranker: RunningRanker) -> None:
    ranker.upstreams.classifier.errors = [ModelFault("It fell over.")]
    progress, found = await calibrated(ranker, asking())
    assert [each.left_out for each in progress] == [1, 1, 1, 1, 1]
    assert found.prompts == 4
    ranker.upstreams.generator.broken[3] = common_pb2.ItemError(
        code=13, message="A step failed.", reason="MODEL_FAULT"
    )
    error = await failing(ranker, asking())
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "Of 5 prompts 0 could be made and judged; 4 are needed" in (error.details() or "")


async def test_scores_that_do_not_tell(ranker: RunningRanker) -> None:
    request = asking(at=[0.5], max_work=0.01)
    error = await failing(ranker, request)
    assert isinstance(from_rpc_error(error), FailedPrecondition)
    assert "no schedule takes 0.01" in (error.details() or "")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompts": PROMPTS[:3]}, "prompts"),
        ({"prompts": ["x"] * 1001}, "prompts"),
        ({"prompts": [*PROMPTS[:4], "x" * 10_001]}, "prompts[4]"),
        ({"prompts": [*PROMPTS[:3], "a dog", "a cat"]}, "judges"),
        ({"candidates": 1}, "candidates"),
        ({"candidates": 65}, "candidates"),
        ({"generate": {"prompt": "x"}}, "generate.prompt"),
        ({"generate": {"seeds": [1]}, "seed": None}, "generate.seeds"),
        ({"generate": {"count": 2}}, "generate.count"),
        ({"generate": {"preview": {"every": 1}}}, "generate.preview"),
        ({"generate": {"steps": 1}}, "at"),
        ({"at": [0.5, 0.5]}, "at[1]"),
        ({"at": [0.5, 1.0]}, "at[1]"),
        ({"at": [float("nan")]}, "at[0]"),
        ({"at": [0.01 * i for i in range(1, 14)]}, "at"),
        ({"max_work": 1.5}, "max_work"),
        ({"max_work": -0.5}, "max_work"),
        ({"max_work": float("nan")}, "max_work"),
        ({"judges": [ranker_pb2.Judge()]}, "judges[0]"),
        ({"generate": {"adapters": [{"name": "x"}]}}, "generate"),
        ({"generate": {"cache_interval": 2}}, "generate"),
        ({"generate": {"negative_prompt": "x"}}, "generate"),
        ({"generate": {"prompt_weighting": True}}, "generate"),
        ({"generate": {"long_prompt": generator_pb2.LONG_PROMPT_CHUNK}}, "generate"),
        ({"generate": {"clip_skip": 1}}, "generate"),
        ({"generate": {"guidance_rescale": 0.5}}, "generate"),
    ],
)
async def test_bad_requests_name_their_field(
    ranker: RunningRanker, fields: dict[str, Any], field: str
) -> None:
    fields.pop("seed", None)
    error = await failing(ranker, asking(**fields))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()
    found = from_rpc_error(error)
    assert isinstance(found, InvalidInput)
    assert ranker.upstreams.generator.submitted == [], "nothing is painted in vain"
    assert found.field == field


async def test_a_calibration_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    path.write_text(json.dumps({"format": "another"}))
    async with upstreams() as up:
        with pytest.raises(AssertionError):
            async with running_ranker(up, calibrations=[path]):
                pass
