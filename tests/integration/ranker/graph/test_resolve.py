"""Resolve and RecordOutcome on the wire, over the catalogue that comes along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from easel.ranker.v1 import ranker_pb2
from services.core.errors import EaselError, FailedPrecondition, InvalidInput
from services.core.server.status import from_rpc_error
from tests.integration.ranker.conftest import RunningRanker, running_ranker
from tests.integration.ranker.upstreams import upstreams


async def resolve(ranker: RunningRanker, query: str, **fields: Any) -> Any:
    return await ranker.stub.Resolve(ranker_pb2.ResolveRequest(query=query, **fields))


async def tell(ranker: RunningRanker, token: str, position: int, outcome: int) -> Any:
    request = ranker_pb2.RecordOutcomeRequest(token=token, position=position, outcome=outcome)  # type: ignore[arg-type]
    return await ranker.stub.RecordOutcome(request)


async def refused(call: Any) -> EaselError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_the_capability_that_is_meant_comes_first() -> None:
    asked = {
        "label my photos": "classify",
        "remove an object from a photo": "inpaint",
        "fine-tune a classifier": "fine-tune",
        "make a picture from text": "text-to-image",
        "find images that look alike": "embed",
    }
    async with upstreams() as up, running_ranker(up, exploration=0.0) as ranker:
        best = {query: (await resolve(ranker, query)).matches[0] for query in asked}
    assert {query: match.capability.id.split("/")[1] for query, match in best.items()} == asked
    assert all(match.why and match.intent for match in best.values())


async def test_from_a_question_to_its_outcome(ranker: RunningRanker) -> None:
    answer = await resolve(ranker, "classify an image")
    assert [match.position for match in answer.matches] == list(range(1, len(answer.matches) + 1))
    told = await tell(ranker, answer.token, 1, ranker_pb2.OUTCOME_SUCCEEDED)
    assert (told.repeated_call, told.model) == (False, answer.matches[0].model.id)
    assert (await tell(ranker, answer.token, 1, ranker_pb2.OUTCOME_SUCCEEDED)).repeated_call
    used = await refused(tell(ranker, answer.token, 1, ranker_pb2.OUTCOME_FAILED))
    assert isinstance(used, FailedPrecondition)
    assert used.reason == "TOKEN_USED"
    forged = await refused(tell(ranker, "A" * 60, 1, ranker_pb2.OUTCOME_CHOSEN))
    assert isinstance(forged, InvalidInput)
    assert forged.reason == "TOKEN_FORGED"
    assert ranker.metric("easel_match_outcomes_total", outcome="succeeded") == 1.0
    assert ranker.metric("easel_match_capabilities") >= 10.0


async def test_a_question_of_100_kilobytes(ranker: RunningRanker) -> None:
    error = await refused(resolve(ranker, "x" * 100_000))
    assert isinstance(error, InvalidInput)
    assert (error.field, error.limit, error.given) == ("query", "4096 bytes", "100000 bytes")


async def test_types_are_those_of_the_catalogue(ranker: RunningRanker) -> None:
    error = await refused(resolve(ranker, "image", type="toaster"))
    assert isinstance(error, InvalidInput)
    assert (error.field, error.given) == ("type", "toaster")
    assert error.limit is not None
    assert "image-classifier" in error.limit
    only = await resolve(ranker, "image", type="image-classifier")
    assert {match.model.type for match in only.matches} == {"image-classifier"}


async def test_limits_are_settings() -> None:
    async with (
        upstreams() as up,
        running_ranker(up, max_query_bytes=10, max_matches=1, outcome_days=1e-9) as ranker,
    ):
        assert len((await resolve(ranker, "image text")).matches) == 1
        long = await refused(resolve(ranker, "image texts"))
        many = await refused(resolve(ranker, "image", limit=2))
        assert isinstance(long, InvalidInput)
        assert isinstance(many, InvalidInput)
        assert (long.limit, many.limit) == ("10 bytes", "1 to 1")
        token = (await resolve(ranker, "image")).token
        expired = await refused(tell(ranker, token, 1, ranker_pb2.OUTCOME_CHOSEN))
        assert expired.reason == "TOKEN_EXPIRED"


async def test_outcomes_outlive_the_process(tmp_path: Path) -> None:
    async with upstreams() as up:
        async with running_ranker(up, data_dir=tmp_path) as ranker:
            answer = await resolve(ranker, "classify an image")
            await tell(ranker, answer.token, 1, ranker_pb2.OUTCOME_CHOSEN)
        async with running_ranker(up, data_dir=tmp_path) as again:
            told = await tell(again, answer.token, 1, ranker_pb2.OUTCOME_CHOSEN)
            assert told.repeated_call
            found = (await resolve(again, "classify an image")).matches
            assert sum(match.evidence.chosen for match in found) == 1
