"""BestOf on the wire: pruning, cancelling, deadlines, errors, and what comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from easel.common.v1 import common_pb2
from easel.generator.v1 import generator_pb2
from easel.ranker.v1 import ranker_pb2
from services.core.errors import InvalidInput, NotReady, Overloaded
from services.core.server.status import from_rpc_error
from tests.integration.ranker.conftest import RunningRanker, running_ranker
from tests.integration.ranker.upstreams import FIRST_SEED, PROMPT, Upstreams, upstreams

Event = ranker_pb2.BestOfEvent


def asking(candidates: int = 8, /, **fields: Any) -> ranker_pb2.BestOfRequest:
    generate = fields.pop("generate", {})
    order = generator_pb2.GenerateRequest(**{"prompt": PROMPT, **generate})
    fields = {"id": "r1", **fields}
    return ranker_pb2.BestOfRequest(generate=order, candidates=candidates, **fields)


async def best_of(
    ranker: RunningRanker, request: ranker_pb2.BestOfRequest, **options: Any
) -> list[Event]:
    return [event async for event in ranker.stub.BestOf(request, **options)]


async def failing(
    ranker: RunningRanker, request: ranker_pb2.BestOfRequest, **options: Any
) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await best_of(ranker, request, **options)
    return caught.value


def of(events: list[Event], kind: str) -> list[Any]:
    return [getattr(event, kind) for event in events if event.WhichOneof("event") == kind]


async def test_losers_rows_are_freed_and_the_rest_is_ranked(ranker: RunningRanker) -> None:
    script = ranker.upstreams.generator
    script.patience = {6: 4, 8: 2}
    events = await best_of(ranker, asking(8))

    assert {event.id for event in events} == {"r1"}
    (started,) = of(events, "started")
    assert events[0].WhichOneof("event") == "started"
    assert list(started.seeds) == [FIRST_SEED + index for index in range(8)]
    assert started.steps == 10
    assert [each.keep for each in started.pruning.rounds] == [4, 2]
    assert [each.at for each in started.pruning.rounds] == pytest.approx([0.6, 0.8])
    assert [(each.weight, each.label.label) for each in started.judges] == [(1.0, "red star")]

    (result,) = of(events, "result")
    assert script.row_steps == result.row_steps_spent == 8 * 6 + 4 * 2 + 2 * 2
    assert result.row_steps_saved == 80 - result.row_steps_spent
    assert [each.seed - FIRST_SEED for each in result.candidates] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert [each.rank for each in result.candidates] == list(range(1, 9))
    steps = [each.pruned_at_step for each in result.candidates if each.HasField("pruned_at_step")]
    assert steps == [8, 8, 6, 6, 6, 6]
    assert all(each.image.encoded for each in result.candidates)
    best = result.candidates[0]
    assert best.image.encoded == b"final 10 1007"
    assert best.top.name == "red star"
    assert best.timing.steps == 10
    assert best.provenance.pixel_sha256 == "1007"
    assert result.candidates[7].image.encoded == b"preview 6 1000"
    assert (result.generator.digest, result.classifier.digest) == ("sha256:g", "sha256:c")
    assert result.seconds > 0

    assert len(of(events, "pruned")) == 6
    assert {each.steps_saved for each in of(events, "pruned")} == {2, 4}
    assert len(of(events, "finished")) == 2
    assert len(of(events, "step")) == script.row_steps
    assert not any(each.HasField("preview") for each in of(events, "score"))
    assert script.outcome == "complete"


async def test_counted(ranker: RunningRanker) -> None:
    ranker.upstreams.generator.patience = {6: 4, 8: 2}
    await best_of(ranker, asking(8))
    counted = "easel_best_of_candidates_total"
    assert ranker.metric(counted, outcome="pruned") == 6
    assert ranker.metric(counted, outcome="finished") == 2
    assert ranker.metric(counted, outcome="failed") == 0
    assert ranker.metric("easel_best_of_row_steps_spent_total") == 60
    assert ranker.metric("easel_best_of_row_steps_saved_total") == 20
    assert ranker.metric("easel_best_of_seconds_count") == 1


async def test_a_schedule_of_the_callers(ranker: RunningRanker) -> None:
    ranker.upstreams.generator.patience = {7: 1}
    rounds = [ranker_pb2.PruneRound(at=0.55, keep=1)]
    request = asking(3, pruning=ranker_pb2.Pruning(rounds=rounds), generate={"steps": 12})
    (result,) = of(await best_of(ranker, request), "result")
    assert [each.pruned_at_step for each in result.candidates] == [0, 7, 7]
    assert (result.row_steps_spent, result.row_steps_saved) == (26, 10)


async def test_float32_shares_mean_their_decimals(ranker: RunningRanker) -> None:
    script = ranker.upstreams.generator
    rounds = [ranker_pb2.PruneRound(at=at, keep=keep) for at, keep in ((0.6, 3), (0.7, 2))]
    request = asking(4, pruning=ranker_pb2.Pruning(rounds=rounds), generate={"steps": 20})
    await best_of(ranker, request)
    assert list(script.submitted[0].preview.at_steps) == [12, 14]
    assert script.submitted[0].in_step


async def test_pruning_disabled(ranker: RunningRanker) -> None:
    events = await best_of(ranker, asking(3, pruning=ranker_pb2.Pruning(disabled=True)))
    (result,) = of(events, "result")
    assert (result.row_steps_spent, result.row_steps_saved) == (30, 0)
    assert of(events, "started")[0].pruning.disabled
    assert not ranker.upstreams.generator.submitted[0].HasField("preview")


async def test_one_candidate_and_one_step(ranker: RunningRanker) -> None:
    (result,) = of(await best_of(ranker, asking(1, generate={"steps": 1})), "result")
    assert [(each.rank, each.seed) for each in result.candidates] == [(1, FIRST_SEED)]


async def test_previews_are_passed_on_when_asked_for(ranker: RunningRanker) -> None:
    ranker.upstreams.generator.patience = {6: 1}
    events = await best_of(ranker, asking(2, previews=True))
    scores = of(events, "score")
    previews = [each.preview.encoded for each in scores if not each.final]
    assert b"preview 6 1000" in previews
    assert not any(each.preview.encoded for each in scores if each.final)


async def test_only_so_many_images(ranker: RunningRanker) -> None:
    (result,) = of(await best_of(ranker, asking(4, return_images=2)), "result")
    assert [each.HasField("image") for each in result.candidates] == [True, True, False, False]


async def test_pictures_that_do_not_fit_in_a_message_are_left_out() -> None:
    async with upstreams() as up, running_ranker(up, max_message_bytes=4096) as ranker:
        up.generator.padding = 1000
        request = asking(4, pruning=ranker_pb2.Pruning(disabled=True))
        (result,) = of(await best_of(ranker, request), "result")
    shown = [each.HasField("image") for each in result.candidates]
    assert shown == [True] * 3 + [False]
    assert [each.rank for each in result.candidates] == [1, 2, 3, 4]


async def test_steps_are_left_out_when_asked(ranker: RunningRanker) -> None:
    ranker.upstreams.generator.patience = {6: 1}
    events = await best_of(ranker, asking(2, generate={"omit_steps": True}))
    assert of(events, "step") == []
    assert of(events, "result")[0].row_steps_spent == 16


async def test_seeds_of_the_callers(ranker: RunningRanker) -> None:
    request = asking(0, generate={"seeds": [5, 9, 7]})
    (result,) = of(await best_of(ranker, request), "result")
    assert [each.seed for each in result.candidates] == [9, 7, 5]


@pytest.mark.parametrize("seeds", [{"seed": 2**64 - 2}, {"seeds": [3, 2**64 - 2]}])
async def test_more_candidates_than_the_generator_takes_at_once(
    ranker: RunningRanker, seeds: dict[str, Any]
) -> None:
    ranker.upstreams.generator_models.info.generator.max_count = 2
    ranker.upstreams.generator.rows_to_await = 5
    ranker.upstreams.generator.patience = {6: 3, 8: 2}
    events = await best_of(ranker, asking(5, generate=seeds))
    first = [3, 2**64 - 2, 2**64 - 1, 0, 1] if "seeds" in seeds else [2**64 - 2, 2**64 - 1, 0, 1, 2]
    assert list(of(events, "started")[0].seeds) == first
    assert [order.count for order in ranker.upstreams.generator.submitted] == [2, 2, 1]
    (result,) = of(events, "result")
    assert sorted(each.seed for each in result.candidates) == sorted(first)
    assert result.candidates[0].seed >= 2**64 - 2
    assert result.row_steps_spent == ranker.upstreams.generator.row_steps == 5 * 6 + 3 * 2 + 2 * 2


async def test_judges_are_summed_by_weight(ranker: RunningRanker) -> None:
    judges = [
        ranker_pb2.Judge(label=ranker_pb2.LabelJudge(label="Red Star"), weight=-1.0),
        ranker_pb2.Judge(label=ranker_pb2.LabelJudge(label="blue circle", model="vit")),
    ]
    events = await best_of(ranker, asking(2, judges=judges, generate={"prompt": "anything"}))
    resolved = of(events, "started")[0].judges
    assert [(each.weight, each.label.label, each.label.model) for each in resolved] == [
        (-1.0, "red star", ""),
        (1.0, "blue circle", "vit"),
    ]
    (result,) = of(events, "result")
    # The logits are 0 and the seed's thousandth: their difference is left of the two judges.
    assert result.candidates[0].score == pytest.approx(-FIRST_SEED / 1000, abs=1e-6)


async def test_a_failed_candidate_is_last_and_the_rest_is_ranked(ranker: RunningRanker) -> None:
    script = ranker.upstreams.generator
    script.broken[3] = common_pb2.ItemError(code=13, message="A step failed.", reason="MODEL_FAULT")
    script.patience = {6: 2, 8: 1}
    events = await best_of(ranker, asking(4))
    (failed,) = of(events, "failed")
    assert (failed.index, failed.error.code, failed.error.reason) == (0, 13, "MODEL_FAULT")
    (result,) = of(events, "result")
    last = result.candidates[3]
    assert (last.rank, last.index, last.error.code) == (0, 0, 13)
    assert [each.rank for each in result.candidates] == [1, 2, 3, 0]
    assert result.row_steps_spent == script.row_steps
    assert ranker.metric("easel_best_of_candidates_total", outcome="failed") == 1


async def test_a_pictures_failure_at_the_judge_frees_its_row(ranker: RunningRanker) -> None:
    ranker.upstreams.classifier.error = Overloaded(0.01)
    ranker.upstreams.generator.patience = {6: 0}
    error = await failing(ranker, asking(4))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    found = from_rpc_error(error)
    assert isinstance(found, Overloaded)
    assert found.retry_after_seconds == pytest.approx(0.01)
    assert "classifier" in found.message
    assert ranker.upstreams.generator.row_steps == 24


async def test_a_judge_that_is_busy_for_a_moment_is_asked_again(ranker: RunningRanker) -> None:
    ranker.upstreams.classifier.errors = [Overloaded(0.001)]
    events = await best_of(ranker, asking(2, pruning=ranker_pb2.Pruning(disabled=True)))
    assert of(events, "failed") == []
    assert [each.rank for each in of(events, "result")[0].candidates] == [1, 2]


# ---- cancelling and deadlines ----


async def test_the_clients_cancel_reaches_the_generator(ranker: RunningRanker) -> None:
    script = ranker.upstreams.generator
    script.patience = {2: 0}
    call = ranker.stub.BestOf(asking(4))
    assert (await call.read()).WhichOneof("event") == "started"
    await script.is_waiting.wait()
    call.cancel()
    await script.ended.wait()
    assert script.outcome == "cancelled"
    assert script.row_steps == 8


async def test_deadline_and_context_are_passed_on(ranker: RunningRanker) -> None:
    metadata = (("x-request-id", "abc"), ("easel-tenant", "t1"), ("easel-priority", "3"))
    await best_of(ranker, asking(2), timeout=50, metadata=metadata)
    script = ranker.upstreams.generator
    assert script.time_remaining is not None
    # gRPC rounds a timeout up on its way.
    assert 0 < script.time_remaining < 51
    assert script.metadata["x-request-id"] == "abc"
    assert script.metadata["easel-tenant"] == "t1"
    assert script.metadata["easel-priority"] == "3"
    assert "traceparent" in script.metadata


async def test_the_deadline_stops_the_generator(ranker: RunningRanker) -> None:
    script = ranker.upstreams.generator
    script.patience = {2: 0}
    error = await failing(ranker, asking(4), timeout=0.5)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await script.ended.wait()
    assert script.outcome == "cancelled"


async def test_many_cancels_leave_nothing_behind(ranker: RunningRanker) -> None:
    script = ranker.upstreams.generator
    script.patience = {1: 0}
    before = len(asyncio.all_tasks())
    for _ in range(10):
        script.ended.clear()
        call = ranker.stub.BestOf(asking(3))
        await call.read()
        call.cancel()
        await script.ended.wait()
    script.patience = {}
    await best_of(ranker, asking(2))
    assert len(asyncio.all_tasks()) <= before + 2


# ---- upstreams that refuse, fail, or are away ----


async def test_what_the_generator_refuses_names_the_field(ranker: RunningRanker) -> None:
    ranker.upstreams.generator.refusal = common_pb2.ItemError(
        code=3, message="width must be a multiple of 8.", reason="INVALID_INPUT", field="width"
    )
    error = await failing(ranker, asking(20))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = from_rpc_error(error)
    assert isinstance(found, InvalidInput)
    assert found.field == "generate.width"


async def test_a_busy_generator(ranker: RunningRanker) -> None:
    ranker.upstreams.generator.refusal = common_pb2.ItemError(
        code=8, message="Full.", reason="OVERLOADED", retry_after_seconds=7.0
    )
    found = from_rpc_error(await failing(ranker, asking(2)))
    assert isinstance(found, Overloaded)
    assert found.retry_after_seconds == pytest.approx(7.0)
    assert "generator" in found.message


async def test_a_generator_that_takes_a_part_only_is_busy_for_all(ranker: RunningRanker) -> None:
    script = ranker.upstreams.generator
    ranker.upstreams.generator_models.info.generator.max_count = 2
    script.refusal = common_pb2.ItemError(code=8, message="Full.", reason="OVERLOADED")
    script.taken_before_refusal = 2
    script.patience = {1: 0}
    error = await failing(ranker, asking(5))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await script.ended.wait()
    assert script.outcome == "cancelled"


async def test_a_generator_that_dies_on_the_way(ranker: RunningRanker) -> None:
    ranker.upstreams.generator.error_at[5] = NotReady()
    error = await failing(ranker, asking(2))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "generator" in (error.details() or "")


@pytest.mark.parametrize(
    ("generate", "judges"),
    [
        ({"model": "nope"}, []),
        ({}, [ranker_pb2.Judge(label=ranker_pb2.LabelJudge(label="red star", model="nope"))]),
    ],
)
async def test_unknown_models(
    ranker: RunningRanker, generate: dict[str, Any], judges: list[ranker_pb2.Judge]
) -> None:
    error = await failing(ranker, asking(2, generate=generate, judges=judges))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "nope" in (error.details() or "")


@pytest.mark.parametrize("away", ["classifier", "generator"])
async def test_an_upstream_that_is_away_is_named(away: str) -> None:
    async with upstreams() as up:
        free = Upstreams()
        server, _, target = free.open()
        await server.start()
        await server.stop(None)
        settings: dict[str, Any] = {f"{away}_target": target}
        async with running_ranker(up, **settings) as ranker:
            error = await failing(ranker, asking(2), timeout=20)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert away in (error.details() or "")
    assert target not in (error.details() or "")


# ---- requests that are refused ----


def _pruning(*rounds: tuple[float, int]) -> dict[str, ranker_pb2.Pruning]:
    made = [ranker_pb2.PruneRound(at=at, keep=keep) for at, keep in rounds]
    return {"pruning": ranker_pb2.Pruning(rounds=made)}


_LABELLED = ranker_pb2.LabelJudge(label="red star")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ranker_pb2.BestOfRequest(), "generate"),
        (asking(2, id="x" * 129), "id"),
        (asking(2, generate={"id": "r2"}), "generate.id"),
        (asking(65), "candidates"),
        (asking(2, generate={"count": 3}), "generate.count"),
        (asking(2, generate={"seed": 1, "seeds": [1]}), "generate.seeds"),
        (asking(2, generate={"seeds": [1, 2, 3]}), "generate.seeds"),
        (asking(2, generate={"preview": {"every": 1}}), "generate.preview"),
        (asking(2, generate={"allow_degrade": True}), "generate.allow_degrade"),
        (asking(2, generate={"prompt": "a dog"}), "judges"),
        (asking(2, judges=[{"label": {"label": "x" * 10_001}}]), "judges[0].label.label"),
        (asking(2, generate={"prompt": ""}), "judges"),
        (asking(2, generate={"prompt": "a red star and a green ring"}), "judges"),
        (asking(2, generate={"prompt": "red star " * 2000}), "generate.prompt"),
        (asking(4, **_pruning((0.5, 2), (0.4, 1))), "pruning.rounds[1].at"),
        (asking(4, **_pruning((0.5, 2), (0.6, 2))), "pruning.rounds[1].keep"),
        (asking(4, **_pruning((0.5, 4))), "pruning.rounds[0].keep"),
        (asking(4, **_pruning((0.5, 0))), "pruning.rounds[0].keep"),
        (asking(4, **_pruning(*[(0.0, 0)] * 4)), "pruning.rounds"),
        (asking(4, **_pruning((float("nan"), 2))), "pruning.rounds[0].at"),
        (asking(4, **_pruning((1e-30, 2), (1e-31, 1))), "pruning.rounds[1].at"),
        (
            asking(4, pruning={"rounds": [{"at": 0.5, "keep": 2}], "disabled": True}),
            "pruning.rounds",
        ),
        (asking(4, judges=[ranker_pb2.Judge(weight=1.0)]), "judges[0]"),
        (asking(4, judges=[ranker_pb2.Judge()] * 9), "judges"),
        (
            asking(4, judges=[ranker_pb2.Judge(label=_LABELLED, weight=float("nan"))]),
            "judges[0].weight",
        ),
        (asking(4, judges=[{"label": {"label": "dog"}}]), "judges[0].label.label"),
        (asking(4, judges=[ranker_pb2.Judge(label=_LABELLED, weight=0.0)]), "judges"),
        (asking(4, judges=[ranker_pb2.Judge(label=_LABELLED, spread=0.0)]), "judges[0].spread"),
        (asking(4, judges=[{"similarity": {}}]), "judges[0].similarity.references"),
        (asking(4, judges=[{"text_image": {"text": "x" * 10_001}}]), "judges[0].text_image.text"),
        (asking(4, judges=[{"reward": {}}]), "judges[0].reward.name"),
        (asking(4, judges=[{"reward": {"name": "nobody"}}]), "judges[0].reward.name"),
    ],
)
async def test_bad_requests_name_their_field(
    ranker: RunningRanker, request_: ranker_pb2.BestOfRequest, field: str
) -> None:
    error = await failing(ranker, request_)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()
    found = from_rpc_error(error)
    assert isinstance(found, InvalidInput)
    assert found.field == field
    assert ranker.upstreams.generator.submitted == []
